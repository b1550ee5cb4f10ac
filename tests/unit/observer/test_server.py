"""The HTTP server against clients that hold on to what they get: real sockets, short patience."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.types import Receive, Scope, Send

from tests.harness.waiting import until_on_asyncio as until
from wssup.observer.server import MOST, Server

PATIENCE = 20.0
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = 4 << 20

Address = tuple[str, int]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Ends]]


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    """Says the path, or very much."""
    body = b"x" * LARGE if scope["path"] == "/large" else scope["path"].encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(patience: float) -> AsyncIterator[tuple[Server, Address, Dial]]:
    """A server on a port of its own, and connections to it that are closed in the end."""
    made: list[Ends] = []

    async def dial() -> Ends:
        made.append(await asyncio.open_connection(*address))
        return made[-1]

    sock = socket.create_server(("127.0.0.1", 0), backlog=512)
    address = sock.getsockname()
    server = Server(app, patience)
    task = asyncio.create_task(server.serve([sock]))
    try:
        yield server, address, dial
    finally:
        began = time.monotonic()
        server.end()
        await task
        # Whoever holds a connection does not hold up the end.
        assert time.monotonic() - began < 5
        for _, writer in made:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def run(scene: Callable[[], Awaitable[None]]) -> None:
    """Run a scene, but not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await scene()

    asyncio.run(bounded())


async def ask(address: Address, path: bytes = b"/here") -> bytes:
    """One request; the whole answer."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write((GET % path).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answer = await reader.read()
    writer.close()
    return answer


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end of a connection."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            found += chunk
    return found


def test_who_says_nothing_or_half_is_cut_off() -> None:
    """A client that sends no request, half of one, or half of a second one, is cut off; one that
    asks again and again on one connection is not.
    """

    async def scene() -> None:
        async with serving(patience=3.0) as (_, _, dial):
            silent, _ = await dial()
            half, writer = await dial()
            writer.write(b"GET / HTTP/1.1\r\nHost: loc")
            second, writer2 = await dial()
            writer2.write(GET % b"/one" + b"GET /two HT")
            regular, asking = await dial()

            async def drip() -> None:
                # A header now and then is no progress.
                with contextlib.suppress(ConnectionError):
                    while True:
                        await asyncio.sleep(0.1)
                        writer.write(b"a: b\r\n")
                        await writer.drain()

            dripping = asyncio.create_task(drip())

            async def again() -> None:
                for _ in range(16):
                    asking.write(GET % b"/again")
                    assert b"200 OK" in await regular.readuntil(b"/again")
                    await asyncio.sleep(0.25)

            asked = asyncio.create_task(again())
            assert await ended(silent) == b""
            assert await ended(half) == b""
            assert b"/one" in await ended(second)
            await asked
            dripping.cancel()

    run(scene)


def test_who_takes_nothing_is_cut_off() -> None:
    """A client that does not read its answer is cut off, although the answer is not yet sent, also
    if its connection is being closed; what was to be sent is held once.
    """

    async def scene() -> None:
        async with serving(patience=3.0) as (server, address, dial):
            stuck = [await dial() for _ in range(10)]
            for index, (_, writer) in enumerate(stuck):
                request = GET % b"/large"
                if index % 2:
                    request = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
                writer.write(request)
            await until(lambda: len(server.server_state.connections) >= 10)
            await until(lambda: not server.server_state.connections)
            assert await ask(address) != b""

    run(scene)


def test_a_head_without_end() -> None:
    """A head that grows and grows is refused, in one line or in many, in a first request or behind
    one that is being answered; a body may be longer.
    """

    async def scene() -> None:
        async with serving(patience=10.0) as (_, _, dial):
            for line in (b"a" * 1000, b"a: b\r\n" * 100):
                reader, writer = await dial()
                writer.write(b"GET / HTTP/1.1\r\nx: y")
                with contextlib.suppress(ConnectionError):
                    for _ in range(2000):
                        writer.write(line)
                        await writer.drain()
                answer = await ended(reader)
                assert not answer or answer.startswith(b"HTTP/1.1 400")
            reader, writer = await dial()
            writer.write(
                b"POST /x HTTP/1.1\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n"
                + b"b" * 200_000
            )
            assert b"200 OK" in await ended(reader)

    run(scene)


def test_many_requests_at_once() -> None:
    """A few requests in one go are answered in order; thousands are not kept for later."""

    async def scene() -> None:
        async with serving(patience=10.0) as (server, _, dial):
            reader, writer = await dial()
            writer.write(b"".join(GET % b"/%d" % number for number in range(5)))
            for number in range(5):
                await reader.readuntil(b"\r\n\r\n/%d" % number)
            reader, writer = await dial()
            writer.write(GET % b"/large" * 5000)

            def kept() -> int:
                return max((len(c.pipeline) for c in server.server_state.connections), default=0)

            ending = asyncio.create_task(ended(reader))
            most = 0
            while not ending.done():
                most = max(most, kept())
                await asyncio.sleep(0)
            assert 0 < most < 50

    run(scene)


def test_a_flood() -> None:
    """Of very many connections some are served, some are told 503 and the rest is cut off; when
    they are gone everybody is served again.
    """

    async def scene() -> None:
        async with serving(patience=PATIENCE) as (server, address, dial):
            idle = [await dial() for _ in range(MOST + 20)]
            await until(lambda: len(server.server_state.connections) >= MOST + 20)
            assert b" 503 " in await ask(address)
            server._patience = 0.5
            more = [await dial() for _ in range(MOST)]
            await until(lambda: len(server.server_state.connections) <= 2 * MOST)
            for reader, _ in (*idle, *more):
                assert await ended(reader) == b""
            assert b"200 OK" in await ask(address)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        run(scene)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
