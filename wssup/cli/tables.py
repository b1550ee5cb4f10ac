"""Tables that fit into the terminal: columns are left out before a figure is cut.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

__all__ = ["Column", "table"]

_GAP: Final = 2


class Column(NamedTuple):
    """A column: its heading, whether it holds numbers, and when it goes if the terminal is narrow.

    :ivar rank: the column with the highest rank goes first; 0 stays.
    """

    heading: str
    number: bool
    rank: int


def table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> Table:
    """A table of `rows` in at most `width` cells, as far as columns may be left out."""
    kept = _fitting(columns, rows, width)
    found = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for index in kept:
        column = columns[index]
        # What is kept fits, so nothing is cut: a number without its last digits is another number.
        found.add_column(column.heading, justify="right" if column.number else "left", no_wrap=True)
    for row in rows:
        found.add_row(*(row[index] for index in kept))
    return found


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """The columns that fit into `width` together, in order; those of rank 0 always do."""
    kept = list(range(len(columns)))
    needs = [
        max([cell_len(column.heading), *(row[index].cell_len for row in rows)]) + _GAP
        for index, column in enumerate(columns)
    ]
    for index in sorted(kept, key=lambda index: -columns[index].rank):
        if columns[index].rank == 0 or sum(needs[index] for index in kept) - _GAP <= width:
            break
        kept.remove(index)
    return kept
