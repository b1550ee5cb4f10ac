"""The scoreboard under every interleaving and every kill: no torn row, no hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.scoreboard_replay import (
    OPERATIONS,
    ROWS,
    Cells,
    Killed,
    Replay,
    board_on,
    delayed,
    empty_memory,
    gaps,
    never_less,
    operations,
    pass_on,
    record,
    record_states,
    writer_on,
)
from wssup.scoreboard import (
    ClosedReason,
    Counts,
    RefusedReason,
    RowWriter,
)
from wssup.scoreboard.board import SNAPSHOT_TRIES
from wssup.scoreboard.layout import (
    BLOCK_CELLS,
    CHECKSUM,
    IDENTITY_CELLS,
    POOL,
    ROW_CELLS,
    SEQUENCE,
)
from wssup.scoreboard.row import COPY_TRIES, copy_committed


@settings(deadline=None, max_examples=75)
@given(operations, gaps)
def test_a_good_copy_is_a_committed_state(
    work: list[Callable[[RowWriter], None]], gaps: list[int]
) -> None:
    """Whatever stores fall between a reader's loads, a good copy is what one transaction left."""
    stores, states = record_states(work)
    memory = [0] * BLOCK_CELLS
    replay = Replay(memory, stores, gaps)
    reader = Cells(memory, on_load=replay.step)
    at_least = 0
    while True:
        finished = replay.done
        copy = copy_committed(reader)  # type: ignore[arg-type]
        if copy is not None:
            seen = copy[CHECKSUM + 1 :]
            assert seen in states[at_least:]
            at_least = states.index(seen, at_least)
        if finished:
            break
    assert copy is not None
    assert seen == states[-1]


@settings(deadline=None, max_examples=75)
@given(operations, gaps, st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_a_good_copy_is_a_committed_state_without_store_order(
    work: list[Callable[[RowWriter], None]], gaps: list[int], delays: list[int]
) -> None:
    """Stores that become visible out of order, as on arm64, are told by the checksum."""
    stores, states = record_states(work)
    memory = [0] * BLOCK_CELLS
    replay = Replay(memory, delayed(stores, delays), gaps)
    reader = Cells(memory, on_load=replay.step)
    while not replay.done:
        copy = copy_committed(reader)  # type: ignore[arg-type]
        assert copy is None or copy[CHECKSUM + 1 :] in states


def stores_of_all_operations() -> int:
    """How many stores a worker makes that does everything once."""
    return len(record(lambda cells: [run(writer_on(cells)) for run in OPERATIONS], [0] * 1024))


@pytest.mark.parametrize("after", range(stores_of_all_operations() + 1))
def test_a_writer_killed_at_any_store_hangs_nobody(after: int) -> None:
    """A reader returns after a bounded number of loads, stale just if the row is half-written.

    With an earlier copy it shows that one, else one without contradictions. After the fold
    nothing is open, and no counter has gone back.
    """
    loads = 0

    def count_load() -> None:
        nonlocal loads
        loads += 1

    memory = empty_memory()
    master = board_on(Cells(memory))
    row = master.allocate(1, 0, 1)
    reader = board_on(Cells(memory, on_load=count_load))
    earlier = reader.read(row)
    left = after

    def kill_at_last(cell: int, value: int) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    writer = board_on(Cells(memory, on_store=kill_at_last)).writer(row)
    whole = earlier
    killed = False
    for operation in OPERATIONS:
        try:
            operation(writer)
        except Killed:
            killed = True
            break
        whole = reader.read(row)
        assert whole is not None
        assert not whole.stale
    assert killed == (after < stores_of_all_operations())

    block = memory[-(ROWS - row) * (BLOCK_CELLS + 8) + 8 :]
    loads = 0
    seen = reader.read(row)
    newcomer = board_on(Cells(memory, on_load=count_load)).read(row)
    # An odd sequence is seen in one load per try; identity, serial and the copy shown come on top.
    assert loads <= 2 * (COPY_TRIES + 2 * BLOCK_CELLS)
    assert seen is not None
    assert newcomer is not None
    assert whole is not None
    assert seen.stale == newcomer.stale == bool(block[SEQUENCE] & 1)
    assert seen.counts == whole.counts
    assert 0 <= newcomer.counts.active <= newcomer.counts.open
    assert never_less(newcomer.counts, seen.counts)
    final = master.fold(row)
    assert (final.open, final.active) == (0, 0)
    assert never_less(final, newcomer.counts)
    assert reader.snapshot().retired == final


COMINGS_AND_GOINGS: list[Callable[[RowWriter], None]] = [
    lambda w: w.moved_in(0.001),
    lambda w: w.closed(ClosedReason.SERVER, 1.0),
    lambda w: w.moved_in(0.001),
    lambda w: w.moved_out(100),
]
BEGINNINGS_AND_ENDS: list[Callable[[RowWriter], None]] = [
    lambda w: w.accepted(),
    lambda w: w.upgraded(),
    lambda w: w.closed(ClosedReason.CLIENT, 1.0),
    lambda w: w.accepted(),
    lambda w: w.refused(RefusedReason.LIMIT),
    lambda w: w.accepted(),
    lambda w: w.upgraded(),
    lambda w: w.moved_out(100),
]


@pytest.mark.parametrize(
    "work",
    [
        BEGINNINGS_AND_ENDS * 100,
        COMINGS_AND_GOINGS * 200,  # nothing begins here: each upgrade seen would be invented
        [*BEGINNINGS_AND_ENDS, *COMINGS_AND_GOINGS] * 70,
    ],
    ids=["begun here", "moved here", "both"],
)
@settings(deadline=None, max_examples=40)
@given(pattern=st.lists(st.integers(0, 3), min_size=1, max_size=8).filter(any))
def test_a_copy_without_a_good_try_has_no_contradictions(
    work: list[Callable[[RowWriter], None]], pattern: list[int]
) -> None:
    """Beside a writer that never pauses, even a first stale view has 0 <= active <= open, and
    shows no more than was counted when it had been taken.
    """
    memory = empty_memory()
    row = board_on(Cells(memory)).allocate(1, 0, 1)
    reader_memory = list(memory)

    def write(cells: Cells) -> None:
        writer = board_on(cells).writer(row)
        for operation in work:
            operation(writer)

    stores = record(write, memory)
    replay = Replay(reader_memory, stores, pattern * (len(stores) // len(pattern)))
    start = POOL + row * ROW_CELLS + IDENTITY_CELLS
    before = None
    while not replay.done:
        view = board_on(Cells(reader_memory, on_load=replay.step)).read(row)
        assert view is not None
        assert 0 <= view.counts.active <= view.counts.open
        assert never_less(Counts.of(reader_memory[start : start + BLOCK_CELLS]), view.counts)
        assert before is None or never_less(view.counts, before)
        before = view.counts


@settings(deadline=None, max_examples=100)
@given(gaps, st.integers(0, 120), st.booleans())
def test_a_view_never_mixes_two_workers(gaps: list[int], first: int, known: bool) -> None:  # noqa: FBT001 - drawn
    """While a row goes from one worker to the next, a view shows each with its own counts only."""
    memory = empty_memory()
    master = board_on(Cells(memory))
    row = master.allocate(1, 0, 1)
    old = master.writer(row)
    for _ in range(5):
        old.handler_run()
    reader_memory = list(memory)

    def replace_worker(cells: Cells) -> None:
        board = board_on(cells)
        board.fold(row)
        assert board.allocate(2, 1, 2) == row
        writer = board.writer(row)
        for _ in range(3):
            writer.ping_sent()

    stores = record(replace_worker, memory)
    # The last store is left out: the new worker is killed in mid-write.
    replay = Replay(reader_memory, stores[:-1], [first, *gaps])
    cells = Cells(reader_memory)
    reader = board_on(cells)
    if known:
        assert reader.read(row) is not None
    reader._cells = Cells(reader_memory, on_load=replay.step)  # type: ignore[assignment]
    view = None
    while not (replay.done and view):
        view = reader.read(row)
        if view is not None:
            counts = view.counts
            assert (view.serial, view.slot, view.generation) in {(1, 0, 1), (2, 1, 2)}
            if view.serial == 1:
                assert (counts.handler_runs, counts.pings_sent) == (5, 0)
            else:
                assert counts.handler_runs == 0
                assert counts.pings_sent <= 3
    assert (view.serial, view.stale) == (2, True)


def test_a_transaction_cut_by_an_exception_is_mended_by_the_next() -> None:
    """A worker that survives an exception in mid-write has a readable row after its next event."""
    memory = [0] * BLOCK_CELLS
    for after in range(7):
        left = after

        def interrupt(cell: int, value: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            writer_on(Cells(memory, on_store=interrupt)).traffic(1, 1, 1, 1)
        writer_on(Cells(memory)).ping_sent()
        copy = copy_committed(Cells(memory))  # type: ignore[arg-type]
        assert copy is not None
        assert Counts.of(copy).pings_sent == after + 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(0, 400))
def test_a_fold_is_seen_whole_or_not_at_all(gaps: list[int], first: int) -> None:
    """While rows are folded and given out again, an outside reader counts each worker once."""
    memory = empty_memory()
    master = board_on(Cells(memory))
    writers = [master.writer(master.allocate(serial, 0, 1)) for serial in (1, 2, 3)]
    for times, writer in enumerate(writers, start=1):
        for _ in range(times):
            for operation in OPERATIONS:
                operation(writer)
    for giver, taker in pairwise([*writers, *writers]):
        pass_on(giver, taker)
    reader_memory = list(memory)
    totals = [master.snapshot().total]

    def roll(cells: Cells) -> None:
        folding = board_on(cells)
        for row, serial in ((1, 4), (0, 5), (2, 6)):
            folding.fold(row)
            totals.append(folding.snapshot().total)
            assert folding.allocate(serial, 0, 2) == row

    stores = record(roll, memory)
    replay = Replay(reader_memory, stores, [first, *gaps])
    reader = board_on(Cells(reader_memory, on_load=replay.step))
    at_least = 0
    before = Counts.of([0] * BLOCK_CELLS)
    while not replay.done:
        snapshot = reader.snapshot()
        assert never_less(totals[-1], snapshot.total)
        assert never_less(snapshot.total, before)
        before = snapshot.total
        if not snapshot.stale:
            assert snapshot.total in totals[at_least:]
            at_least = totals.index(snapshot.total, at_least)
    assert reader.snapshot().total == totals[-1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=6), gaps, st.integers(0, 400))
def test_a_move_is_never_seen_by_half(taker_first: list[bool], gaps: list[int], first: int) -> None:
    """While a WebSocket goes to and fro, the total shows it once, whichever end counts first."""
    memory = empty_memory()
    master = board_on(Cells(memory))
    rows = [master.allocate(serial, 0, 1) for serial in (1, 2)]
    master.writer(rows[0]).accepted()
    master.writer(rows[0]).upgraded()
    reader_memory = list(memory)

    def move(cells: Cells) -> None:
        giver, taker = (board_on(cells).writer(row) for row in rows)
        for swapped in taker_first:
            counting = [lambda w=giver: w.moved_out(10), lambda w=taker: w.moved_in(0.1)]
            for count in reversed(counting) if swapped else counting:
                count()
            giver, taker = taker, giver

    replay = Replay(reader_memory, record(move, memory), [first, *gaps])
    reader = board_on(Cells(reader_memory, on_load=replay.step))
    moves = 0
    while True:
        finished = replay.done
        total = reader.snapshot().total
        assert (total.open, total.active, total.upgraded) == (1, 1, 1)
        assert moves <= total.moved_in == total.moved_out <= len(taker_first)
        moves = total.moved_in
        if finished:
            break
    assert moves == len(taker_first)


def test_a_master_killed_in_a_fold_hangs_nobody() -> None:
    """However far a fold came, readers return: with the last snapshot, or with what there is."""
    operations = [*OPERATIONS, *OPERATIONS]
    memory = empty_memory()
    master = board_on(Cells(memory))
    writer = master.writer(master.allocate(1, 0, 1))
    for operation in operations:
        operation(writer)
    other = master.writer(master.allocate(2, 1, 1))
    pass_on(other, writer)
    pass_on(other, writer)
    pass_on(writer, other)
    reader = board_on(Cells(memory))
    before = reader.snapshot()
    folded = list(memory)
    stores = record(lambda cells: board_on(cells).fold(0), folded)
    truth = board_on(Cells(folded)).snapshot().total
    for cell, value in stores[:-1]:
        memory[cell] = value
        began = time.monotonic()
        seen = reader.snapshot()
        newcomer = board_on(Cells(memory)).snapshot()
        assert time.monotonic() - began < SNAPSHOT_TRIES * 0.1
        assert (seen.stale, newcomer.stale) == (True, True)
        assert seen.total == before.total
        assert 0 <= newcomer.total.active <= newcomer.total.open
        assert never_less(truth, newcomer.total)
    memory[stores[-1][0]] = stores[-1][1]
    after = reader.snapshot()
    assert (after.stale, len(after.rows), after.total.open) == (False, 1, 0)
