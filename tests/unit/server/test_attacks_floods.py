"""Too much of what is allowed: each flood is bounded in memory, ends alone, and leaves time for
others.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.harness import raw
from tests.harness.served import Echo, Served, echo, served
from tests.unit.server.peer import OFF, PING, PONG, Peer, bystander, fill, flood, grown, queued
from wssup.server.connection import Connection
from wssup.server.request import Request

STYLES = [pytest.param(echo, id="task"), pytest.param(Echo(), id="event")]
#: One message of the floods of large ones, and the mark of the outbound queue.
LARGE, MARK = 32 << 10, 64 << 10
#: What is added to them: heads, and the kernel's buffers are not counted.
SLACK = 4 << 10


# Who does not read.


@pytest.mark.parametrize("handler", STYLES)
async def test_a_reader_that_never_reads(tmp_path: Path, handler: object) -> None:
    """Who sends and never reads is not read from either, once outbound_bytes wait for it: there is
    never more than that and one message. After send_timeout it is closed as a slow client.
    """
    message = raw.frame(raw.TEXT, b"x" * LARGE)
    async with served(
        tmp_path,
        handler,
        heartbeat=OFF,
        outbound_bytes=MARK,
        inbound_messages=4,
        send_timeout=4.0,
        close_timeout=0.2,
    ) as server:
        async with bystander(server), await Peer.open(server, buffer=4096) as peer:
            with grown() as memory:
                await fill(peer, message)
                assert MARK <= queued(server) <= MARK + LARGE + SLACK
                # Inbound messages and what of the next one was read come on top.
                assert memory() < 16 * LARGE
            await server.until(lambda c: c.closed)
            assert queued(server) == 0
        counts = await server.ended(slow_client=1, client=1)
        assert counts.closes_by_code["server"] == {"1013": 1}
        assert counts.handler_errors == 0


@pytest.mark.parametrize("style", ["task", "event"])
async def test_a_reader_that_never_reads_is_closed(  # noqa: C901 - two applications
    tmp_path: Path, style: str
) -> None:
    """With slow_client = "close" it is closed with 1013 when its queue is full. It gets what it had
    a part of, and the close frame, if it reads after all.
    """
    full = trio.Event()

    class Closing:
        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            if not ws.send_nowait(data):
                note(ws)

    async def closing(request: Request) -> None:
        ws = await request.accept()
        try:
            while True:
                await ws.send_message(await ws.get_message())
        except ConnectionClosed:
            note(ws)

    def note(ws: Connection) -> None:
        if ws.path != "/bystander":
            assert ws.closed is not None
            assert ws.closed.code == 1013
            full.set()

    async def keep_sending(peer: Peer) -> None:
        for number in range(1000):
            await peer.say(f"{number:0{LARGE}}")

    async with served(
        tmp_path,
        closing if style == "task" else Closing(),
        heartbeat=OFF,
        outbound_bytes=MARK,
        slow_client="close",
        close_timeout=100,
    ) as server:
        async with bystander(server), await Peer.open(server, buffer=4096) as peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_sending, peer)
                await full.wait()
                assert queued(server) <= MARK + LARGE + SLACK
                number = 0
                while (frame := await peer.frame())[0] == raw.TEXT:
                    assert int(frame[1][-9:]) == number
                    number += 1
                nursery.cancel_scope.cancel()
            assert frame == (raw.CLOSE, b"\x03\xf5too slow")
        counts = await server.until(lambda c: c.closed == 2)
        assert counts.closed_by_reason["slow_client"] == counts.closed_by_reason["client"] == 1
        assert counts.closes_by_code["server"] == {"1013": 1}


# Pings.


@pytest.mark.parametrize("handler", STYLES)
async def test_a_flood_of_pings(tmp_path: Path, handler: object) -> None:
    """Each ping of a client that reads is answered, in their order."""
    count = 5000
    pings = b"".join(raw.frame(PING, b"%d" % number) for number in range(count))
    async with served(tmp_path, handler) as server:
        async with bystander(server), await Peer.open(server) as peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.send, pings)
                for number in range(count):
                    assert await peer.frame() == (PONG, b"%d" % number)
            await peer.close()
        await server.ended(client=2)


@pytest.mark.parametrize("handler", STYLES)
async def test_a_flood_of_pings_of_who_does_not_read(tmp_path: Path, handler: object) -> None:
    """The pongs of a client that does not read are bounded like everything that waits for it."""
    pings = raw.frame(PING, b"x" * 125) * 100

    def look() -> None:
        assert queued(server) <= MARK + (64 << 10)

    async with served(tmp_path, handler, heartbeat=OFF, outbound_bytes=MARK) as server:
        async with bystander(server), await Peer.open(server, buffer=4096) as peer:
            # Until the server reads no more, or has shown that it need not.
            await flood(peer, pings, 8 << 20, look)
            peer.reset()
        await server.ended(lost=1, client=1)


# Fairness.


class Counting:
    """Echoes, but for a flood, which it counts."""

    def __init__(self) -> None:
        self.flood = 0

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        if ws.path == "/flood":
            self.flood += 1
        else:
            ws.send_nowait(data)


class CountingTask(Counting):
    """The same, task style."""

    async def __call__(self, request: Request) -> None:
        ws = await request.accept()
        async for message in ws:
            self.on_receive(ws, message)


def _count(style: str) -> tuple[Counting, object]:
    counting = CountingTask() if style == "task" else Counting()
    return counting, counting.__call__ if isinstance(counting, CountingTask) else counting


async def _flood(server: Served, frames: bytes) -> None:
    async with await Peer.open(server, "/flood") as peer:
        while True:
            await peer.send(frames)


@pytest.mark.parametrize("style", ["task", "event"])
@pytest.mark.parametrize("kind", ["messages", "pings", "fragments"])
async def test_others_have_their_turn_beside_a_flood(tmp_path: Path, style: str, kind: str) -> None:
    """While one connection sends tiny frames without end, twenty others do their round trips."""
    frames = {
        "messages": raw.frame(raw.TEXT, b""),
        "pings": raw.frame(10, b""),
        "fragments": b"\x01\x80\0\0\0\0" + b"\0\x80\0\0\0\0" * 500 + b"\x80\x80\0\0\0\0",
    }[kind]
    frames *= 100_000 // len(frames)
    _, application = _count(style)
    trips: list[float] = []

    async def talk(server: Served) -> None:
        async with await Peer.open(server) as peer:
            for number in range(20):
                began = trio.current_time()
                assert await peer.ask(str(number)) == str(number)
                trips.append(trio.current_time() - began)
            await peer.close()

    async with served(tmp_path, application) as server:
        async with trio.open_nursery() as flooding:
            flooding.start_soon(_flood, server, frames)
            await server.until(lambda c: c.upgraded)
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(talk, server)
            assert server.counts.active, "the flood has ended"
            flooding.cancel_scope.cancel()
        await server.ended(client=20, lost=1)
    assert max(trips) < 5.0


async def test_a_turn_takes_little_of_each(tmp_path: Path) -> None:
    """However much one connection has sent, a turn gives the application a bounded number of its
    messages: others run in between.
    """
    counting = Counting()
    frames = raw.frame(raw.TEXT, b"") * 20_000
    most = 0
    async with served(tmp_path, counting, heartbeat=OFF) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_flood, server, frames)
            while counting.flood < 100_000:
                before = counting.flood
                # Everybody who can runs once meanwhile: two turns, as the order is not fixed.
                await trio.lowlevel.checkpoint()
                most = max(most, counting.flood - before)
            nursery.cancel_scope.cancel()
        await server.ended(lost=1)
    assert most <= 512
