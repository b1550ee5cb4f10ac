"""Each setting of the table [limits] holds at its edge: what just fits goes through, one more does
not, and is counted under its name.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.harness import raw
from tests.harness.served import Echo, echo, served
from tests.harness.waiting import until
from tests.unit.server.peer import (
    BINARY,
    OFF,
    PING,
    PONG,
    Peer,
    close_frame,
    everything_read,
    fragment,
    queued,
    small_buffer,
)
from wssup.server.connection import Connection
from wssup.server.request import Request

STYLES = [pytest.param(echo, id="task"), pytest.param(Echo(), id="event")]


class Recorder:
    """Keeps what it is given, in order, and closes when it is told to."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str | bytes]] = []

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        self.received.append((ws.path, data))
        if data == "close":
            ws.close_nowait()


# The opening handshake.


async def test_handshake_timeout(tmp_path: Path) -> None:
    """Who has no WebSocket by then is closed, not before; who has one is not."""
    async with served(tmp_path, heartbeat=OFF, handshake_timeout=0.5) as server:
        began = trio.current_time()
        async with await Peer.connect(server) as silent, await Peer.open(server) as quick:
            assert await silent.head() == b""
            assert trio.current_time() - began >= 0.5
            await server.until(lambda c: c.handshake_failures_by_reason["timeout"] == 1)
            # Its deadline would have been the same.
            await everything_read()
            assert await quick.ask("hello") == "hello"
            await quick.close()
        await server.ended(timeout=1, client=1)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_header_bytes(tmp_path: Path, *, over: bool, pieces: int) -> None:
    """A head of header_bytes is read, however it is cut and whatever follows it; one of a byte more
    is answered with 431.
    """
    size = 1000 + over
    head = raw.request("/")
    head = head.replace(b"Host: test", b"Host: test" + b"x" * (size - len(head)))
    assert len(head) == size
    data = head + raw.frame(raw.TEXT, b"early" * 100)
    async with served(tmp_path, header_bytes=1000) as server:
        async with await Peer.connect(server) as peer:
            for piece in range(pieces):
                first, last = (len(data) * n // pieces for n in (piece, piece + 1))
                peer.push(data[first:last])
                await everything_read()
            answer = await peer.head()
            if over:
                assert answer.startswith(b"HTTP/1.1 431 ")
            else:
                assert answer.startswith(b"HTTP/1.1 101 ")
                assert await peer.frame() == (raw.TEXT, b"early" * 100)
                await peer.close()
        await server.ended(**{"bad_request" if over else "client": 1})


@pytest.mark.parametrize("over", [False, True])
async def test_headers(tmp_path: Path, *, over: bool) -> None:
    """So many header fields are read; one more is answered with 431."""
    further = [b"X-%d: y" % number for number in range(20 - 5 + over)]
    async with served(tmp_path, headers=20) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(raw.request("/", *further))
            answer = await peer.head()
            assert answer.startswith(b"HTTP/1.1 431 " if over else b"HTTP/1.1 101 ")
        await server.ended(**{"bad_request" if over else "lost": 1})


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (b"https://example.com", True),
        (b"HTTPS://EXAMPLE.COM", True),
        (b"https://a.example.org", True),
        (None, True),
        (b"http://example.com", False),
        (b"https://example.com:8443", False),
        (b"https://example.com.evil.org", False),
        (b"https://example.org", False),
        (b"https://evil.org/.example.org", False),
        (b"https://evilexample.org", False),
        (b"null", False),
        (b"", False),
    ],
)
async def test_origins(tmp_path: Path, origin: bytes | None, *, allowed: bool) -> None:
    """A page of another origin gets 403, is counted as refused, and is not the application's
    business.
    """
    lines = [] if origin is None else [b"Origin: " + origin]
    origins = ("https://example.com", "https://*.example.org")
    async with served(tmp_path, origins=origins) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(raw.request("/", *lines))
            answer = await peer.head()
            assert answer.startswith(b"HTTP/1.1 101 " if allowed else b"HTTP/1.1 403 ")
        counts = await server.ended(**{"lost" if allowed else "origin": 1})
        assert counts.refused == counts.refused_by_reason["origin"] == (not allowed)
        assert counts.handler_runs == allowed


async def test_connections_per_address(tmp_path: Path) -> None:
    """One address may have so many connections; the next gets 429 at once, other addresses are not
    concerned, and there is room again when one ends.
    """
    async with served(tmp_path, connections_per_address=2) as server:
        async with await Peer.open(server) as one, await Peer.open(server) as two:
            for refused in (1, 2):
                async with await Peer.connect(server) as late:
                    assert (await late.head()).startswith(b"HTTP/1.1 429 ")
                counts = await server.until(lambda c: c.open == 2)
                assert counts.refused == counts.refused_by_reason["address"] == refused
            async with await Peer.connect(server, source="127.0.0.2") as other:
                await other.send(raw.request())
                assert (await other.head()).startswith(b"HTTP/1.1 101 ")
            await one.close()
            await server.until(lambda c: c.open == 1)
            async with await Peer.open(server) as again:
                assert await again.ask("hello") == "hello"
                assert await two.ask("hello") == "hello"
                async with await Peer.connect(server) as late:
                    assert (await late.head()).startswith(b"HTTP/1.1 429 ")
        await server.ended(client=1, lost=3, address=3)


# What comes.


@pytest.mark.parametrize("handler", STYLES)
@pytest.mark.parametrize("opcode", [raw.TEXT, BINARY])
@pytest.mark.parametrize("limit", [1, 100, 126, 1000, 100_000])
async def test_message_bytes(tmp_path: Path, handler: object, opcode: int, limit: int) -> None:
    """A message of message_bytes is received, whole or in fragments; one of a byte more closes with
    1009.
    """
    payload = b"x" * limit
    async with served(tmp_path, handler, message_bytes=limit) as server:
        async with await Peer.open(server) as peer:
            for message in (
                raw.frame(opcode, payload),
                fragment(opcode, payload[1:]) + fragment(0, payload[:1], last=True),
            ):
                await peer.send(message)
                assert await peer.frame() == (opcode, payload)
            await peer.send(raw.frame(opcode, payload + b"x"))
            assert await peer.code() == 1009
        counts = await server.ended(too_big=1)
        assert counts.closes_by_code["server"] == {"1009": 1}
        assert (counts.messages_in, counts.bytes_in) == (2, 2 * limit)


async def test_message_bytes_are_counted_as_they_are_sent(tmp_path: Path) -> None:
    """The limit counts bytes, not characters."""
    async with served(tmp_path, message_bytes=9) as server:
        async with await Peer.open(server) as peer:
            assert await peer.ask("世界!!!") == "世界!!!"
            await peer.say("世界!!!!")
            assert await peer.code() == 1009
        await server.ended(too_big=1)


@pytest.mark.parametrize("limit", [1, 2, 10])
async def test_fragments(tmp_path: Path, limit: int) -> None:
    """A message may come in so many frames, control frames between them not counted; one more
    closes with 1009.
    """
    ping = raw.frame(PING, b"between")

    def message(count: int) -> bytes:
        if count == 1:
            return raw.frame(raw.TEXT, b"x")
        return ping.join(
            [
                fragment(raw.TEXT, b"x"),
                *[fragment(0, b"x")] * (count - 2),
                fragment(0, b"x", last=True),
            ]
        )

    async with served(tmp_path, fragments=limit) as server:
        async with await Peer.open(server) as peer:
            for _ in range(2):
                await peer.send(message(limit))
                for _ in range(limit - 1):
                    assert await peer.frame() == (PONG, b"between")
                assert await peer.frame() == (raw.TEXT, b"x" * limit)
            await peer.send(message(limit + 1))
            assert await peer.code() == 1009
        await server.ended(too_big=1)


@pytest.mark.parametrize("limit", [1, 2, 16])
async def test_inbound_messages(tmp_path: Path, limit: int) -> None:
    """So many messages wait for an application that does not ask for them; the next is not read,
    and comes when there is room.
    """
    go = trio.Event()

    async def handler(request: Request) -> None:
        ws = await request.accept()
        await go.wait()
        async for message in ws:
            await ws.send_message(message)

    async with served(tmp_path, handler, heartbeat=OFF, inbound_messages=limit) as server:
        async with await Peer.open(server) as peer:
            for number in range(limit * 3):
                await peer.say(str(number))
                await everything_read()
                assert server.counts.messages_in == min(limit, number + 1)
            go.set()
            for number in range(limit * 3):
                assert await peer.frame() == (raw.TEXT, b"%d" % number)
            await peer.close()
        await server.ended(client=1)


async def test_read_bytes(tmp_path: Path) -> None:
    """No more than read_bytes is taken of a connection before others have their turn."""
    app = Recorder()
    message = raw.frame(raw.TEXT, b"x" * 1000)
    async with served(tmp_path, app, heartbeat=OFF, read_bytes=1024) as server:
        async with await Peer.open(server, "/a") as one, await Peer.open(server, "/b") as two:
            # Both before the pump has a turn.
            for peer in (one, two):
                assert peer.push(message * 20) == 20 * len(message)
            await server.until(lambda c: c.messages_in == 40)
            for start in range(0, 38, 2):
                # Both have been asked after each read.
                assert len({path for path, _ in app.received[start : start + 3]}) == 2
        await server.ended(lost=2)


# What goes.


@pytest.mark.parametrize("policy", ["wait", "close"])
@pytest.mark.parametrize("style", ["task", "event"])
async def test_outbound_bytes_and_slow_client(  # noqa: C901 - two applications, two policies
    tmp_path: Path, style: str, policy: str
) -> None:
    """Until outbound_bytes wait, send_nowait takes messages; the first that finds them there is not
    taken, and with slow_client = "close" closes the connection with 1013. send_message waits then
    with "wait".
    """
    limit, size = 50_000, 1000
    full = trio.Event()
    connection: list[Connection] = []
    sent = 0

    def fill_up(ws: Connection) -> None:
        nonlocal sent
        while ws.send_nowait(bytes(size)):
            sent += 1
            assert queued(server) < limit + size + 4
        connection.append(ws)
        full.set()

    class App:
        def on_connect(self, ws: Connection) -> None:
            fill_up(ws)

    async def handler(request: Request) -> None:
        ws = await request.accept()
        fill_up(ws)
        if policy == "wait":
            await ws.send_message(b"last")
            await ws.aclose()

    async with served(
        tmp_path,
        App() if style == "event" else handler,
        heartbeat=OFF,
        outbound_bytes=limit,
        slow_client=policy,
        close_timeout=100,
    ) as server:
        async with await Peer.connect(server, buffer=4096) as peer:
            await peer.send(raw.request())
            await full.wait()
            if policy == "wait":
                assert queued(server) >= limit
                assert connection[0].closed is None
            else:
                assert connection[0].closed is not None
                assert connection[0].closed.code == 1013
                assert queued(server) < size + 200
            await peer.head()
            if policy == "close":
                while (frame := await peer.frame())[0] == BINARY:
                    assert frame[1] == bytes(size)
                assert frame == (raw.CLOSE, b"\x03\xf5too slow")
                await peer.send(close_frame(1013))
                assert (await peer.frame())[0] == -1
                await server.ended(slow_client=1)
                return
            for _ in range(sent):
                assert await peer.frame() == (BINARY, bytes(size))
            if style == "task":
                assert await peer.frame() == (BINARY, b"last")
                assert await peer.code() == 1000
            await peer.send(close_frame())
            await peer.frames()
        await server.ended(**{"server" if style == "task" else "client": 1})


async def test_send_timeout(tmp_path: Path) -> None:
    """Who takes nothing for send_timeout is closed with 1013; who takes a little is not. It can
    read that, after what it had a part of.
    """

    async def handler(request: Request) -> None:
        ws = await request.accept()
        small_buffer(ws)
        while True:
            await ws.send_message(bytes(10_000))

    async with served(
        tmp_path,
        handler,
        heartbeat=OFF,
        outbound_bytes=40_000,
        send_timeout=1.0,
        close_timeout=100,
    ) as server:
        async with await Peer.open(server, buffer=4096) as peer:
            began = trio.current_time()
            while trio.current_time() < began + 1.5:
                assert await peer.frame() == (BINARY, bytes(10_000))
                last = trio.current_time()
                await trio.sleep(0.02)
            await everything_read()
            # Senders are let go on when half of it is free.
            assert queued(server) > 20_000, "it was not slow"
            await until(lambda: queued(server) <= 10_000 + 200)
            assert trio.current_time() - last >= 0.5, "it was taking something until then"
            while (frame := await peer.frame())[0] == BINARY:
                assert frame[1] == bytes(10_000)
            assert frame == (raw.CLOSE, b"\x03\xf5too slow")
        await server.ended(slow_client=1)


async def test_close_timeout(tmp_path: Path) -> None:
    """Who does not answer a close frame is cut off after close_timeout, not before; who does is
    gone at once.
    """
    app = Recorder()
    async with served(tmp_path, app, close_timeout=1.0) as server:
        async with await Peer.open(server) as silent, await Peer.open(server) as good:
            began = trio.current_time()
            for peer in (silent, good):
                await peer.say("close")
                assert await peer.code() == 1000
            await good.send(close_frame())
            assert (await good.frame())[0] == -1
            assert server.counts.open == 1
            assert (await silent.frame())[0] == -1
            assert trio.current_time() - began >= 1.0
        counts = await server.ended(server=2)
        assert counts.closes_by_code["server"] == {"1000": 2}
