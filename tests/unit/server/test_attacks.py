"""Hostile bytes: each attack is bounded in memory and time, ends alone, and is counted by name."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
import trio

from tests.harness import raw
from tests.harness.served import Echo, Served, echo, served
from tests.unit.server.peer import (
    BINARY,
    PING,
    PONG,
    Peer,
    bystander,
    close_frame,
    everything_read,
    fragment,
    grown,
    opened,
)
from wssup.config.settings import Heartbeat
from wssup.server.connection import Connection
from wssup.server.request import Request

STYLES = [pytest.param(echo, id="task"), pytest.param(Echo(), id="event")]


class Recorder:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.received: list[str | bytes] = []

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        if data == "close":
            ws.close_nowait(4000, "enough")
        else:
            self.received.append(data)


# In frames.


@pytest.mark.parametrize("handler", STYLES)
async def test_100_000_empty_fragments(tmp_path: Path, handler: object) -> None:
    """A message in more frames than the limit is closed with 1009 where it passes the limit: what
    comes after that is not kept.
    """
    flood = fragment(raw.TEXT) + fragment(0) * 100_000
    async with served(tmp_path, handler) as server:
        async with bystander(server), await Peer.open(server) as peer:
            with grown() as memory:
                await peer.send(flood)
                assert await peer.code() == 1009
                assert memory() < 1 << 20
            assert await peer.frame() == (-1, b"")
        counts = await server.ended(too_big=1, client=1)
        assert counts.closes_by_code["server"] == {"1009": 1}
        await server.works()


@pytest.mark.parametrize(
    ("announced", "code"),
    [(1001, 1009), (1 << 31, 1009), ((1 << 63) - 1, 1009), (1 << 63, 1002), ((1 << 64) - 1, 1002)],
)
@pytest.mark.parametrize("opcode", [raw.TEXT, BINARY])
async def test_a_frame_that_announces_too_much(
    tmp_path: Path, opcode: int, announced: int, code: int
) -> None:
    """A frame over the limit is closed for its first ten bytes: nothing is reserved for it, and its
    payload is not waited for. A length of 2^63 and more is no length (RFC 6455 section 5.2).
    """
    head = (
        struct.pack("!BBH", 0x80 | opcode, 0xFE, announced)
        if announced < 1 << 16
        else struct.pack("!BBQ", 0x80 | opcode, 0xFF, announced)
    )
    async with served(tmp_path, message_bytes=1000) as server:
        async with bystander(server), await Peer.open(server) as peer:
            with grown() as memory:
                await peer.send(head)
                assert await peer.code() == code
                assert memory() < 1 << 20
            assert await peer.frame() == (-1, b"")
        counts = await server.ended(**{"too_big" if code == 1009 else "protocol": 1}, client=1)
        assert counts.closes_by_code["server"] == {str(code): 1}


async def test_fragments_that_announce_too_much_together(tmp_path: Path) -> None:
    """The limit holds for the message: the fragment that would pass it is closed for its head."""
    async with served(tmp_path, message_bytes=1000) as server:
        async with await Peer.open(server) as peer:
            await peer.send(fragment(BINARY, bytes(600)) + fragment(0, bytes(400)))
            await peer.send(raw.frame(PING, b"so far so good"))
            assert await peer.frame() == (PONG, b"so far so good")
            await peer.send(fragment(0, b"x")[:6])
            assert await peer.code() == 1009
        await server.ended(too_big=1)


async def test_slow_loris_in_a_frame(tmp_path: Path) -> None:
    """Who sends a frame byte by byte holds what was sent, not what was announced; is taken for
    alive as long as bytes come, and for dead when none come any more.
    """
    count, beat = 20, Heartbeat(ping_interval=0.2, ping_timeout=1.0)
    head = struct.pack("!BBQ", 0x80 | BINARY, 0xFF, 1 << 20) + bytes(4)
    async with (
        served(tmp_path, heartbeat=beat) as server,
        bystander(server),
        opened(server, count) as peers,
    ):
        with grown() as memory:
            began = trio.current_time()
            sent = 0
            while trio.current_time() < began + 1.5:
                for peer in peers:
                    assert peer.push(head[sent : sent + 1] or b"x") == 1
                sent += 1
                await trio.sleep(0.01)
            assert memory() < count * (sent + (32 << 10))
        assert server.counts.closed == 0
        counts = await server.until(lambda c: c.closed == count)
        assert counts.closed_by_reason["timeout"] == counts.ping_timeouts == count


async def test_a_message_byte_by_byte(tmp_path: Path) -> None:
    """However a message is cut, it is the same message: one character in several reads, too."""
    texts = ["", "x", "grüße, 世界", "{" * 130]
    async with served(tmp_path) as server:
        async with await Peer.open(server) as peer:
            for text in texts:
                for byte in raw.frame(raw.TEXT, text.encode()):
                    await peer.send(bytes([byte]))
                    await everything_read()
                assert await peer.frame() == (raw.TEXT, text.encode())
        await server.until(lambda c: not c.open)
        assert server.counts.messages_in == len(texts)


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x7c",  # not masked, and cut: the rest would have told
        b"\x82\x7d\0",
        b"\x81\x7e\x00\x80",
        b"\x82\x7f\0\0\0",
        b"\x81\xfe\0\0",  # 126 says "two bytes of length", which are for 126 and more
        b"\x82\xfe\0\0\0\0\0\0" + bytes(1000),
        b"\x81\xfe\0\x7d\0\0\0\0" + bytes(125),
        b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0" + bytes(0xFFFF),
    ],
)
async def test_frames_that_only_look_whole(tmp_path: Path, data: bytes) -> None:
    """A frame whose head breaks the protocol is no message, whatever its size happens to be."""
    app = Recorder()
    async with served(tmp_path, app) as server:
        async with await Peer.open(server) as peer:
            await peer.send(data)
            await everything_read()
            assert app.received == []
            assert await peer.code() == 1002
        await server.ended(protocol=1)
        assert server.counts.messages_in == 0


@pytest.mark.parametrize("left", [b"x{xx", b"\0\0\0\0", b"x\x81\0\0"])
async def test_what_one_client_sent_is_nothing_to_another(tmp_path: Path, left: bytes) -> None:
    """The worker's one buffer still holds what another connection sent: a short read sees nothing
    of it.
    """
    whole = raw.frame(raw.TEXT, b"y" * 200)
    async with (
        served(tmp_path) as server,
        await Peer.open(server) as one,
        await Peer.open(server) as two,
    ):
        for cut in range(1, 8):
            await one.send(raw.frame(BINARY, bytes(10) + left)[:16])
            await everything_read()
            await one.send(left)
            await everything_read()
            assert two.push(whole[:cut]) == cut
            await everything_read()
            assert two.push(whole[cut:]) == len(whole) - cut
            assert await two.frame() == (raw.TEXT, b"y" * 200)
            assert await one.frame() == (BINARY, bytes(10) + left)


# In the closing handshake.


async def _send_for_ever(peer: Peer, data: bytes) -> None:
    while True:
        await peer.send(data)


@pytest.mark.parametrize("handler", STYLES)
async def test_unread_data_when_a_violation_is_found(tmp_path: Path, handler: object) -> None:
    """Who breaks the protocol in the middle of much data still gets the close frame with its code,
    and the end of the stream after it, no reset.
    """
    async with served(tmp_path, handler) as server:
        async with bystander(server), await Peer.open(server) as peer:
            assert await peer.ask("before") == "before"
            await peer.send(b"\x83\x80\0\0\0\0" + bytes(300_000))
            (opcode, payload), end = await peer.frames()
            assert (opcode, payload[:2], end) == (raw.CLOSE, b"\x03\xea", (-1, b""))
        counts = await server.ended(protocol=1, client=1)
        assert counts.closes_by_code["server"] == {"1002": 1}


async def test_who_sends_on_after_a_violation_is_cut_off(tmp_path: Path) -> None:
    """What comes after a violation is thrown away, and after close_timeout the connection is gone
    whether the client wants or not.
    """
    async with served(tmp_path, close_timeout=0.3) as server:
        async with bystander(server), await Peer.open(server) as peer:
            with grown() as memory:
                await peer.send(b"\xff")
                with pytest.raises(trio.BrokenResourceError):
                    await _send_for_ever(peer, bytes(100_000))
                assert memory() < 1 << 20
        await server.ended(protocol=1, client=1)


@pytest.mark.parametrize("size", [10, 30_000, 300_000])
async def test_garbage_after_a_close_frame(tmp_path: Path, size: int) -> None:
    """Nothing is looked at that comes after a client's close frame: it is answered, and that is
    all.
    """
    app = Recorder()
    async with served(tmp_path, app, close_timeout=100) as server:
        async with await Peer.open(server) as peer:
            # It may be gone before all is sent.
            with contextlib.suppress(trio.BrokenResourceError):
                await peer.send(close_frame(3001) + raw.frame(raw.TEXT, b"late") + b"\xff" * size)
            assert await peer.frame() == (raw.CLOSE, struct.pack("!H", 3001))
        counts = await server.ended(client=1)
        assert counts.closes_by_code["client"] == {"3xxx": 1}
        assert app.received == []


async def test_data_after_our_close_frame(tmp_path: Path) -> None:
    """What a client had on its way when the application closed is not delivered, and its own close
    frame behind it ends the connection in order.
    """
    app = Recorder()
    async with served(tmp_path, app, close_timeout=100) as server:
        async with await Peer.open(server) as peer:
            await peer.say("one", "close", *["late"] * 1000)
            assert await peer.frame() == (raw.CLOSE, b"\x0f\xa0enough")
            await peer.say(*["later"] * 1000)
            await peer.send(close_frame(4000))
            assert await peer.frame() == (-1, b"")
        counts = await server.ended(server=1)
        assert counts.closes_by_code["server"] == {"4xxx": 1}
        assert app.received == ["one"]


async def test_data_without_end_after_our_close_frame(tmp_path: Path) -> None:
    """Who never stops to talk after a close frame is cut off after close_timeout."""
    app = Recorder()
    async with served(tmp_path, app, close_timeout=0.3) as server:
        async with bystander(server, echoes=False), await Peer.open(server) as peer:
            await peer.say("close")
            with pytest.raises(trio.BrokenResourceError):
                await _send_for_ever(peer, raw.frame(raw.TEXT, b"late") * 10_000)
        await server.ended(server=1, client=1)
        assert "late" not in app.received


# In the opening handshake.


async def test_slow_loris_in_the_handshake(tmp_path: Path) -> None:
    """Who sends a request byte by byte gets no more time than anybody: 408 at handshake_timeout
    (which it may not see, if a byte of it comes just then).
    """
    head = raw.request("/" + "x" * 1000)
    answers: list[tuple[bytes, float]] = []

    async def loris(server: Served) -> None:
        began = trio.current_time()
        async with await Peer.connect(server) as peer, trio.open_nursery() as nursery:

            async def drip() -> None:
                with contextlib.suppress(ConnectionError):
                    for byte in head:
                        assert peer.push(bytes([byte])) == 1
                        await trio.sleep(0.005)

            nursery.start_soon(drip)
            answer = b""
            with contextlib.suppress(trio.BrokenResourceError):
                answer = await peer.head()
            answers.append((answer, trio.current_time() - began))
            nursery.cancel_scope.cancel()

    async with served(tmp_path, handshake_timeout=0.5) as server:
        async with bystander(server), trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(loris, server)
        counts = await server.ended(timeout=20, client=1)
        assert counts.handler_runs == 1
    assert {answer[:12] for answer, _ in answers} <= {b"HTTP/1.1 408", b""}
    assert all(seconds >= 0.5 for _, seconds in answers)


async def test_many_half_done_handshakes(tmp_path: Path) -> None:
    """Each holds what it has sent, and all are gone at handshake_timeout."""
    count, half = 300, b"GET / HTTP/1.1\r\nX: " + b"x" * 4000
    async with (
        served(tmp_path, handshake_timeout=1.0) as server,
        bystander(server),
        contextlib.AsyncExitStack() as stack,
    ):
        with grown() as memory:
            for _ in range(count):
                peer = await stack.enter_async_context(await Peer.connect(server))
                assert peer.push(half) == len(half)
            await everything_read()
            assert memory() < count * (len(half) + 8000)
        counts = await server.until(lambda c: c.handshake_failures == count)
        assert counts.handshake_failures_by_reason["timeout"] == count
        assert counts.open == counts.active == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000,
        b"GET /" + b"x" * 1_000_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200_000,
        raw.request("/", *(b"X-%d: y" % n for n in range(200))),
        raw.request("/" + "x" * 9000),
    ],
    ids=["value", "target", "endless", "headers", "complete"],
)
async def test_a_head_that_is_too_large(tmp_path: Path, head: bytes) -> None:
    """More than header_bytes or headers is refused as soon as it is seen, with 431, which the
    client can read although much of what it sent was not looked at.
    """
    async with served(tmp_path) as server:
        async with bystander(server), await Peer.connect(server) as peer:
            with grown() as memory:
                await peer.send(head)
                assert (await peer.head()).startswith(b"HTTP/1.1 431 ")
                assert memory() < 1 << 20
        counts = await server.ended(bad_request=1, client=1)
        assert counts.handler_runs == 1


async def test_two_spaces_before_the_target(tmp_path: Path) -> None:
    """What the parser lets pass is understood the same way everywhere: the path is the target, or
    the request is refused.
    """
    paths: list[str] = []

    class Asked(Recorder):
        def on_request(self, request: Request) -> None:
            paths.append(request.path)

    async with served(tmp_path, Asked()) as server, await Peer.connect(server) as peer:
        await peer.send(raw.request("/there").replace(b"GET ", b"GET  "))
        answer = await peer.head()
        assert answer.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 400 "))
        assert paths == (["/there"] if b" 101 " in answer else [])
