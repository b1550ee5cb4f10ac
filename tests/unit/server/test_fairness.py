"""Who leaves connections to others where all workers accept from one queue."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.server.test_accepting import accepting, until
from wssup.scoreboard import ClosedReason, Glance, RefusedReason, RowWriter, Scoreboard
from wssup.server.fairness import HOLD, Fairness, has_more, is_shared

#: Seconds; no test takes as long.
STALL_AFTER = 300.0


def test_who_has_more() -> None:
    """One with more than the mean has, by more than one connection or one part in 200; alone nobody
    has.
    """
    assert not has_more(5, [])
    assert not has_more(5, [3])
    assert has_more(6, [3])
    assert not has_more(1005, [1000, 1000, 1000])
    assert has_more(1010, [1000, 1000, 1000])


@settings(max_examples=50)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=60))
def test_never_all_at_once(open_: list[int]) -> None:
    """Whatever workers have, one of them takes connections."""
    leaving = [has_more(mine, open_[:i] + open_[i + 1 :]) for i, mine in enumerate(open_)]
    assert not all(leaving)


class Workers:
    """Rows of three workers that beat and accept, and the first one's decision."""

    def __init__(self, tmp_path: Path) -> None:
        self.board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, 8, 3)
        self.board.unlink()
        rows = [self.board.allocate(serial, serial - 1, 1) for serial in (1, 2, 3)]
        self.first, self.second, self.third = map(self.board.writer, rows)
        for writer in (self.first, self.second, self.third):
            writer.heartbeat(time.monotonic_ns(), 0)
            writer.accepting(True)
        self.row = rows[0]

    def fairness(self, stall_after: float = STALL_AFTER) -> Fairness:
        return Fairness(self.board.glance, self.row, stall_after)

    def accept(self, writer: RowWriter, count: int) -> None:
        for _ in range(count):
            writer.accepted()

    def leaves(self, fairness: Fairness, taken: int) -> bool:
        """What it says after what it said before is over."""
        began = time.monotonic()
        while time.monotonic() <= began + HOLD:
            time.sleep(HOLD / 4)
        return fairness.leaves(taken)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    made = Workers(tmp_path)
    yield made
    made.board.close()


def test_a_worker_with_more_leaves_the_queue_while_others_take(workers: Workers) -> None:
    """It leaves it again and again as long as others have taken some meanwhile, and takes some as
    soon as they have not, or have as many.
    """
    fairness = workers.fairness()
    workers.accept(workers.second, 4)
    assert workers.leaves(fairness, 20)
    workers.accept(workers.second, 1)
    assert workers.leaves(fairness, 20)
    assert not workers.leaves(fairness, 20)
    assert workers.leaves(fairness, 20)
    workers.accept(workers.second, 14)
    workers.accept(workers.third, 19)
    assert not workers.leaves(fairness, 20)


def test_a_moment_is_not_cut_short(workers: Workers) -> None:
    """However often it is asked meanwhile, a queue is left to others until the moment is over, and
    no longer.
    """
    fairness = workers.fairness()
    began = time.monotonic()
    assert fairness.leaves(20)
    while fairness.leaves(20):
        assert time.monotonic() < began + 30
    assert time.monotonic() >= began + HOLD


def test_what_others_have_is_what_is_open(workers: Workers) -> None:
    """Connections that ended, of whatever kind, or moved away do not count, those that came do."""
    fairness = workers.fairness()
    for writer in (workers.second, workers.third):
        workers.accept(writer, 20)
    assert not workers.leaves(fairness, 20)
    for writer in (workers.second, workers.third):
        for _ in range(5):
            writer.upgraded()
            writer.closed(ClosedReason.CLIENT, 1.0)
            writer.http_closed()
            writer.upgraded()
            writer.moved_out(1)
    assert workers.leaves(fairness, 20)
    for writer in (workers.second, workers.third):
        for _ in range(15):
            writer.moved_in(0.0)
    assert not workers.leaves(fairness, 20)


def test_nobody_counts_on_who_does_not_accept(workers: Workers) -> None:
    """Workers that do not accept, or do not turn, are no others: connections do not wait for them,
    and what they have changes nobody's part.
    """
    workers.second.accepting(False)
    workers.third.accepting(False)
    assert not workers.leaves(workers.fairness(), 20)
    workers.third.accepting(True)
    workers.third.heartbeat(time.monotonic_ns() - 10**9, 0)
    assert not workers.leaves(workers.fairness(0.5), 20)
    assert workers.leaves(workers.fairness(), 20)


def test_which_queues_are_shared() -> None:
    """A unix socket's is, and that of a TCP socket that is in no group."""
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as alone, socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        assert [is_shared(s) for s in (unix, alone, one)] == [True, True, False]


async def test_connections_wait_for_nobody(workers: Workers) -> None:
    """A connection in a shared queue is taken by a worker that has more than the others when they
    do not take it; and at the end, when the queue is emptied, at once.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with accepting() as (found, counted):
            found.fairness = workers.fairness()
            found.open = 20
            found.add((0, "a"), os.dup(server.fileno()))
            found.switch(on=True)
            with socket.create_connection(server.getsockname(), 20):
                await until(lambda: counted.accepted == 1)
            found.switch(on=False)
            with socket.create_connection(server.getsockname(), 20):
                found.empty_queues()
                assert counted.accepted == 2


async def test_nobody_is_turned_away_while_another_has_room(workers: Workers) -> None:
    """A worker that may have no more leaves a shared queue to one that may, and turns clients away
    when none may have more.
    """
    looks: list[int] = []
    refused: list[RefusedReason] = []

    def look() -> list[Glance]:
        looks.append(len(refused))
        return workers.board.glance()

    def turn_away(fd: int, _: object, reason: RefusedReason) -> None:
        refused.append(reason)
        os.close(fd)

    for writer, has in ((workers.second, 20), (workers.third, 19)):
        writer.admits(20)
        workers.accept(writer, has)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with accepting(refuses=True, part=20) as (found, _):
            found.fairness = Fairness(look, workers.row, STALL_AFTER)
            found.turn_away = turn_away
            found.open = 20
            found.add((0, "a"), os.dup(server.fileno()))
            found.switch(on=True)
            with socket.create_connection(server.getsockname(), 20):
                await until(lambda: len(looks) > 5)
                assert refused == []
                workers.accept(workers.third, 1)
                await until(lambda: refused == [RefusedReason.LIMIT])
