"""Who is subscribed to topics moves when all other workers have said that their messages go to the
new worker, too; others do not wait for that.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import wssup
from tests.harness.moving import Plain, Session, Two, begin, begin_alone, numbered, two
from tests.harness.served import Served
from tests.unit.server.peer import OFF, Peer, everything_read, opened
from tests.unit.server.test_moving_several import three
from wssup.scoreboard import ClosedReason
from wssup.server.connection import Connection
from wssup.server.handoff import record as records
from wssup.server.request import Request

#: A worker that nobody knows: what it says is waited for in vain.
NOBODY = 77


class Subscribing(Plain):
    """Subscribes when it is told to."""

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        if data == "subscribe":
            ws.subscribe("t")
        super().on_receive(ws, data)


def begun(source: Served, target: Served, *, quota: int = 0, serial: int = NOBODY) -> Session:
    """A session whose records know topics."""
    return begin(source, target, quota=quota, serial=serial, version=records.TOPICS)


async def waits(both: Two, moved: int) -> None:
    """So many have moved, and whoever has not waits."""
    await both.new.until(lambda c: c.moved_in == moved)
    await everything_read()
    assert both.old.counts.moved_out == moved


async def test_who_is_not_subscribed_does_not_wait(tmp_path: Path) -> None:
    """Of twenty connections five are subscribed: fifteen move at once, those five when nobody is
    waited for any more.
    """
    async with two(tmp_path, Subscribing(), heartbeat=OFF) as both, opened(both.old, 20) as peers:
        for peer in peers[:5]:
            assert await peer.ask("subscribe") == "1 subscribe"
        session = begun(both.old, both.new)
        await waits(both, 15)
        both.old.engine.hurry_handoffs()
        await both.new.until(lambda c: c.moved_in == 20)
        for n, peer in enumerate(peers):
            assert await peer.ask("x") == ("2 x" if n < 5 else "1 x")
        given, taken = await session.recall()
        assert given.moved == taken.taken == 20


async def test_who_subscribes_while_it_is_busy(tmp_path: Path) -> None:
    """A connection that was to move as soon as its hook has ended, and is subscribed by then, waits
    with the others that are.
    """
    go_on = trio.Event()

    class Busy(Subscribing):
        async def on_receive(self, ws: Connection, data: str | bytes) -> None:
            await go_on.wait()
            super().on_receive(ws, data)

    async with two(tmp_path, Busy(), heartbeat=OFF) as both, await Peer.open(both.old) as peer:
        await peer.say("subscribe")
        await everything_read()
        session = begun(both.old, both.new)
        assert (await session.swept()).busy == 1
        go_on.set()
        assert await peer.frame() == (1, b"1 subscribe")
        await waits(both, 0)
        both.old.engine.hurry_handoffs()
        await waits(both, 1)
        await session.recall()


async def test_who_subscribes_on_its_way_out(tmp_path: Path) -> None:
    """A handler that subscribes when it is cancelled for the move begins anew where it was, and
    moves later.
    """
    left = 0

    @wssup.resumable
    async def application(request: Request) -> None:
        nonlocal left
        ws = await request.accept()
        try:
            async for data in ws:
                await ws.send_message(numbered(left, data))
        finally:
            left += 1
            if left == 1:
                ws.subscribe("t")

    async with (
        two(tmp_path, application, heartbeat=OFF) as both,
        await Peer.open(both.old) as peer,
    ):
        await everything_read()
        session = begun(both.old, both.new)
        assert (await session.swept()).kept == 1
        await waits(both, 0)
        assert await peer.ask("x") == "1 x"
        both.old.engine.hurry_handoffs()
        await waits(both, 1)
        assert await peer.ask("y") == "2 y"
        await session.recall()


@pytest.mark.parametrize("subscribed", [False, True])
async def test_a_part_and_the_rest(tmp_path: Path, *, subscribed: bool) -> None:
    """A session that takes a part has it, although its receiver says later than that of the one
    which takes the rest that it hears what is published.
    """
    async with three(tmp_path, Subscribing()) as (old, one, other), opened(old, 20) as peers:
        for peer in peers:
            assert await peer.ask("subscribe" if subscribed else "x")
        part, rest = begun(old, one, quota=5), begun(old, other, serial=0)
        # That is waited for until there is no use in it.
        await old.until(lambda counts: counts.moved_out == 20)
        assert (await part.handed_over()).moved == 5
        assert (await rest.recall())[0].moved == 15


async def test_at_the_end_of_a_drain_nobody_waits(tmp_path: Path) -> None:
    """A worker that has to close everybody does not wait for a receiver that says nothing about
    what it was sent: who was on the way is closed with the others, and told so.
    """
    async with two(tmp_path, Subscribing(), heartbeat=OFF) as both, opened(both.old, 3) as peers:
        await everything_read()
        session, end = begin_alone(both.old)
        with end:
            await trio.lowlevel.wait_readable(end)
            await everything_read()
            both.old.engine.give_up_silent(3600.0)
            assert both.old.engine.moves(follows=False)
            both.old.engine.give_up_silent(0.0)
            assert not both.old.engine.moves(follows=False)
            both.old.engine.close_all(1012, "service restart", ClosedReason.DRAIN, 0.0)
            for peer in peers:
                assert await peer.code() == 1012
        assert (await session.handed_over()).error == "receiver_slow"
