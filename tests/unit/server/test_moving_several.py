"""Several sessions at a time: from one worker to two, from two to one, and in a chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.harness.moving import STYLE_NAMES, STYLES, begin, two
from tests.harness.served import Served, served
from tests.harness.waiting import until
from tests.unit.server.peer import Peer, everything_read, opened

each_style = pytest.mark.parametrize("make", STYLES, ids=STYLE_NAMES)


@asynccontextmanager
async def three(tmp_path: Path, application: object) -> AsyncIterator[list[Served]]:
    """Three engines."""
    (tmp_path / "third").mkdir()
    async with (
        two(tmp_path, application) as both,
        served(tmp_path / "third", application) as third,
    ):
        yield [*both, third]


@asynccontextmanager
async def talking(peers: list[Peer]) -> AsyncIterator[None]:
    """All talk without pause; every answer has the number that follows."""
    asked: dict[Peer, int] = dict.fromkeys(peers, 0)
    stop = False

    async def talk(peer: Peer) -> None:
        while not stop:
            asked[peer] += 1
            assert await peer.ask("x") == f"{asked[peer]} x"

    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(talk, peer)
        yield
        before = dict(asked)
        await until(lambda: all(asked[peer] >= before[peer] + 3 for peer in peers))
        stop = True


@each_style
async def test_to_two_workers(tmp_path: Path, make: Callable[[], object]) -> None:
    """Two sessions with quotas share a worker's connections: each moves as many as it was told."""
    async with three(tmp_path, make()) as (old, one, other), opened(old, 40) as peers:
        await everything_read()
        sessions = [begin(old, one, quota=10), begin(old, other, quota=25)]
        ends = [await session.over() for session in sessions]
        assert [given.moved for given, _ in ends] == [10, 25]
        assert [server.counts.active for server in (old, one, other)] == [5, 10, 25]
        async with talking(peers):
            pass


@each_style
async def test_from_two_workers(tmp_path: Path, make: Callable[[], object]) -> None:
    """Two workers move theirs to the same third one at the same time, under load."""
    async with (
        three(tmp_path, make()) as (one, other, new),
        opened(one, 20) as ones,
        opened(other, 20) as others,
        talking([*ones, *others]),
    ):
        sessions = [begin(one, new), begin(other, new)]
        await new.until(lambda c: c.active == 40)
        for session in sessions:
            given, taken = await session.recall()
            assert given.moved == taken.taken == 20
        assert one.counts.moved_out == other.counts.moved_out == 20


@each_style
async def test_in_a_chain(tmp_path: Path, make: Callable[[], object]) -> None:
    """What comes to a worker that hands everything over itself goes on to the next one, under
    load.
    """
    async with (
        three(tmp_path, make()) as (first, second, third),
        opened(first, 20) as ones,
        opened(second, 10) as others,
        talking([*ones, *others]),
    ):
        sessions = [begin(second, third), begin(first, second)]
        await third.until(lambda c: c.active == 30)
        assert [(await session.recall())[0].moved for session in sessions] == [30, 20]
        assert (second.counts.moved_in, second.counts.moved_out) == (20, 30)
        assert (first.counts.active, second.counts.active) == (0, 0)


@each_style
@pytest.mark.parametrize("recalled", [0, 1])
async def test_one_after_the_other(
    tmp_path: Path, make: Callable[[], object], recalled: int
) -> None:
    """A session that is recalled while another one waits for the same connections leaves them to
    it.
    """
    async with three(tmp_path, make()) as (old, one, other), opened(old, 30) as peers:
        async with talking(peers):
            sessions = [begin(old, one), begin(old, other)]
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            await sessions.pop(recalled).recall()
            await until(lambda: not old.counts.active, 15)
            await sessions.pop().recall()
        assert one.counts.active + other.counts.active == 30
