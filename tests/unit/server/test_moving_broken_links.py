"""A session that breaks, is full or is recalled: what was not acknowledged lives on in the old
worker, what was acknowledged in the new one, and nothing in both or none.
"""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.harness import raw
from tests.harness.descriptors import no_descriptors_left
from tests.harness.moving import (
    STYLE_NAMES,
    STYLES,
    Plain,
    Two,
    await_alone,
    begin,
    begin_alone,
    move,
    two,
)
from tests.harness.served import Served, served
from tests.harness.waiting import until
from tests.unit.server.peer import OFF, Peer, everything_read, opened
from wssup.messages import HandedOver, TookOver
from wssup.server.connection import Connection
from wssup.server.handoff.answers import Answer, AnswerKind, pack_answer

each_style = pytest.mark.parametrize("make", STYLES, ids=STYLE_NAMES)


def refused(server: Served) -> dict[str, int]:
    """Why connections did not move."""
    reasons = server.counts.handoff_refused_by_reason
    return {reason: count for reason, count in reasons.items() if count}


async def answered(peers: list[Peer], n: int) -> None:
    """Everybody is alive, and its answer is the n-th."""
    for peer in peers:
        await peer.say("x")
    for peer in peers:
        assert await peer.frame() == (raw.TEXT, b"%d x" % n)


class Large(Plain):
    """Its states are so large that the link is full."""

    def on_connect(self, ws: Connection) -> None:
        super().on_connect(ws)
        ws.state["large"] = "x" * (200 << 10)


@contextmanager
def the_other_end(end: socket.socket) -> Iterator[socket.socket]:
    """Somebody else's end of a link, which does not block."""
    with end:
        end.setblocking(False)
        yield end


async def readable(end: socket.socket) -> None:
    """Wait until there is something to read."""
    await trio.lowlevel.wait_readable(end)


def take(end: socket.socket) -> list[int]:
    """Read of a link as its receiver does; the descriptors that came."""
    _, ancillary, _, _ = end.recvmsg(1 << 20, socket.CMSG_SPACE(253 * 4), socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for _, _, data in ancillary:
        numbers.frombytes(data)
    return list(numbers)


# No room.


@each_style
async def test_a_receiver_without_room(tmp_path: Path, make: Callable[[], object]) -> None:
    """A worker at its limit of sockets takes what it has room for and no more; the session ends,
    and the others live on where they were.
    """
    async with two(tmp_path, make()) as both, opened(both.old, 100) as peers:
        await answered(peers, 1)
        both.new.accepting.leave(970)
        given, taken = await begin(both.old, both.new).over()
        assert (given.moved, taken.taken, given.error) == (30, 30, "receiver_full")
        assert both.moved() == (30, 30)
        assert both.active() == (70, 30)
        found = refused(both.old)
        assert set(found) == {"no_room"}
        assert 1 <= found["no_room"] <= 70
        await answered(peers, 2)
        assert both.old.counts.closed == both.new.counts.closed == 0


# Lost.


@each_style
async def test_a_receiver_that_is_gone_at_once(tmp_path: Path, make: Callable[[], object]) -> None:
    """Nothing moves and nobody notices."""
    async with two(tmp_path, make()) as both, opened(both.old, 40) as peers:
        await answered(peers, 1)
        with no_descriptors_left():
            session, end = begin_alone(both.old)
            end.close()
            given = await session.handed_over()
        assert (given.moved, given.error) == (0, "receiver_lost")
        assert set(refused(both.old)) <= {"lost"}
        await answered(peers, 2)
        assert both.active() == (40, 0)
        assert await move(both.old, both.new) == 40
        await answered(peers, 3)


@each_style
@pytest.mark.parametrize("acknowledged", [0, 1, 10, 31])
async def test_a_receiver_that_is_lost_in_the_middle(
    tmp_path: Path, make: Callable[[], object], acknowledged: int
) -> None:
    """What a lost receiver had acknowledged is its own and ends with it; all else is taken back,
    those on their way counted as lost.
    """
    count = 60
    async with served(tmp_path, make(), heartbeat=OFF) as old, opened(old, count) as peers:
        await answered(peers, 1)
        with no_descriptors_left(gone=acknowledged):
            session, end = begin_alone(old)
            with the_other_end(end):
                owned: list[int] = []
                told = 0
                while told < acknowledged or not owned:
                    await readable(end)
                    owned += take(end)
                    count_now = min(len(owned), acknowledged) - told
                    if count_now:
                        end.send(pack_answer(Answer(AnswerKind.TAKEN, count_now)))
                        told += count_now
                await everything_read()
            for descriptor in owned:
                os.close(descriptor)
            given = await session.handed_over()
            assert (given.moved, given.error) == (acknowledged, "receiver_lost")
            (lost,) = refused(old).items()
            assert lost[0] == "lost"
            assert len(owned) - acknowledged <= lost[1] <= count - acknowledged
            assert (old.counts.moved_out, old.counts.active) == (
                acknowledged,
                count - acknowledged,
            )
            await answered_or_gone(peers, acknowledged)


async def answered_or_gone(peers: list[Peer], gone: int) -> None:
    """All but so many give their second answer; these are at their end."""
    ends = 0
    for peer in peers:
        await peer.say("x")
        opcode, payload = await peer.frame()
        ends += opcode < 0
        assert opcode < 0 or payload == b"2 x"
    assert ends == gone


async def test_the_sender_is_lost(tmp_path: Path) -> None:
    """A receiver whose sender is gone in the middle of a batch keeps what it has acknowledged, and
    closes what it has not.
    """
    settings = {"state_bytes": 1 << 20, "heartbeat": OFF}
    async with two(tmp_path, Large(), **settings) as both, opened(both.old, 20) as peers:
        await answered(peers, 1)
        with no_descriptors_left():
            session, link = begin_alone(both.old)
            incoming, away = await_alone(both.new)
            with the_other_end(link), the_other_end(away):
                # A batch, or a part of it, is passed on, and then nothing any more.
                await readable(link)
                data, ancillary, _, _ = link.recvmsg(250 << 10, socket.CMSG_SPACE(253 * 4))
                away.sendmsg([data], ancillary)
                for _, _, rights in ancillary:
                    for descriptor in memoryview(rights).cast("i"):
                        os.close(descriptor)
                await everything_read()
                with contextlib.suppress(BlockingIOError):
                    link.send(away.recv(1000))
                away.shutdown(socket.SHUT_RDWR)
                taken = await incoming.took_over()
                both.old.engine.recall(session.number)
                given = await session.handed_over()
                assert given.moved == taken.taken
        await answered(peers, 2)
        assert both.active() == (20 - taken.taken, taken.taken)


# Recalled.


@each_style
@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_recall_in_the_middle(
    tmp_path: Path, make: Callable[[], object], turns: int
) -> None:
    """A session that is recalled at any moment leaves every connection alive in one of the workers,
    where both say that it is.
    """
    count = 100
    async with two(tmp_path, make(), heartbeat=OFF) as both, opened(both.old, count) as peers:
        await answered(peers, 1)
        session = begin(both.old, both.new)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        given, taken = await session.recall()
        assert given.moved == taken.taken
        assert given.error == "recalled"
        assert both.moved() == (given.moved, taken.taken)
        await answered(peers, 2)
        assert both.active() == (count - given.moved, given.moved)


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.02, 0.06])
async def test_a_recall_while_the_link_is_full(tmp_path: Path, pause: float) -> None:
    """With records so large that the link is full, and clients that talk: after ten recalls to and
    fro nothing is lost, doubled or open twice.
    """
    count, stop = 60, False
    asked = [0] * count

    async def talk(peers: list[Peer], index: int) -> None:
        while not stop:
            asked[index] += 1
            assert await peers[index].ask("x") == f"{asked[index]} x"

    async def to_and_fro(both: Two) -> None:
        chance = random.Random(pause)
        here, there = both
        for _ in range(10):
            session = begin(here, there)
            await trio.sleep(pause * chance.random())
            given, taken = await session.recall()
            assert given.moved == taken.taken
            here, there = there, here

    with no_descriptors_left():
        async with two(tmp_path, Large(), state_bytes=1 << 20) as both:
            async with opened(both.old, count) as peers, trio.open_nursery() as nursery:
                await everything_read()
                for index in range(count):
                    nursery.start_soon(talk, peers, index)
                await to_and_fro(both)
                before = list(asked)
                await until(lambda: all(a >= b + 2 for a, b in zip(asked, before, strict=True)))
                stop = True
            old, new = both.old.counts, both.new.counts
            assert (old.moved_out, old.moved_in) == (new.moved_in, new.moved_out)
            for server in both:
                await server.until(lambda c: not c.active)
                await server.engine.wait_empty()
            assert both.old.counts.closed + both.new.counts.closed == count


async def test_the_link_was_full(tmp_path: Path) -> None:
    """Large states fill the link: nothing is taken while nobody reads it, a part of a batch may be
    out, and a recall takes all back.
    """
    async with served(tmp_path, Large(), state_bytes=1 << 20) as old, opened(old, 30) as peers:
        await answered(peers, 1)
        session, end = begin_alone(old)
        with the_other_end(end):
            await readable(end)
            await everything_read()
            # At most so much is underway.
            assert old.counts.moved_out == 0
            old.engine.recall(session.number)
            given = await session.handed_over()
            assert (given.moved, given.error) == (0, "recalled")
            await answered(peers, 2)
            assert refused(old) == {}


@each_style
async def test_the_engine_ends_meanwhile(tmp_path: Path, make: Callable[[], object]) -> None:
    """An engine that ends while connections are on their way, or come, ends as ever, and has told
    the master of its sessions.
    """
    async with two(tmp_path, make(), heartbeat=OFF) as both, opened(both.old, 30) as peers:
        await answered(peers, 1)
        session, end = begin_alone(both.old)
        incoming, away = await_alone(both.new)
        with the_other_end(end), the_other_end(away):
            await readable(end)
            with trio.CancelScope(shield=True):
                both.old.nursery.cancel_scope.cancel()
                both.new.nursery.cancel_scope.cancel()
                await until(lambda: session.said and incoming.said)
    assert session.said == [HandedOver(session.number, 0, "")]
    assert incoming.said == [TookOver(incoming.number, 0, 0)]
