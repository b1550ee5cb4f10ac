"""The scoreboard as a whole: the master's side, and the readers' side."""

from __future__ import annotations

import os
import time
from typing import Final, Self

import msgspec

from wssup.errors import ScoreboardError
from wssup.scoreboard import layout, segment
from wssup.scoreboard.bridge import BridgeView, BridgeWriter
from wssup.scoreboard.counts import Counts, RowView, Snapshot, altogether, ended, plausible
from wssup.scoreboard.glance import Glance
from wssup.scoreboard.header import Header, Memory, write_header
from wssup.scoreboard.layout import (
    ACCEPTED,
    ACCEPTING,
    ADMITS,
    B_SERIAL,
    BLOCK_CELLS,
    BRIDGE,
    BRIDGE_CELLS,
    BUS_QUEUE_BYTES,
    COUNTERS,
    COUNTERS_END,
    GENERATION,
    H_FOLD_SEQUENCE,
    H_FOLDING,
    HEARTBEAT,
    IDENTITY_CELLS,
    LAG_LAST,
    LAG_MAX,
    MOVED_IN,
    PID,
    POOL,
    RETIRED,
    ROW_CELLS,
    SEND_QUEUE_BYTES,
    SERIAL,
    SLOT,
    STARTED,
    STATE,
    SUBSCRIPTIONS,
    TOPICS,
    UPGRADED,
    WorkerState,
)
from wssup.scoreboard.row import Cells, RowWriter, commit, copy_committed

# A fold takes the master about 0.1 ms. Readers in other processes wait for its end for some ten
# milliseconds at most; the master itself, being the one that folds, never does.
SNAPSHOT_TRIES: Final = 50
SNAPSHOT_PAUSE_S: Final = 0.0001

# A fold stores beginnings before ends, so that however far it came the totals show no end without
# its beginning. (They stand in another order in the layout; see counts.plausible().)
_FOLD_ORDER: Final = tuple(
    dict.fromkeys((ACCEPTED, UPGRADED, MOVED_IN, *range(COUNTERS, COUNTERS_END)))
)


class Scoreboard(Header):
    """One instance's scoreboard, mapped into this process.

    The master creates it and is the only one that calls the methods that change it; a worker takes
    the :meth:`writer` of its row; everybody may :meth:`read` and take a :meth:`snapshot`. An object
    belongs to one thread. A mapping inherited through fork works in the child.
    """

    def __init__(self, memory: Memory) -> None:
        """Use memory whose header stands; see :meth:`create` and :meth:`attach`.

        :raises ScoreboardError: the memory is no scoreboard of this layout.
        """
        super().__init__(memory)
        self._memory = memory
        self._retired = self._cells[RETIRED : RETIRED + BLOCK_CELLS]
        self._views: list[Cells] = [self._retired]
        self._last_good: dict[int, tuple[int, list[int]]] = {}
        self._last_snapshot: Snapshot | None = None

    @classmethod
    def create(
        cls, instance: str, runtime_dir: str | os.PathLike[str], rows: int, slots: int
    ) -> Self:
        """Make a new segment, owned by this process's user, with this process as the master.

        :param instance: the instance's name.
        :param runtime_dir: its runtime directory, which tells instances of one name apart.
        :param rows: how many workers can live at a time.
        :param slots: how many slots the instance has; a hint for readers.
        :raises InstanceError: /dev/shm is full or cannot be used.
        """
        if rows < 1:
            raise ScoreboardError(f"a scoreboard needs at least one row, not {rows}")
        name = segment.segment_name(instance, runtime_dir)
        memory = segment.Segment.create(name, layout.segment_size(rows))
        write_header(memory.cells, rows=rows, slots=slots)
        return cls(memory)

    @classmethod
    def attach(cls, name: str) -> Self:
        """Map an existing segment.

        :raises ScoreboardError: it is missing, too small, no scoreboard, or of another layout.
        """
        memory = segment.Segment.attach(name)
        try:
            return cls(memory)
        except ScoreboardError:
            memory.close()
            raise

    @staticmethod
    def remove_stale(name: str) -> None:
        """Remove the segment of a dead instance; a missing one is no error.

        :raises ScoreboardError: the name is not one that wssup gives.
        :raises InstanceError: the segment belongs to another user.
        """
        segment.remove(name)

    @property
    def name(self) -> str:
        """The segment's name in /dev/shm."""
        return self._memory.name

    @property
    def size(self) -> int:
        """The segment's size in bytes."""
        return self._memory.size

    def close(self) -> None:
        """Unmap the segment from this process. Writers given out before now raise ValueError."""
        for view in self._views:
            view.release()
        self._memory.close()

    def unlink(self) -> None:
        """Remove the segment's name, also after :meth:`close`. Those who have it mapped keep it."""
        self._memory.unlink()

    # The rows, for the master and the worker.

    def allocate(self, serial: int, slot: int, generation: int) -> int:
        """Give a new worker an empty row.

        :param serial: the worker's number, from 1; never used twice in one instance.
        :returns: the row's index.
        :raises ScoreboardError: all rows are taken, or the serial is not positive.
        """
        if serial < 1:
            raise ScoreboardError(f"a worker's serial is a positive number, not {serial}")
        cells = self._cells
        for row in range(self._rows):
            start = self._start(row)
            if cells[start + SERIAL] == 0:
                break
        else:
            raise ScoreboardError(
                f"all {self._rows} rows of the scoreboard are taken; no row for slot {slot}"
            )
        for cell in range(start + IDENTITY_CELLS, start + ROW_CELLS):
            cells[cell] = 0
        cells[start + PID] = 0
        cells[start + SLOT] = slot
        cells[start + GENERATION] = generation
        cells[start + STATE] = WorkerState.STARTING
        cells[start + STARTED] = time.monotonic_ns()
        cells[start + SERIAL] = serial  # last: from here on readers see the row
        return row

    def identify(
        self, row: int, *, pid: int | None = None, state: WorkerState | None = None
    ) -> None:
        """Set what is known by now of the worker of a row.

        :raises ScoreboardError: the row is free.
        """
        start = self._taken(row)
        if pid is not None:
            self._cells[start + PID] = pid
        if state is not None:
            self._cells[start + STATE] = state

    def writer(self, row: int) -> RowWriter:
        """The worker's hand on its row.

        :raises ScoreboardError: the row is free.
        """
        start = self._taken(row)
        block = self._cells[start + IDENTITY_CELLS : start + ROW_CELLS]
        self._views.append(block)
        return RowWriter(block)

    def bridge_writer(self) -> BridgeWriter:
        """The bridge's hand on its cells."""
        cells = self._cells[BRIDGE : BRIDGE + BRIDGE_CELLS]
        self._views.append(cells)
        return BridgeWriter(cells)

    def counted(self, row: int) -> Counts:
        """What a worker that has been reaped counted itself, also if it died while it wrote.

        For the master, when both ends of a handoff are dead and neither has reported: to both calls
        of :meth:`fold` it then gives the greater of the two numbers, so that they agree.

        :raises ScoreboardError: the row is free.
        """
        start = self._taken(row)
        return Counts.of(self._cells[start + IDENTITY_CELLS : start + ROW_CELLS].tolist())

    def fold(
        self, row: int, *, moved_in: int | None = None, moved_out: int | None = None
    ) -> Counts:
        """Add the row of a worker that has been reaped to the retired totals, and free it.

        Call it only when the process is gone: the row's sequence is ignored. What was active is
        counted as closed, what was open but not upgraded as a failed handshake, both as
        ``worker_died``. Readers see the row living or in the totals, never in both or neither.

        A worker may have died between an acknowledgement and its counting, or before it read one
        that its peer had sent. Its peers know: what they reported stands in for its own two cells
        (which it can only raise), so that each connection ends once, where it was.

        :param moved_in: connections it acknowledged in all its life, as those who gave them say;
            ``None`` if they did not: then its own cell counts.
        :param moved_out: connections of it that were acknowledged in all its life, as those who
            took them say; or ``None``.
        :returns: all that the worker counted.
        :raises ScoreboardError: the row is free.
        """
        cells = self._cells
        start = self._taken(row)
        block = cells[start + IDENTITY_CELLS : start + ROW_CELLS].tolist()
        final = ended(block, moved_in=moved_in, moved_out=moved_out)
        changes = [(cell, final[cell]) for cell in _FOLD_ORDER if final[cell]]
        folding = cells[H_FOLD_SEQUENCE] | 1
        cells[H_FOLD_SEQUENCE] = folding
        cells[H_FOLDING] = cells[start + SERIAL]
        commit(self._retired, *changes)
        cells[start + SERIAL] = 0
        cells[H_FOLD_SEQUENCE] = folding + 1
        return Counts.of(final)

    # Reading.

    def mates(self, row: int) -> tuple[int, ...]:
        """The rows of other workers of the same slot."""
        cells = self._cells
        slot = cells[self._start(row) + SLOT]
        others = (other for other in range(self._rows) if other != row)
        starts = ((other, self._start(other)) for other in others)
        return tuple(o for o, at in starts if cells[at + SERIAL] and cells[at + SLOT] == slot)

    def read(self, row: int) -> RowView | None:
        """The worker of a row; ``None`` if the row is free, or was freed meanwhile."""
        cells = self._cells
        start = self._start(row)
        if cells[start + SERIAL] == 0:
            return None  # three of four rows are, mostly
        identity = cells[start : start + IDENTITY_CELLS].tolist()
        serial = identity[SERIAL]
        if serial == 0:
            return None
        block = cells[start + IDENTITY_CELLS : start + ROW_CELLS]
        good = copy_committed(block)
        copy = self._instead(row, serial, block) if good is None else good
        if cells[start + SERIAL] != serial:
            return None
        if good is not None:
            self._last_good[row] = (serial, good)
        return RowView(
            row=row,
            serial=serial,
            pid=identity[PID],
            slot=identity[SLOT],
            generation=identity[GENERATION],
            state=WorkerState(identity[STATE]),
            started_ns=identity[STARTED],
            heartbeat_ns=copy[HEARTBEAT],
            lag_last_ns=copy[LAG_LAST],
            lag_max_ns=copy[LAG_MAX],
            accepting=bool(copy[ACCEPTING]),
            send_queue_bytes=copy[SEND_QUEUE_BYTES],
            subscriptions=copy[SUBSCRIPTIONS],
            topics=copy[TOPICS],
            bus_queue_bytes=copy[BUS_QUEUE_BYTES],
            counts=Counts.of(copy),
            stale=good is None,
            admits=copy[ADMITS] - 1 if copy[ADMITS] else None,
        )

    def bridge(self) -> BridgeView | None:
        """The bridge to a server; ``None`` if there was none yet."""
        cells = self._cells[BRIDGE : BRIDGE + BRIDGE_CELLS].tolist()
        return BridgeView.of(cells) if cells[B_SERIAL] else None

    def snapshot(self) -> Snapshot:
        """All living workers and the retired totals.

        While the master folds a row this waits, but never long. If the fold does not end, the
        last snapshot is returned, or without one what can be read, marked stale: then the worker
        that is being folded is counted in part or not at all, and never twice.
        """
        cells = self._cells
        for attempt in range(SNAPSHOT_TRIES):
            if attempt:
                time.sleep(SNAPSHOT_PAUSE_S)
            before = cells[H_FOLD_SEQUENCE]
            if before & 1:
                continue
            retired = copy_committed(self._retired)
            rows = self._read_all()
            if retired is not None and cells[H_FOLD_SEQUENCE] == before:
                self._last_snapshot = self._snapshot(rows, retired, stale=False)
                return self._last_snapshot
        if self._last_snapshot is None:
            self._last_snapshot = self._snapshot_within_a_fold()
        return msgspec.structs.replace(self._last_snapshot, state=self.state, stale=True)

    def glance(self) -> list[Glance]:
        """The living workers in passing, for decisions that need no certainty: costs a few
        microseconds for each, a tenth of :meth:`read`.
        """
        starts = ((row, self._start(row)) for row in range(self._rows))
        return [
            Glance.of(row, self._cells[start + IDENTITY_CELLS : start + ROW_CELLS])
            for row, start in starts
            if self._cells[start + SERIAL]
        ]

    def _snapshot_within_a_fold(self) -> Snapshot:
        """What is certain in any case: never more than what was counted.

        The order of reading matters. A row that is still there in the end was not being folded when
        the totals were copied, unless it is the one named in between.
        """
        totals = plausible(self._retired.tolist())
        folding = self._cells[H_FOLDING]
        rows = tuple(view for view in self._read_all() if view.serial != folding)
        return self._snapshot(rows, totals, stale=True)

    def _snapshot(
        self, rows: tuple[RowView, ...], retired_block: list[int], *, stale: bool
    ) -> Snapshot:
        retired = Counts.of(retired_block)
        total = altogether((retired, *(view.counts for view in rows)))
        # The state is read after the rows: the master writes it before it tells the workers.
        return Snapshot(state=self.state, rows=rows, retired=retired, total=total, stale=stale)

    def _read_all(self) -> tuple[RowView, ...]:
        views = (self.read(row) for row in range(self._rows))
        return tuple(view for view in views if view is not None)

    def _instead(self, row: int, serial: int, block: Cells) -> list[int]:
        """What to show of a row without a good copy: the last good one of this worker, if any."""
        known, copy = self._last_good.get(row, (0, []))
        return copy if known == serial else plausible(block.tolist())

    def _start(self, row: int) -> int:
        if not 0 <= row < self._rows:
            raise ScoreboardError(f"no row {row} in a scoreboard of {self._rows} rows")
        return POOL + row * ROW_CELLS

    def _taken(self, row: int) -> int:
        start = self._start(row)
        if self._cells[start + SERIAL] == 0:
            raise ScoreboardError(f"row {row} of the scoreboard is free")
        return start
