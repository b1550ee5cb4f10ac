"""The heartbeat and the other deadlines of a connection go on where it moves to."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from tests.harness import raw
from tests.harness.moving import Async, Plain, begin, move, task, two
from tests.harness.waiting import until
from tests.unit.server.peer import (
    BINARY,
    PING,
    PONG,
    Peer,
    close_frame,
    everything_read,
    fill,
    opened,
    sent_at,
    small_buffer,
)
from wssup.config.settings import Heartbeat
from wssup.scoreboard import ClosedReason
from wssup.server.connection import Connection


async def test_a_ping_at_the_move(tmp_path: Path) -> None:
    """The pong of a ping that the old worker has sent is heard by the new one, which counts its
    round trip; the client stays.
    """
    beat = Heartbeat(ping_interval=0.3, ping_timeout=10)
    async with two(tmp_path, Plain(), heartbeat=beat) as both, await Peer.open(both.old) as peer:
        opcode, payload = await peer.frame()
        assert opcode == PING
        assert await move(both.old, both.new) == 1
        await trio.sleep(0.1)
        await peer.send(raw.frame(PONG, payload))
        counts = await both.new.until(lambda c: sum(c.round_trips))
        assert sum(both.old.counts.round_trips) == 0
        assert counts.ping_timeouts == 0
        for _ in range(5):
            opcode, payload = await peer.frame()
            assert opcode == PING
            await peer.send(raw.frame(PONG, payload))
        assert await peer.ask("x") == "1 x"
        assert both.active() == (0, 1)
        assert both.new.counts.ping_timeouts == 0


async def test_a_client_that_died_before_the_move(tmp_path: Path) -> None:
    """A client that does not answer the ping of the old worker is closed by the new one, when the
    old one would have done it: the move does not begin its time anew.
    """
    beat = Heartbeat(ping_interval=0.5, ping_timeout=3.0)
    async with two(tmp_path, Plain(), heartbeat=beat) as both, await Peer.open(both.old) as peer:
        opcode, payload = await peer.frame()
        assert opcode == PING
        began = sent_at(payload)
        here, there = both
        for _ in range(4):
            await trio.sleep(0.15)
            assert await move(here, there) == 1
            here, there = there, here
        await here.until(lambda c: c.closed_by_reason["timeout"] == 1)
        assert 3.0 <= time.monotonic() - began < 12
        assert both.old.counts.ping_timeouts == 1
        frames = await peer.frames()
        assert (raw.CLOSE, b"\x03\xf3keepalive ping timeout") in frames


async def test_a_client_that_dies_after_the_move(tmp_path: Path) -> None:
    """The new worker pings, and closes who does not answer; who answers stays."""
    beat = Heartbeat(ping_interval=0.2, ping_timeout=0.4)

    async def answer(peer: Peer) -> None:
        while True:
            opcode, payload = await peer.frame()
            assert opcode == PING
            await peer.send(raw.frame(PONG, payload))

    async with two(tmp_path, task, heartbeat=beat) as both, opened(both.old, 10) as peers:
        assert await move(both.old, both.new) == 10
        async with trio.open_nursery() as nursery:
            for peer in peers[:5]:
                nursery.start_soon(answer, peer)
            counts = await both.new.until(lambda c: c.closed_by_reason["timeout"] == 5)
            assert (counts.active, counts.pings_sent >= 10) == (5, True)
            nursery.cancel_scope.cancel()
        for peer in peers[5:]:
            assert await peer.code() == 1011


async def test_a_hook_that_takes_longer_than_the_heartbeat(tmp_path: Path) -> None:
    """A client that was not listened to while it moved is not blamed for it; its pause is counted
    from when it was not listened to any more.
    """
    beat = Heartbeat(ping_interval=0.1, ping_timeout=0.2)

    class Sleeps(Async):
        async def on_suspend(self, _: Connection) -> None:
            await trio.sleep(0.6)

    async with two(tmp_path, Sleeps(), heartbeat=beat) as both, await Peer.open(both.old) as peer:
        opcode, payload = await peer.frame()
        assert opcode == PING
        session = begin(both.old, both.new)
        await everything_read()
        await peer.send(raw.frame(PONG, payload))
        await session.swept()
        assert both.moved() == (1, 1)
        assert 0.4 <= both.new.counts.pause.quantile(0.5) <= 5
        assert both.new.counts.pause.max >= 0.6
        await peer.say("x")
        while (frame := await peer.frame())[0] == PING:
            await peer.send(raw.frame(PONG, frame[1]))
        assert frame == (raw.TEXT, b"1 x")
        await session.recall()
        assert both.old.counts.ping_timeouts == both.new.counts.ping_timeouts == 0


async def test_who_takes_nothing_after_the_move(tmp_path: Path) -> None:
    """A client that takes nothing of what moved with it is closed with 1013 by the new worker."""

    class Wordy(Plain):
        def on_connect(self, ws: Connection) -> None:
            small_buffer(ws)
            ws.send_nowait(bytes(4 << 20))

    settings = {"outbound_bytes": 16 << 20, "send_timeout": 0.5, "close_timeout": 0.3}
    async with (
        two(tmp_path, Wordy(), **settings) as both,
        await Peer.open(both.old, buffer=4096),
    ):
        await everything_read()
        assert await move(both.old, both.new) == 1
        counts = await both.new.until(lambda c: c.closed)
        assert counts.closed_by_reason["slow_client"] == 1


async def test_a_client_that_is_not_listened_to(tmp_path: Path) -> None:
    """A connection whose queue was full when it moved is read again as soon as there is room, and
    its end is seen.
    """
    stay = trio.Event()

    class Slow(Plain):
        async def on_receive(self, ws: Connection, _: str | bytes) -> None:
            ws.state["n"] += 1
            if not ws.resumed:
                await stay.wait()

    beat = Heartbeat(ping_interval=0.1, ping_timeout=0.2)
    async with two(tmp_path, Slow(), heartbeat=beat) as both, await Peer.open(both.old) as peer:
        message = raw.frame(BINARY, bytes(1000))
        sent = await fill(peer, message)
        session = begin(both.old, both.new)
        await session.swept()
        stay.set()
        await both.old.engine.wait_empty()
        await peer.send(message[sent % len(message) :] if sent % len(message) else b"")
        await peer.send(close_frame())
        counts = await both.new.until(lambda c: not c.active)
        assert counts.closed_by_reason["client"] == 1
        total = both.old.counts.messages_in + counts.messages_in
        assert total == -(-sent // len(message))
        await session.recall()


async def test_who_leaves_at_the_move(tmp_path: Path) -> None:
    """Clients that close, or break off, while all move: each is counted once, somewhere."""
    count = 60
    async with two(tmp_path, Async()) as both, opened(both.old, count) as peers:
        await everything_read()
        session = begin(both.old, both.new)
        for n, peer in enumerate(peers):
            if n % 3 == 0:
                peer.push(close_frame())
            elif n % 3 == 1:
                peer.reset()
            if n % 4 == 0:
                await trio.lowlevel.checkpoint()
        await session.swept()
        left = count // 3
        await until(lambda: sum(both.active()) <= left)
        given, taken = await session.recall()
        assert given.moved == taken.taken
        reasons = [server.counts.closed_by_reason for server in both]
        assert sum(found["client"] for found in reasons) == left
        assert sum(found["lost"] for found in reasons) == left
        assert both.old.engine.count + both.new.engine.count == left
        for n, peer in enumerate(peers):
            if n % 3 == 2:
                assert await peer.ask("x") == "1 x"


async def test_an_order_to_leave(tmp_path: Path) -> None:
    """Who comes to a worker that closes everybody is closed by it, too, within its window; who has
    left to another worker is not closed any more by the first one's order.
    """
    async with (
        two(tmp_path, Plain(), close_timeout=0.2) as both,
        opened(both.old, 20) as peers,
    ):
        await everything_read()
        over = trio.current_time() + 2.5
        both.old.engine.close_all(1012, "service restart", ClosedReason.DRAIN, 2.0)
        assert await move(both.old, both.new, quota=10) == 10
        await both.old.until(lambda c: c.closed == 10)
        await trio.sleep_until(over)
        assert both.new.counts.active == 10
        both.old.engine.keep_all()
        both.old.engine.close_all(1012, "service restart", ClosedReason.DRAIN, 0.1)
        assert await move(both.new, both.old) == 10
        await both.old.until(lambda c: c.closed_by_reason["drain"] == 20)
        for peer in peers:
            assert await peer.code() == 1012
