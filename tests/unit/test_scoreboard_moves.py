"""Connections that move between two rows: what each row shows, and that the total is exact."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from wssup.scoreboard import (
    PAUSE_BOUNDS_US,
    ClosedReason,
    Counts,
    HandoffRefusal,
    RowWriter,
    Scoreboard,
)

TOP = PAUSE_BOUNDS_US[-1] / 1e6


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Scoreboard]:
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, rows=4, slots=2)
    yield board
    board.close()
    board.unlink()


class Pair:
    """Two workers, the first with three WebSockets and one handshake.

    :ivar sender: the first one's row; ``receiver`` the second one's.
    """

    def __init__(self, board: Scoreboard) -> None:
        self.board = board
        self.sender, self.receiver = (board.allocate(serial, 0, serial) for serial in (1, 2))
        self.old: RowWriter = board.writer(self.sender)
        self.new: RowWriter = board.writer(self.receiver)
        for _ in range(4):
            self.old.accepted()
        for _ in range(3):
            self.old.upgraded()

    def open_and_active(self) -> list[tuple[int, int]]:
        """Of the first row, of the second, and of the total."""
        snapshot = self.board.snapshot()
        counts = [*(view.counts for view in snapshot.rows), snapshot.total]
        return [(one.open, one.active) for one in counts]


@pytest.fixture
def pair(board: Scoreboard) -> Pair:
    return Pair(board)


def test_a_move_shows_in_both_rows_and_not_in_the_total(pair: Pair) -> None:
    """A move ends a WebSocket in one row and begins it in the other, and nowhere closes one."""
    pair.old.moved_out(700)
    pair.new.moved_in(0.002)
    assert pair.open_and_active() == [(3, 2), (1, 1), (4, 3)]
    pair.new.closed(ClosedReason.CLIENT, 60.0)
    assert pair.open_and_active() == [(3, 2), (0, 0), (3, 2)]
    old, new = (view.counts for view in pair.board.snapshot().rows)
    assert (old.moved_in, old.moved_out, old.handoff_bytes, old.closed) == (0, 1, 700, 0)
    assert (new.moved_in, new.moved_out, new.handoff_bytes, new.closed) == (1, 0, 0, 1)
    assert (new.accepted, new.upgraded, sum(new.pauses)) == (0, 0, 1)


@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_the_total_is_exact_while_one_end_has_counted(pair: Pair, first: str) -> None:
    """Between the two ends' stores the total shows every WebSocket once, and the move as made."""
    if first == "sender":
        pair.old.moved_out(1)
    else:
        pair.new.moved_in(0.0)
    total = pair.board.snapshot().total
    assert (total.open, total.active, total.accepted, total.upgraded) == (4, 3, 4, 3)
    assert (total.moved_in, total.moved_out) == (1, 1)


def test_a_receiver_that_died_before_it_counted(pair: Pair) -> None:
    """What the sender reports makes the connection end where it was: in the dead receiver."""
    pair.old.moved_out(1)
    final = pair.board.fold(pair.receiver, moved_in=1)
    assert (final.moved_in, final.open, final.active) == (1, 0, 0)
    assert final.closed_by_reason["worker_died"] == 1
    assert pair.open_and_active() == [(3, 2), (3, 2)]


def test_a_sender_that_died_before_it_counted(pair: Pair) -> None:
    """What the receiver reports keeps a connection that lives on from ending with the sender."""
    pair.new.moved_in(0.001)
    final = pair.board.fold(pair.sender, moved_out=1)
    assert (final.moved_out, final.open, final.active) == (1, 0, 0)
    assert final.closed_by_reason["worker_died"] == 2
    assert final.handshake_failures_by_reason["worker_died"] == 1
    assert pair.open_and_active() == [(1, 1), (1, 1)]


@pytest.mark.parametrize("counted", ["neither", "sender", "receiver", "both"])
def test_both_ends_died(pair: Pair, counted: str) -> None:
    """When nobody is left to report, the greater number in both rows ends each connection once."""
    if counted in {"sender", "both"}:
        pair.old.moved_out(1)
    if counted in {"receiver", "both"}:
        pair.new.moved_in(0.001)
    taken = pair.board.counted(pair.receiver).moved_in
    moved = max(pair.board.counted(pair.sender).moved_out, taken)
    pair.board.fold(pair.receiver, moved_in=moved)
    pair.board.fold(pair.sender, moved_out=moved)
    total = pair.board.snapshot().total
    assert (total.open, total.active) == (0, 0)
    assert total.closed_by_reason["worker_died"] == 3
    assert total.moved_in == total.moved_out == (counted != "neither")


@pytest.mark.parametrize("told", [None, 0, 2])
def test_a_report_never_takes_back_what_a_worker_counted(pair: Pair, told: int | None) -> None:
    """A number below the worker's own leaves its own, so that no total goes backwards."""
    for _ in range(3):
        pair.old.moved_out(1)
        pair.new.moved_in(0.001)
    assert pair.board.fold(pair.sender, moved_out=told).moved_out == 3
    assert pair.board.fold(pair.receiver, moved_in=told).moved_in == 3
    total = pair.board.snapshot().total
    assert (total.open, total.active, total.closed) == (0, 0, 3)


def test_a_closed_one_proves_its_upgrade_in_a_row_that_is_stale(pair: Pair) -> None:
    """A reader with an old copy of the sender's row shows no WebSocket less than none."""
    reader = Scoreboard.attach(pair.board.name)
    reader.snapshot()
    for _ in range(4):
        pair.old.accepted()
        pair.old.upgraded()
    for _ in range(7):
        pair.old.moved_out(1)
        pair.new.moved_in(0.001)
        pair.new.closed(ClosedReason.CLIENT, 1.0)
    # Killed in mid-write: the sequence stays odd.
    block = pair.old._block
    block[0] += 1
    snapshot = reader.snapshot()
    assert [view.stale for view in snapshot.rows] == [True, False]
    assert (snapshot.total.active, snapshot.total.upgraded, snapshot.total.moved_out) == (0, 7, 7)
    reader.close()


def test_why_connections_did_not_move(board: Scoreboard) -> None:
    """Each reason has its own counter, under the name that JSON will show, and ends nothing."""
    writer = board.writer(board.allocate(1, 0, 1))
    writer.accepted()
    writer.upgraded()
    for times, reason in enumerate(HandoffRefusal, start=1):
        for _ in range(times):
            writer.not_moved(reason)
    total = board.snapshot().total
    assert list(total.handoff_refused_by_reason.items()) == [
        ("not_resumable", 1),
        ("state", 2),
        ("suspend_failed", 3),
        ("resume_failed", 4),
        ("busy", 5),
        ("closing", 6),
        ("no_room", 7),
        ("lost", 8),
        ("version", 9),
    ]
    assert (total.open, total.active, total.closed) == (1, 1, 0)


def paused(board: Scoreboard, *seconds: float) -> Counts:
    """The counts of a worker that took connections after these pauses."""
    row = board.allocate(1, 0, 1)
    writer = board.writer(row)
    for pause in seconds:
        writer.moved_in(pause)
    view = board.read(row)
    assert view is not None
    return view.counts


def test_pauses_lie_below_the_bound_of_their_bucket(board: Scoreboard) -> None:
    """Two buckets for each power of two from 0.1 ms to 9.3 s, and one above, bounds exclusive."""
    assert (PAUSE_BOUNDS_US[:3], PAUSE_BOUNDS_US[-1]) == ((100, 141, 200), 9_268_190)
    pauses = (-1.0, 0.0, 0.000_099, 0.000_1, 0.000_15, 0.003, 1.0, 9.268, 9.269, 1e6)
    expected = [0] * (len(PAUSE_BOUNDS_US) + 1)
    for pause in pauses:
        expected[sum(bound <= pause * 1e6 for bound in PAUSE_BOUNDS_US)] += 1
    assert paused(board, *pauses).pauses == tuple(expected)


def test_quantiles_are_interpolated_within_a_bucket(board: Scoreboard) -> None:
    """Nine pauses between 0.1 and 0.141 ms and one between 0.8 and 1.131 ms: shares of them."""
    counts = paused(board, *[0.000_12] * 9, 0.001)
    assert counts.pause.quantile(0.0) == pytest.approx(0.000_100)
    assert counts.pause.quantile(0.45) == pytest.approx(0.000_120_5)
    assert counts.pause.quantile(0.9) == pytest.approx(0.000_141)
    assert counts.pause.quantile(0.95) == pytest.approx(0.000_965_5)
    assert counts.pause.quantile(1.0) == counts.pause.max == pytest.approx(0.001_131)


def test_quantiles_without_moves_are_zero(board: Scoreboard) -> None:
    """Nothing has moved: no pause, at any share."""
    counts = paused(board)
    assert (
        counts.pause.quantile(0.0),
        counts.pause.quantile(0.99),
        counts.pause.quantile(1.0),
    ) == (0.0, 0.0, 0.0)
    assert counts.pause.max == 0.0


def test_a_pause_above_all_bounds_is_shown_as_the_last_bound(board: Scoreboard) -> None:
    """A pause of a minute counts in the topmost bucket, whose answer is where it begins."""
    counts = paused(board, 0.001, 60.0)
    assert counts.pauses[-1] == 1
    assert (counts.pause.quantile(0.99), counts.pause.max) == (TOP, TOP)
