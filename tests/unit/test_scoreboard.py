"""Rows, counts and totals: plain arithmetic, and who may use what."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from wssup.errors import ScoreboardError
from wssup.scoreboard import (
    LIFETIME_BOUNDS_S,
    ROUND_TRIP_BOUNDS_US,
    BridgeFault,
    BridgeState,
    ClosedReason,
    HandoffRefusal,
    HandshakeFailure,
    InstanceState,
    RefusedReason,
    Scoreboard,
    WorkerState,
    layout,
)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Scoreboard]:
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, rows=4, slots=2)
    yield board
    board.close()
    board.unlink()


def test_full_pool_is_an_error_that_names_the_slot(board: Scoreboard) -> None:
    """Rows are given out until none is left, and again after one is folded."""
    rows = [board.allocate(serial, 0, 1) for serial in range(1, 5)]
    assert rows == [0, 1, 2, 3]
    with pytest.raises(ScoreboardError, match=r"all 4 rows .* slot 9"):
        board.allocate(5, 9, 1)
    board.fold(2)
    assert board.allocate(5, 9, 1) == 2


def test_rows_that_are_free_or_unknown_are_refused(board: Scoreboard) -> None:
    """A free row reads as None; using one, a row outside the pool, or serial 0 is an error."""
    assert board.read(0) is None
    for use in (board.identify, board.writer, board.fold):
        with pytest.raises(ScoreboardError, match=r"row 0 .* is free"):
            use(0)
        with pytest.raises(ScoreboardError, match="no row 4"):
            use(4)
        with pytest.raises(ScoreboardError, match="no row -1"):
            use(-1)
    with pytest.raises(ScoreboardError, match="positive"):
        board.allocate(0, 0, 1)


def test_row_shows_identity_and_gauges(board: Scoreboard) -> None:
    """A view holds who the worker is and the last value of every gauge."""
    row = board.allocate(serial=11, slot=1, generation=2)
    fresh = board.read(row)
    assert fresh is not None
    assert (fresh.row, fresh.serial, fresh.pid, fresh.slot, fresh.generation) == (row, 11, 0, 1, 2)
    assert fresh.state is WorkerState.STARTING
    assert fresh.started_ns > 0
    assert (fresh.heartbeat_ns, fresh.accepting, fresh.stale) == (0, False, False)
    writer = board.writer(row)
    writer.heartbeat(5_000, 300)
    writer.heartbeat(6_000, 20)
    writer.send_queue(4096)
    writer.send_queue(1024)
    writer.accepting(accepting=True)
    board.identify(row, pid=99)
    board.identify(row, state=WorkerState.HOLDING)
    view = board.read(row)
    assert view is not None
    assert (view.heartbeat_ns, view.lag_last_ns, view.lag_max_ns) == (6_000, 20, 300)
    assert (view.send_queue_bytes, view.accepting) == (1024, True)
    assert (view.pid, view.state.label, view.stale) == (99, "holding", False)
    writer.accepting(accepting=False)
    assert not board.snapshot().rows[0].accepting


def test_every_event_counts_in_its_own_place(board: Scoreboard) -> None:
    """Each event raises its own counter and no other, under the name that JSON will show."""
    writer = board.writer(board.allocate(1, 0, 1))
    total = 0
    for offset, closed in enumerate(ClosedReason, start=1):
        for _ in range(offset):
            writer.accepted()
            writer.upgraded()
            writer.closed(closed, 0.5)
        total += offset
    for offset, refused in enumerate(RefusedReason, start=1):
        for _ in range(offset):
            writer.accepted()
            writer.refused(refused)
    for offset, failed in enumerate(HandshakeFailure, start=1):
        for _ in range(offset):
            writer.accepted()
            writer.handshake_failed(failed)
    writer.traffic(1, 2, 30, 40)
    writer.traffic(10, 20, 300, 400)
    for _ in range(3):
        writer.handler_run()
        writer.ping_sent()
    writer.handler_error()
    writer.ping_timeout()
    counts = board.snapshot().total
    assert (counts.open, counts.active) == (0, 0)
    assert (counts.upgraded, counts.closed) == (total, total)
    assert list(counts.closed_by_reason.items()) == [
        ("client", 1),
        ("server", 2),
        ("drain", 3),
        ("stop", 4),
        ("error", 5),
        ("protocol", 6),
        ("too_big", 7),
        ("lost", 8),
        ("timeout", 9),
        ("slow_client", 10),
        ("deadline", 11),
        ("worker_died", 12),
        ("operator", 13),
    ]
    assert list(counts.refused_by_reason.items()) == [
        ("draining", 1),
        ("limit", 2),
        ("rate", 3),
        ("address", 4),
        ("origin", 5),
        ("descriptors", 6),
    ]
    assert list(counts.handshake_failures_by_reason.items()) == [
        ("bad_request", 1),
        ("timeout", 2),
        ("disconnected", 3),
        ("rejected", 4),
        ("error", 5),
        ("draining", 6),
        ("worker_died", 7),
        ("plain_http", 8),
    ]
    assert (counts.messages_in, counts.messages_out) == (11, 22)
    assert (counts.bytes_in, counts.bytes_out) == (330, 440)
    assert (counts.handler_runs, counts.handler_errors) == (3, 1)
    assert (counts.pings_sent, counts.ping_timeouts) == (3, 1)
    assert counts.accepted == counts.closed + counts.refused + counts.handshake_failures
    assert sum(counts.lifetimes) == total
    assert sum(counts.round_trips) == 0


def test_histograms_put_a_value_below_its_bound(board: Scoreboard) -> None:
    """A value lands in the bucket of the first bound above it, at both ends and beyond them."""
    writer = board.writer(board.allocate(1, 0, 1))
    lifetimes = (-1.0, 0.0, 0.99, 1.0, 1.9, 2.0, 86_400.0, 131_071.9, 131_072.0, 1e9)
    round_trips = (0.0, 0.000_001, 0.001_5, 8.0, 8.4, 1e6)
    for lifetime in lifetimes:
        writer.accepted()
        writer.upgraded()
        writer.closed(ClosedReason.CLIENT, lifetime)
    for seconds in round_trips:
        writer.round_trip(seconds)
    counts = board.snapshot().total
    assert counts.lifetimes == buckets(lifetimes, LIFETIME_BOUNDS_S)
    assert counts.round_trips == buckets([s * 1e6 for s in round_trips], ROUND_TRIP_BOUNDS_US)


def test_histograms_have_exact_sums(board: Scoreboard) -> None:
    """Sums are of the durations themselves, to the microsecond, not of their buckets; they outlive
    the worker. A clock that went backwards takes nothing away.
    """
    row = board.allocate(1, 0, 1)
    writer = board.writer(row)
    for lifetime in (3.000_001, 86_400.0, -5.0):
        writer.accepted()
        writer.upgraded()
        writer.closed(ClosedReason.CLIENT, lifetime)
    writer.round_trip(0.001_5)
    writer.round_trip(2.25)
    writer.moved_in(0.000_7)
    for counts in (board.snapshot().total, board.fold(row), board.snapshot().total):
        assert counts.lifetime.sum == pytest.approx(86_403.000_001, abs=1e-9)
        assert counts.round_trip.sum == pytest.approx(2.251_5, abs=1e-9)
        assert counts.pause.sum == pytest.approx(0.000_7, abs=1e-9)
        assert (counts.lifetime.count, counts.round_trip.count, counts.pause.count) == (3, 2, 1)
    assert counts.lifetime.bounds[:2] == (1.0, 2.0)
    assert counts.round_trip.bounds[0] == counts.pause.bounds[0] / 100 == 1e-6


def buckets(values: list[float] | tuple[float, ...], bounds: tuple[int, ...]) -> tuple[int, ...]:
    """A histogram made the slow way: by comparing each value with each bound."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[next((n for n, bound in enumerate(bounds) if value < bound), len(bounds))] += 1
    return tuple(counts)


def test_fold_counts_what_was_open_as_worker_died(board: Scoreboard) -> None:
    """Folding moves a row into the totals, ends what was open, and frees the row."""
    row = board.allocate(1, 0, 1)
    writer = board.writer(row)
    for _ in range(10):
        writer.accepted()
    for _ in range(6):
        writer.upgraded()
    writer.closed(ClosedReason.CLIENT, 3)
    writer.refused(RefusedReason.LIMIT)
    before = board.snapshot().total
    assert (before.open, before.active) == (8, 5)
    final = board.fold(row)
    snapshot = board.snapshot()
    assert snapshot.rows == ()
    assert snapshot.retired == snapshot.total == final
    assert (final.open, final.active, final.accepted, final.upgraded) == (0, 0, 10, 6)
    assert final.closed_by_reason["worker_died"] == 5
    assert final.handshake_failures_by_reason["worker_died"] == 3


def test_mates_are_the_other_workers_of_the_slot(board: Scoreboard) -> None:
    """A worker finds the rows of its slot's other workers, and no free ones."""
    first, other, second = (board.allocate(n, slot, 1) for n, slot in ((1, 0), (2, 1), (3, 0)))
    assert board.mates(first) == (second,)
    assert board.mates(second) == (first,)
    assert board.mates(other) == ()
    board.fold(first)
    assert board.mates(second) == ()


def test_row_is_empty_for_its_next_worker(board: Scoreboard) -> None:
    """A row given out again shows nothing of the worker before."""
    row = board.allocate(1, 0, 1)
    writer = board.writer(row)
    writer.accepted()
    writer.heartbeat(1, 1)
    assert board.read(row) is not None
    board.fold(row)
    assert board.allocate(2, 1, 2) == row
    view = board.read(row)
    assert view is not None
    assert (view.serial, view.slot, view.counts.accepted, view.heartbeat_ns) == (2, 1, 0, 0)
    assert board.snapshot().total.accepted == 1


def test_counters_wrap_instead_of_raising(board: Scoreboard) -> None:
    """A counter beyond 64 bits starts again at zero, as counters do, and its row stays readable."""
    writer = board.writer(board.allocate(1, 0, 1))
    writer.traffic(0, 0, 2**64 - 1, 0)
    writer.traffic(0, 0, 3, 0)
    (view,) = board.snapshot().rows
    assert (view.counts.bytes_in, view.stale) == (2, False)


def test_writers_never_share_a_cache_line() -> None:
    """Header, totals, identity and worker block all begin and end on 64-byte boundaries."""
    for cells in (
        layout.HEADER_CELLS,
        layout.BRIDGE,
        layout.RETIRED,
        layout.POOL,
        layout.IDENTITY_CELLS,
        layout.BLOCK_CELLS,
        layout.ROW_CELLS,
    ):
        assert cells * layout.CELL % 64 == 0


def test_layout_changes_only_with_its_version() -> None:
    """A table changed without a new LAYOUT_VERSION is noticed (then raise it and replace this)."""
    names = {
        name: value
        for name, value in vars(layout).items()
        if isinstance(value, int | tuple) and name not in {"LAYOUT_VERSION", "MAGIC"}
    }
    labels = [
        [member.label for member in table]
        for table in (
            *(ClosedReason, RefusedReason, HandshakeFailure, HandoffRefusal),
            *(WorkerState, InstanceState, BridgeState, BridgeFault),
        )
    ]
    digest = hashlib.sha256(repr((sorted(names.items()), labels)).encode()).hexdigest()[:16]
    assert {layout.LAYOUT_VERSION: digest} == {7: "9997b35298f2f66c"}
