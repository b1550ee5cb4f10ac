"""The engine on real connections: how each ends, what is counted, and that it ends alone."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import WebSocketConnection, WebSocketRequest, connect_websocket_url

from tests.harness import raw
from tests.harness.served import code_of, echo, entries, everything, served
from wssup import logs


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """What was logged since the last look."""
    logs.configure("debug", "json")

    def read() -> list[dict[str, Any]]:
        return entries(capsys.readouterr().err)

    return read


# How a WebSocket ends.


async def test_a_client_that_comes_talks_and_goes(tmp_path: Path) -> None:
    """An ordinary connection is counted when it opens and when it closes, with its messages and
    bytes; a handler that lets ConnectionClosed escape has simply ended.
    """
    async with served(tmp_path) as server:
        async with await server.connect() as ws:
            counts = await server.until(lambda c: c.active)
            assert (counts.accepted, counts.upgraded, counts.open, counts.active) == (1, 1, 1, 1)
            assert server.engine.count == 1
            for _ in range(3):
                await ws.send_message("x" * 100)
                assert await ws.get_message() == "x" * 100
        counts = await server.ended(client=1)
        assert (counts.messages_in, counts.messages_out) == (3, 3)
        assert (counts.bytes_in, counts.bytes_out) == (300, 300)
        assert (counts.handler_runs, counts.handler_errors) == (1, 0)


@pytest.mark.parametrize("code", [None, 4000])
async def test_a_handler_that_ends(tmp_path: Path, code: int | None) -> None:
    """When the handler returns its connection is closed with 1000, or as the handler said."""

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        if code is not None:
            await ws.aclose(code, "enough")

    async with served(tmp_path, handler) as server:
        ws = await server.connect()
        assert await code_of(ws) == ((1000, None) if code is None else (4000, "enough"))
        await server.ended(server=1)


@pytest.mark.parametrize(
    "error", [ValueError("oh"), SystemExit(3), ExceptionGroup("two", [ValueError("oh")])]
)
async def test_a_handler_that_raises(
    tmp_path: Path, error: BaseException, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """Whatever a handler raises ends its connection alone, with 1011, and is logged once with the
    application's own traceback.
    """

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        while (message := await ws.get_message()) != "raise":
            await ws.send_message(message)
        raise error

    async with served(tmp_path, handler) as server:
        other = await server.connect()
        ws = await server.connect()
        await ws.send_message("raise")
        assert await code_of(ws) == (1011, "internal error")
        await other.send_message("hello")
        assert await other.get_message() == "hello"
        await other.aclose()
        counts = await server.ended(error=1, client=1)
        assert (counts.handler_runs, counts.handler_errors) == (2, 1)
        await server.works()
    (told,) = [line for line in log() if line["event"] == "handler_failed"]
    assert told["level"] == "error"
    assert ("SystemExit" if isinstance(error, SystemExit) else "ValueError: oh") in told["error"]
    assert "raise error" in told["exception"]
    assert "wssup/server" not in told["exception"]
    error.__traceback__ = None


async def test_closed_inside_a_nursery_is_no_error(tmp_path: Path) -> None:
    """ConnectionClosed that comes out of a nursery of the handler, in groups, is an end like any
    other; beside another exception that one counts.
    """

    async def listen(ws: WebSocketConnection) -> None:
        await ws.get_message()

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("beside")

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
            outer.start_soon(trio.sleep_forever)
            nursery.start_soon(listen, ws)
            if request.path == "/fail":
                nursery.start_soon(fail)

    async with served(tmp_path, handler) as server:
        async with await server.connect():
            await server.until(lambda c: c.active)
        counts = await server.ended(client=1)
        assert counts.handler_errors == 0
        async with await connect_websocket_url(server.nursery, server.url + "fail"):
            await server.until(lambda c: c.active)
        await server.until(lambda c: c.handler_errors == 1)


async def test_a_client_that_vanishes(tmp_path: Path) -> None:
    """A client whose connection is reset, or ends without a close frame, is counted as lost."""
    async with served(tmp_path) as server:
        for number, reset in enumerate((True, False)):
            stream = await server.open()
            await stream.send_all(raw.request())
            await server.until(lambda c, n=number: c.upgraded == n + 1)
            if reset:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
            await server.until(lambda c: not c.open)
        counts = await server.ended(lost=2)
        assert counts.handler_errors == 0
        await server.works()


async def test_a_message_that_is_too_big(tmp_path: Path) -> None:
    """A message over the limit closes with 1009, one of the limit's size does not."""
    async with served(tmp_path, message_bytes=1000) as server:
        ws = await server.connect()
        await ws.send_message(b"x" * 1000)
        assert await ws.get_message() == b"x" * 1000
        await ws.send_message(b"x" * 1001)
        assert (await code_of(ws))[0] == 1009
        await server.ended(too_big=1)


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x01a",  # not masked (RFC 6455 section 5.1)
        b"\xf1\x80\0\0\0\0",  # reserved bits
        b"\x83\x80\0\0\0\0",  # an opcode that is none
        b"\x89\xfe\x01\x00" + bytes(4 + 256),  # a long ping
        b"\x80\x80\0\0\0\0",  # a continuation of nothing
    ],
)
async def test_frames_that_are_none(tmp_path: Path, data: bytes) -> None:
    """A client that breaks the protocol is closed, counted as such, and harms nobody else."""
    async with served(tmp_path) as server:
        stream, _ = await server.send(raw.request())
        await stream.send_all(data)
        await everything(stream)
        await server.ended(protocol=1)
        await server.works()


# How a handshake fails.

_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"GET /\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"\xff" * 100 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000,
        raw.request("/", b"Sec-WebSocket-Protocol: caf\xe9"),
        raw.request("/", b"Sec-WebSocket-Extensions: caf\xe9"),
        raw.request("/", host=b"caf\xe9"),
        raw.request("/", b"Connection: Upgrade, caf\xe9"),
        raw.request("/", b"Sec-WebSocket-Version: 12"),
    ],
)
async def test_what_is_no_handshake(tmp_path: Path, data: bytes) -> None:
    """A request that is no WebSocket handshake, also one that raises inside the library, is
    answered with a 4xx or closed, is counted as a bad request, and harms nobody else.
    """
    async with served(tmp_path) as server:
        stream = await server.open()
        # It may be closed while we send.
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        answer = await everything(stream)
        assert answer.startswith(b"HTTP/1.1 4") or not answer
        counts = await server.ended(bad_request=1)
        assert counts.handler_runs == 0
        await server.works()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("half", [b"", raw.request()[:30]])
async def test_a_client_that_leaves_in_the_handshake(
    tmp_path: Path, half: bytes, *, reset: bool
) -> None:
    """Who leaves before the handshake is complete is noticed at once, not at a timeout."""
    async with served(tmp_path, handshake_timeout=1000) as server:
        stream = await server.open()
        await stream.send_all(half)
        pump = server.engine._pump
        await server.until(
            lambda _: [len(c.head) for c in pump.connections.values()] == [len(half)]
        )
        if reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await server.ended(disconnected=1)


@pytest.mark.parametrize("half", [b"", raw.request()[:30]])
async def test_a_client_that_is_slow_in_the_handshake(tmp_path: Path, half: bytes) -> None:
    """Who has not sent a handshake within handshake_timeout is closed."""
    async with served(tmp_path, handshake_timeout=0.1) as server:
        stream = await server.open()
        await stream.send_all(half)
        await everything(stream)
        await server.ended(timeout=1)


async def test_a_handler_that_rejects(tmp_path: Path) -> None:
    """The application's status and body are what the client gets; then the server closes, whether
    the client does or not.
    """

    async def handler(request: WebSocketRequest) -> None:
        await request.reject(403, body=b"no")

    async with served(tmp_path, handler) as server:
        stream = await server.open()
        await stream.send_all(raw.request())
        head, _, body = (await everything(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 ")
        assert body == b"no"
        await server.ended(rejected=1)


async def test_a_client_that_stays_after_it_was_rejected(tmp_path: Path) -> None:
    """Who is turned down and does not go is cut off after a while: nobody holds a socket for
    nothing.
    """

    async def handler(request: WebSocketRequest) -> None:
        await request.reject(403)

    async with served(tmp_path, handler, close_timeout=0.1) as server:
        stream = await server.open()
        await stream.send_all(raw.request())
        await server.ended(rejected=1)
        await stream.aclose()


async def test_a_handler_that_neither_accepts_nor_rejects(tmp_path: Path) -> None:
    """A handler that just returns has rejected: the connection is closed."""

    async def handler(request: WebSocketRequest) -> None:
        await trio.lowlevel.checkpoint()

    async with served(tmp_path, handler) as server:
        stream = await server.open()
        await stream.send_all(raw.request())
        await everything(stream)
        await server.ended(rejected=1)


async def test_a_handler_that_raises_before_it_accepts(tmp_path: Path) -> None:
    """The client gets 500, and the engine goes on."""
    fail = True

    async def handler(request: WebSocketRequest) -> None:
        if fail:
            raise LookupError("before")
        await echo(request)

    async with served(tmp_path, handler) as server:
        stream = await server.open()
        await stream.send_all(raw.request())
        assert (await everything(stream)).startswith(b"HTTP/1.1 500 ")
        counts = await server.ended(error=1)
        assert counts.handler_errors == 1
        fail = False
        await server.works()
