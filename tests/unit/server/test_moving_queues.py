"""What waits on both sides of a connection moves with it: received and not taken, said and not
sent; and what is said while it moves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import wssup
from tests.harness import raw
from tests.harness.moving import Plain, Two, begin, move, numbered, two
from tests.unit.server.peer import (
    BINARY,
    OFF,
    PING,
    PONG,
    Peer,
    close_frame,
    everything_read,
    fill,
    opened,
    queued,
    small_buffer,
)
from wssup.server.connection import Connection
from wssup.server.request import Request

#: Messages that a connection may have waiting for its application: limits.inbound_messages.
INBOUND = 16


def words(first: int, last: int) -> bytes:
    """Numbered messages."""
    return b"".join(raw.frame(raw.TEXT, b"%d" % n) for n in range(first, last))


# Inbound.


class Slow:
    """Applications that keep what they receive, and work on the first message until they are let
    go on.

    :ivar received: messages, and in which worker: 0 the first.
    """

    def __init__(self) -> None:
        self.received: list[tuple[int, str | bytes]] = []
        self.at_work = trio.Event()
        self.go_on = trio.Event()

    async def work(self, ws: Connection, data: str | bytes) -> None:
        self.received.append((ws.resumed, data))
        if data == "0":
            self.at_work.set()
            await self.go_on.wait()
        elif data == "end":
            await ws.send_message("ended")


class SlowHooks(Slow):
    async def on_receive(self, ws: Connection, data: str | bytes) -> None:
        await self.work(ws, data)


async def slow_task(slow: Slow, request: Request) -> None:
    ws = await request.accept()
    async for data in ws:
        await slow.work(ws, data)


@asynccontextmanager
async def at_work(tmp_path: Path, style: str) -> AsyncIterator[tuple[Two, Slow, Peer]]:
    """A connection whose application is at work on its first message."""
    slow = SlowHooks() if style == "event" else Slow()
    application: object = slow
    if style == "task":

        @wssup.resumable
        async def application(request: Request) -> None:
            await slow_task(slow, request)

    async with (
        two(tmp_path, application, heartbeat=OFF) as both,
        await Peer.open(both.old) as peer,
    ):
        await peer.send(words(0, 1))
        await slow.at_work.wait()
        yield both, slow, peer


@pytest.mark.parametrize("style", ["event", "task"])
@pytest.mark.parametrize("count", [1, 2, INBOUND - 1, INBOUND, INBOUND + 1, 1000])
async def test_what_was_not_taken(tmp_path: Path, style: str, count: int) -> None:
    """A connection whose application is at work moves when the work is done, with the messages that
    wait for it, in their order: few, as many as may wait, or so many that it is not read from.
    """
    async with at_work(tmp_path, style) as (both, slow, peer):
        await peer.send(words(1, count))
        await everything_read()
        session = begin(both.old, both.new)
        swept = await session.swept()
        assert (swept.moved, swept.busy, swept.kept) == (0, 1, 0)
        slow.go_on.set()
        await both.old.engine.wait_empty()
        await peer.say("end")
        assert await peer.frame() == (raw.TEXT, b"ended")
        found = [data for _, data in slow.received]
        assert found == [*(str(n) for n in range(count)), "end"]
        assert [where for where, _ in slow.received] == [0] + [1] * count
        given, taken = await session.recall()
        assert (given.moved, taken.taken) == (1, 1)


@pytest.mark.parametrize("style", ["event", "task"])
async def test_an_endless_sender(tmp_path: Path, style: str) -> None:
    """A client that sends as much as it can to an application at work loses nothing in the move."""
    size = 1000
    async with at_work(tmp_path, style) as (both, slow, peer):
        sent = await fill(peer, raw.frame(BINARY, bytes(size)))
        frame = len(raw.frame(BINARY, bytes(size)))
        session = begin(both.old, both.new)
        await session.swept()
        slow.go_on.set()
        await both.old.engine.wait_empty()
        await peer.send(raw.frame(BINARY, bytes(size))[sent % frame :] if sent % frame else b"")
        await peer.say("end")
        assert await peer.frame() == (raw.TEXT, b"ended")
        assert len(slow.received) == 2 + -(-sent // frame)
        await session.recall()


async def test_more_than_one_receiver(tmp_path: Path) -> None:
    """Of several tasks that wait for messages each message goes to one, in the new worker, too."""
    received: list[str | bytes] = []

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()

        async def receive() -> None:
            while True:
                received.append(await ws.get_message())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(receive)

    async with two(tmp_path, application) as both, await Peer.open(both.old) as peer:
        await peer.send(words(0, 5))
        await everything_read()
        assert await move(both.old, both.new) == 1
        await peer.send(words(5, 10))
        await everything_read()
        assert await move(both.new, both.old) == 1
        await peer.send(words(10, 15))
        await everything_read()
    assert sorted(map(int, received)) == list(range(15))


async def test_who_does_not_listen_to_answers(tmp_path: Path) -> None:
    """A plain hook's client that does not take its answers is not listened to; messages that were
    read already and not delivered move, and are answered in order.
    """
    answer = 4000
    # Below half of the bound it is listened to again; the kernel takes some whenever it likes.
    held_back = 8_192

    class Wordy(Plain):
        def on_connect(self, ws: Connection) -> None:
            small_buffer(ws)

        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            assert ws.send_nowait(numbered(int(data), "x" * answer))

    settings = {"heartbeat": OFF, "outbound_bytes": 2 * held_back}
    async with (
        two(tmp_path, Wordy(), **settings) as both,
        await Peer.open(both.old, buffer=4096) as peer,
    ):
        here, there = both
        for start in (0, 500):
            await peer.send(words(start, start + 500))
            await everything_read()
            before = here.counts.messages_out
            assert queued(here) > held_back
            assert await move(here, there) == 1
            await everything_read()
            assert (queued(here), queued(there) > held_back) == (0, True)
            assert here.counts.messages_out == before
            for n in range(start, start + 500):
                expected = b"%d %s" % (n, b"x" * answer)
                assert await peer.frame() == (raw.TEXT, expected)
            here, there = there, here


# Outbound.


@pytest.mark.parametrize("size", [300, 100_000, 3 << 20])
async def test_what_was_not_sent(tmp_path: Path, size: int) -> None:
    """Frames that a client has not taken, the first of them cut anywhere by the kernel, arrive
    whole and in order, before what the new worker says.
    """
    count = (6 << 20) // size

    class Wordy(Plain):
        def on_connect(self, ws: Connection) -> None:
            small_buffer(ws)

        def on_receive(self, ws: Connection, _: str | bytes) -> None:
            for n in range(count):
                assert ws.send_nowait(b"%d " % n * (size // 4))

        def on_suspend(self, ws: Connection) -> None:
            assert ws.send_nowait("going")

        def on_resume(self, ws: Connection) -> None:
            assert ws.send_nowait("there")

    settings = {"heartbeat": OFF, "outbound_bytes": 16 << 20}
    async with (
        two(tmp_path, Wordy(), **settings) as both,
        await Peer.open(both.old, buffer=4096) as peer,
    ):
        await peer.say("go")
        await everything_read()
        waiting = queued(both.old)
        assert waiting > 1 << 20
        assert await move(both.old, both.new) == 1
        assert queued(both.old) == 0
        assert queued(both.new) > 1 << 20
        assert await move(both.new, both.old) == 1
        for n in range(count):
            assert await peer.frame() == (BINARY, b"%d " % n * (size // 4))
        for word in (b"going", b"there") * 2:
            assert await peer.frame() == (raw.TEXT, word)
        assert queued(both.old) == 0


async def test_pongs_that_were_not_sent(tmp_path: Path) -> None:
    """Pings of a client that takes nothing are answered in the end, each once."""

    class Wordy(Plain):
        def on_connect(self, ws: Connection) -> None:
            small_buffer(ws)
            ws.send_nowait(bytes(4 << 20))

    settings = {"heartbeat": OFF, "outbound_bytes": 16 << 20}
    async with (
        two(tmp_path, Wordy(), **settings) as both,
        await Peer.open(both.old, buffer=4096) as peer,
    ):
        await peer.send(b"".join(raw.frame(PING, b"%d" % n) for n in range(10)))
        await everything_read()
        assert await move(both.old, both.new) == 1
        assert await peer.frame() == (BINARY, bytes(4 << 20))
        for n in range(10):
            assert await peer.frame() == (PONG, b"%d" % n)


# While it moves.


async def test_said_in_on_suspend(tmp_path: Path) -> None:
    """What a hook says while the connection moves, to it and to others that move, arrives before
    what the new worker says.
    """
    peers_of: set[Connection] = set()

    class Room(Plain):
        def on_connect(self, ws: Connection) -> None:
            peers_of.add(ws)

        async def on_suspend(self, ws: Connection) -> None:
            for n in range(3):
                await trio.lowlevel.checkpoint()
                assert ws.send_nowait(f"going {n}")
            await ws.send_message("gone")
            # Whoever is not gone yet hears it.
            peers_of.discard(ws)

        def on_resume(self, ws: Connection) -> None:
            assert ws.send_nowait("there")

    async with two(tmp_path, Room()) as both, opened(both.old, 50) as peers:
        await everything_read()
        assert await move(both.old, both.new) == 50
        for peer in peers:
            for word in (b"going 0", b"going 1", b"going 2", b"gone", b"there"):
                assert await peer.frame() == (raw.TEXT, word)
    assert not peers_of


async def test_said_at_the_end_of_a_handler(tmp_path: Path) -> None:
    """What a handler says when it is cancelled for the move, after a shielded wait, too,
    arrives before what it says in the new worker.
    """

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        try:
            if ws.resumed:
                await ws.send_message("there")
            async for data in ws:
                await ws.send_message(data)
        finally:
            assert ws.send_nowait("first")
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
                await ws.send_message("last")

    async with two(tmp_path, application) as both, await Peer.open(both.old) as peer:
        assert await peer.ask("x") == "x"
        assert await move(both.old, both.new) == 1
        for word in (b"first", b"last", b"there"):
            assert await peer.frame() == (raw.TEXT, word)
        assert await peer.ask("y") == "y"


async def test_others_speak_while_it_moves(tmp_path: Path) -> None:
    """Messages that others send to a connection without pause while it moves: what was on its way
    (true) arrives in order, and the first false is the last of the old worker.
    """
    told: list[int] = []
    stay = trio.Event()

    class Suspends(Plain):
        async def on_suspend(self, _: Connection) -> None:
            await stay.wait()

    connections: list[Connection] = []

    class Room(Suspends):
        def on_connect(self, ws: Connection) -> None:
            connections.append(ws)

    async with two(tmp_path, Room(), Plain()) as both, await Peer.open(both.old) as peer:
        await everything_read()
        (ws,) = connections
        session = begin(both.old, both.new)
        n = 0
        while ws.send_nowait(str(n)):
            told.append(n)
            n += 1
            if n == 20:
                stay.set()
            await trio.lowlevel.checkpoint()
        assert n >= 20
        await session.recall()
        for n in told:
            assert await peer.frame() == (raw.TEXT, b"%d" % n)


async def test_what_was_lost_while_it_was_held(tmp_path: Path) -> None:
    """With `slow_client = "close"`, somebody whose queue is full while the application lets go of
    it is closed with 1013 as ever: it does not go on elsewhere without what was lost.
    """
    go_on, held = trio.Event(), trio.Event()

    class App(Plain):
        async def on_suspend(self, _ws: Connection) -> None:
            held.set()
            await go_on.wait()

    settings = {"outbound_bytes": 64 << 10, "slow_client": "close", "heartbeat": OFF}
    async with two(tmp_path, App(), **settings) as both, await Peer.open(both.old) as peer:
        hub = both.old.engine.topics
        (connection,) = both.old.engine._pump.connections.values()
        small_buffer(connection)
        hub.subscribe(connection, "t", since=None, positions=False, member=None)
        session = begin(both.old, both.new)
        await held.wait()
        while not hub.tally.dropped:
            hub.publish("t", bytes(10_000))
        go_on.set()
        assert await peer.code() == 1013
        await peer.send(close_frame())
        await session.recall()
        counts = await both.old.until(lambda c: c.closed == 1)
        assert (counts.closed_by_reason["slow_client"], counts.moved_out) == (1, 0)
