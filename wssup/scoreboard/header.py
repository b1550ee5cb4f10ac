"""The scoreboard's header: what the memory is, and what the master says of the instance."""

from __future__ import annotations

import os
import time
from typing import Protocol

from wssup.errors import ScoreboardError
from wssup.scoreboard.layout import (
    H_GENERATION,
    H_HEADER_CELLS,
    H_LAYOUT,
    H_MAGIC,
    H_MASTER_PID,
    H_ROW_CELLS,
    H_ROWS,
    H_SLOTS,
    H_STARTED_AT,
    H_STATE,
    HEADER_CELLS,
    LAYOUT_VERSION,
    MAGIC,
    ROW_CELLS,
    InstanceState,
    segment_size,
)
from wssup.scoreboard.row import Cells


class Memory(Protocol):
    """What the scoreboard needs of :class:`~wssup.scoreboard.segment.Segment`."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    @property
    def cells(self) -> Cells:
        """All of it as cells."""
        ...

    def close(self) -> None:
        """Unmap it."""

    def unlink(self) -> None:
        """Remove its name."""


class Header:
    """The header of a scoreboard. The master sets what is below, everybody reads it."""

    def __init__(self, memory: Memory) -> None:
        """Use memory whose header stands.

        :raises ScoreboardError: the memory is no scoreboard of this layout.
        """
        check_header(memory)
        self._cells = memory.cells
        self._rows = self._cells[H_ROWS]

    @property
    def rows(self) -> int:
        """How many rows the pool has."""
        return self._rows

    @property
    def slots(self) -> int:
        """How many slots the instance was created with."""
        return self._cells[H_SLOTS]

    @property
    def master_pid(self) -> int:
        """The master's process id."""
        return self._cells[H_MASTER_PID]

    @master_pid.setter
    def master_pid(self, pid: int) -> None:
        self._cells[H_MASTER_PID] = pid

    @property
    def started_at_ns(self) -> int:
        """When the instance started, in nanoseconds since the epoch."""
        return self._cells[H_STARTED_AT]

    @started_at_ns.setter
    def started_at_ns(self, started_at: int) -> None:
        self._cells[H_STARTED_AT] = started_at

    @property
    def generation(self) -> int:
        """The newest generation."""
        return self._cells[H_GENERATION]

    @generation.setter
    def generation(self, generation: int) -> None:
        self._cells[H_GENERATION] = generation

    @property
    def state(self) -> InstanceState:
        """What the instance is doing."""
        return InstanceState(self._cells[H_STATE])

    @state.setter
    def state(self, state: InstanceState) -> None:
        self._cells[H_STATE] = state


def write_header(cells: Cells, *, rows: int, slots: int) -> None:
    """Turn zeros into an empty scoreboard. The magic number comes last: it says the rest stands."""
    cells[H_LAYOUT] = LAYOUT_VERSION
    cells[H_HEADER_CELLS] = HEADER_CELLS
    cells[H_ROW_CELLS] = ROW_CELLS
    cells[H_ROWS] = rows
    cells[H_SLOTS] = slots
    cells[H_MASTER_PID] = os.getpid()
    cells[H_STARTED_AT] = time.time_ns()
    cells[H_STATE] = InstanceState.STARTING
    cells[H_MAGIC] = MAGIC


def check_header(memory: Memory) -> None:
    """See that the memory is a whole scoreboard of this layout.

    :raises ScoreboardError: it is not; says why.
    """
    cells, name, size = memory.cells, memory.name, memory.size
    if len(cells) < HEADER_CELLS:
        raise ScoreboardError(f"{name!r} is too small to be a scoreboard: {size} bytes")
    if cells[H_MAGIC] != MAGIC:
        raise ScoreboardError(f"{name!r} is not a scoreboard: its magic number is wrong")
    if cells[H_LAYOUT] != LAYOUT_VERSION:
        raise ScoreboardError(
            f"the scoreboard {name!r} has layout {cells[H_LAYOUT]}, this wssup reads layout"
            f" {LAYOUT_VERSION}; use the version of wssup that runs the instance"
        )
    if (cells[H_HEADER_CELLS], cells[H_ROW_CELLS]) != (HEADER_CELLS, ROW_CELLS):
        raise ScoreboardError(f"the scoreboard {name!r} has a header or rows of another size")
    needed = segment_size(cells[H_ROWS])
    if size < needed:
        raise ScoreboardError(f"the scoreboard {name!r} is cut off: {size} of {needed} bytes")
