"""What can be seen of a row in passing."""

from __future__ import annotations

from typing import NamedTuple, Self

from wssup.scoreboard.layout import ACCEPTED, ACCEPTING, ADMITS, CLOSED, HEARTBEAT, MOVED_IN
from wssup.scoreboard.row import Cells

__all__ = ["Glance"]


class Glance(NamedTuple):
    """A worker in passing: numbers of one moment and the next, none of them a count to rely on.

    :ivar row: the row's index in the pool.
    :ivar heartbeat_ns: as of RowView; so are ``accepting`` and ``admits``.
    :ivar accepted: connections so far.
    :ivar open: of them and of those that moved in, those that have not ended.
    """

    row: int
    heartbeat_ns: int
    accepting: bool
    accepted: int
    open: int
    admits: int | None = None

    @classmethod
    def of(cls, row: int, block: Cells) -> Self:
        """What a row's block shows, whoever writes it meanwhile."""
        cells = block[: MOVED_IN + 1].tolist()
        # All kinds of ends stand together, before MOVED_IN.
        still = cells[ACCEPTED] + cells[MOVED_IN] - sum(cells[CLOSED:MOVED_IN])
        return cls(
            row,
            cells[HEARTBEAT],
            bool(cells[ACCEPTING]),
            cells[ACCEPTED],
            max(0, still),
            cells[ADMITS] - 1 if cells[ADMITS] else None,
        )
