"""The live page of ``wssup status --watch``: one status beside the one before it, so that it shows
what happens, not only what is.

Pure, but for the renderer that it is given.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from rich.cells import set_cell_size
from rich.console import Console, RenderableType
from rich.text import Text

from wssup.cli import render
from wssup.cli.documents import Slot, Status, Worker
from wssup.cli.tables import Column, table
from wssup.cli.text import ago, count, milliseconds, one_line, size

__all__ = ["Page"]

_HISTORY: Final = 60
"""Statuses that the curve shows."""
_BAR: Final = 20
_CURVE: Final = " ▁▂▃▄▅▆▇█"
_NOTES: Final = 6
"""Lines of what went wrong or is under way that are shown at most."""

_COLUMNS: Final = (
    Column("slot", number=True, rank=0),
    Column("pid", number=True, rank=4),
    Column("gen", number=True, rank=3),
    Column("state", number=False, rank=1),
    Column("active", number=True, rank=0),
    Column("new/s", number=True, rank=2),
    Column("queue", number=True, rank=7),
    Column("lag", number=True, rank=6),
    Column("age", number=True, rank=5),
)


class _Sample(NamedTuple):
    status: Status
    at: float


class Page:
    """What is shown, from the statuses that came.

    :param fancy: whether the terminal can show more than ASCII.
    :ivar error: why there is no newer status; empty if there is.
    """

    def __init__(self, *, fancy: bool) -> None:
        self._fancy = fancy
        self._curve: deque[int] = deque(maxlen=_HISTORY)
        self._last: _Sample | None = None
        self._before: _Sample | None = None
        self._seen_at: dt.datetime | None = None
        self._top = 0
        self._room = 0
        self._rows = 0
        self.error = ""

    def add(self, status: Status, at: float, now: dt.datetime) -> None:
        """A status came.

        :param at: when, in seconds of a clock that only goes forward; ``now``: by the clock on the
            wall.
        """
        self.error = ""
        last = self._last
        if last is not None and last.status.started_at != status.started_at:
            # Another life: its counters began anew.
            self._curve.clear()
            last = None
        self._before, self._last = last, _Sample(status, at)
        self._seen_at = now
        self._curve.append(status.connections.active)

    def scroll(self, key: str) -> None:
        """Move the part of the table that is seen."""
        steps = {
            "up": -1,
            "down": 1,
            "page_up": -max(1, self._room - 1),
            "page_down": max(1, self._room - 1),
            "home": -self._rows,
            "end": self._rows,
        }
        self._top = max(0, min(self._top + steps.get(key, 0), self._rows - self._room))

    def lines(self, console: Console, width: int, height: int) -> list[str]:
        """The page as lines for a terminal of this size.

        :param console: what renders it.
        """
        if self._last is None or self._seen_at is None:
            return []
        console.width, console.height = width, height
        status = self._last.status
        head = _lines(console, self._head(status, self._seen_at, width))
        notes = _lines(console, render.notes(status))
        heading, *rows = _lines(console, [self._table(status, width)])
        # On a very small terminal: the figures first, and some of the table.
        head = head[: max(1, height - 4)]
        spare = height - len(head) - 3
        most = max(0, min(_NOTES, spare - min(len(rows), 4)))
        if len(notes) > most:
            left = len(notes) - most + 1
            more = set_cell_size(f"… {left} lines more: wssup status", width).rstrip()
            notes = [*notes[: most - 1], more] if most else []
        if notes:
            notes = ["", *notes]
        self._rows = len(rows)
        self._room = max(1, spare - len(notes))
        self._top = max(0, min(self._top, self._rows - self._room))
        shown = rows[self._top : self._top + self._room]
        page = [*head, "", heading, *shown, *notes]
        page = page[: height - 1]
        page += [""] * (height - 1 - len(page))
        return [*page, *_lines(console, [self._foot(width)])[:1]]

    def _head(self, status: Status, seen_at: dt.datetime, width: int) -> list[RenderableType]:
        first, *more = render.head(status, seen_at, capacity=False)
        lines: list[RenderableType] = [first]
        if self.error:
            told = f"last seen {seen_at.astimezone():%H:%M:%S}: {one_line(self.error)}"
            lines.append(Text(told, style="bold red"))
        lines += more
        if status.capacity:
            lines.append(self._used(status.connections.open, status.capacity, width))
        lines.append(Text("slots  " + _slots(status)))
        if self._before is not None and self._last is not None:
            lines.append(Text("per second  " + _rates(self._before, self._last)))
        ping = status.latency.ping_ms
        if ping.max:
            figures = (("p50", ping.p50), ("p99", ping.p99), ("max", ping.max))
            told = ", ".join(f"{name} {milliseconds(ms)}" for name, ms in figures)
            lines.append(Text(f"ping  {told}"))
        return lines

    def _used(self, taken: int, capacity: int, width: int) -> Text:
        """How full it is, and how the number of connections went."""
        used = taken / capacity
        bar = min(_BAR, width // 4)
        done = max(0, min(bar, round(bar * used)))
        full, free = ("█", "·") if self._fancy else ("#", ".")
        line = Text("capacity  ").append(
            full * done, style="red" if used > 0.9 else "yellow" if used > 0.75 else "green"
        )
        line.append(free * (bar - done))
        line.append(f" {100 * used:.1f}% of {count(capacity)}")
        room = width - line.cell_len - 10
        if self._fancy and room >= 10 and len(self._curve) > 1:
            line.append("   active  ").append(_curve(list(self._curve)[-room:]), style="cyan")
        return line

    def _table(self, status: Status, width: int) -> RenderableType:
        before = {
            worker.serial or worker.pid: worker
            for slot in (self._before.status.slots if self._before is not None else ())
            for worker in slot.workers
        }
        seconds = self._seconds
        rows = []
        for slot in status.slots:
            rows += _rows(slot, before, seconds)
        return table(_COLUMNS, rows, width)

    @property
    def _seconds(self) -> float:
        """Between the last two statuses; 0 if there is one only."""
        if self._before is None or self._last is None:
            return 0.0
        return self._last.at - self._before.at

    def _foot(self, width: int) -> Text:
        text = "q quit"
        if self._rows > self._room:
            last = min(self._rows, self._top + self._room)
            arrows = "↑ ↓" if self._fancy else "j k"
            text += f"  {arrows} scroll  rows {self._top + 1} to {last} of {self._rows}"
        if self._seen_at is not None:
            clock = f"{self._seen_at.astimezone():%H:%M:%S}"
            if len(text) + len(clock) + 2 <= width:
                text += " " * (width - len(text) - len(clock)) + clock
        return Text(text[:width], style="dim")


def _lines(console: Console, parts: Sequence[RenderableType]) -> list[str]:
    """Lines of at most the console's width, with what colours them."""
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    text = captured.get()
    return [line.rstrip() for line in text.split("\n")[:-1]]


def _slots(status: Status) -> str:
    states = Counter(
        "stalled" if any(w.stalled for w in slot.workers) else slot.state for slot in status.slots
    )
    return ", ".join(f"{n} {one_line(state)}" for state, n in states.most_common()) or "none"


def _rates(before: _Sample, last: _Sample) -> str:
    seconds = last.at - before.at
    old, new = before.status.connections, last.status.connections
    figures = (
        ("accepted", new.accepted - old.accepted),
        ("closed", new.closed - old.closed),
        ("refused", new.refused - old.refused),
        ("failed", new.handshake_failures - old.handshake_failures),
        ("messages in", new.messages_in - old.messages_in),
        ("out", new.messages_out - old.messages_out),
    )
    return ", ".join(
        f"{_rate(difference, seconds)} {name}"
        for name, difference in figures
        if difference or name not in {"refused", "failed"}
    )


def _rate(difference: int, seconds: float) -> str:
    """A rate in whole numbers, or in tenths below ten."""
    value = max(0.0, difference / seconds) if seconds > 0 else 0.0
    return f"{value:.1f}" if 0 < value < 9.95 else count(round(value))


def _rows(slot: Slot, before: Mapping[int | None, Worker], seconds: float) -> list[list[Text]]:
    if not slot.workers:
        dash = Text("-", style="dim")
        cells = [dash] * len(_COLUMNS)
        cells[0] = Text(str(slot.slot))
        cells[3] = render.state_of(slot)
        return [cells]
    rows = []
    for index, worker in enumerate(slot.workers):
        was = before.get(worker.serial or worker.pid)
        new = Text("-", style="dim")
        if was is not None and seconds > 0:
            new = Text(_rate(worker.accepted - was.accepted, seconds))
        lag = "-" if worker.lag_ms is None else milliseconds(worker.lag_ms)
        rows.append(
            [
                Text(str(slot.slot) if not index else ""),
                Text("-" if worker.pid is None else str(worker.pid)),
                Text(str(worker.generation)),
                render.state_of(slot, worker, first=not index),
                Text(count(worker.active)),
                new,
                Text(size(worker.send_queue_bytes)),
                Text(lag),
                Text(ago(worker.age)),
            ]
        )
    return rows


def _curve(values: list[int]) -> str:
    """A line of blocks, the highest for the largest value, none for 0."""
    high, steps = max(1, *values), len(_CURVE) - 1
    return "".join(_CURVE[round(steps * value / high)] for value in values)
