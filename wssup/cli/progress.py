"""What a reload, a scaling or a drain does: live on a terminal, else line by line."""

from __future__ import annotations

from typing import Final, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wssup.cli.client import Document
from wssup.cli.render import console
from wssup.cli.text import count, one_line
from wssup.config.values import MAX_DURATION, format_duration

__all__ = ["Progress", "sentence"]

_BAR: Final = 20
_WORDS: Final = " connections left"
_MOVED: Final = " connections moved"
_WIDE: Final = 80
"""Cells that a slot's line needs with its bar and seven-digit counts."""
_MARKS: Final = {
    "starting": ("◌", "cyan"),
    "ready": ("●", "green"),
    "moving": ("→", "cyan"),
    "draining": ("◐", "yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "bold red"),
}
_PHASES: Final = {
    "importing": "importing the application",
    "starting": "starting workers",
    "settling": "settling",
    "moving": "moving the connections",
    "draining": "draining the old workers",
    "rolling_back": "rolling back",
}


def sentence(event: Document) -> str | None:
    """An event as one line; None for an event that this version does not know."""
    kind = event.get("event")
    if kind == "phase":
        phase = str(event.get("phase"))
        text = f"generation {event.get('generation')}: {_PHASES.get(phase, phase)}"
        seconds = event.get("seconds")
        if isinstance(seconds, int | float) and 0 < seconds <= MAX_DURATION:
            text += f", {format_duration(round(seconds, 1))} at most"
    elif kind == "slot":
        text = f"slot {event.get('slot')}: {event.get('state')}"
        if event.get("pid") is not None:
            text += f", pid {event['pid']}"
        if (left := _left(event)) is not None:
            text += f", {left}"
    elif kind == "remaining":
        active = event.get("active")
        text = f"{count(active) if isinstance(active, int) else '?'} connections left"
    elif kind == "notice":
        text = str(event.get("message"))
    else:
        return None
    return one_line(text)


def _left(event: Document) -> str | None:
    """How many connections are left, or have moved; None if the event does not say."""
    moved, active = event.get("moved"), event.get("active")
    number, words = (moved, _MOVED) if isinstance(moved, int) else (active, _WORDS)
    if not isinstance(number, int):
        return None
    total = event.get("total")
    of = f" of {count(total)}" if isinstance(total, int) else ""
    return f"{count(number)}{of}{words}"


class Progress:
    """Shows events; a context manager, called with each event."""

    def __init__(self) -> None:
        self._console = console()
        self._last = ""
        self._phase = Text("")
        self._slots: dict[int, Document] = {}
        self._live: Live | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_details: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Document) -> None:
        """Show `event`."""
        line = sentence(event)
        if line is None or line == self._last:
            return
        self._last = line
        if self._live is None:
            self._print(line)
            return
        slot = event.get("slot")
        if event["event"] == "slot" and isinstance(slot, int):
            self._slots[slot] = event
        elif event["event"] == "notice":
            self._print(line)
        else:
            self._phase = Text(line, style="bold")
        self._live.update(self._picture(), refresh=True)

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
        # A pipe's reader sees each line when it happens.
        self._console.file.flush()

    def _picture(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
        for _ in range(4):
            table.add_column(no_wrap=True, overflow="ignore")
        for slot, event in sorted(self._slots.items()):
            state = one_line(str(event.get("state")))
            mark, style = _MARKS.get(state, ("·", ""))
            cells = [Text(f"slot {slot}"), Text(f"{mark} {state}", style=style)]
            left = _left(event) or ""
            if self._console.width < _WIDE:
                # The figures matter more than the bar and the words.
                cells.append(Text(left.removesuffix(_WORDS).removesuffix(_MOVED)))
            else:
                cells += [_bar(event), Text(left)]
            table.add_row(*cells)
        return Group(self._phase, table)


def _bar(event: Document) -> Text:
    """How much of a worker's connections have moved, or are gone."""
    moved, active, total = event.get("moved"), event.get("active"), event.get("total")
    if not isinstance(total, int) or total <= 0:
        return Text("")
    if isinstance(moved, int):
        done = moved
    elif isinstance(active, int):
        done = total - active
    else:
        return Text("")
    gone = max(0, min(_BAR, _BAR * done // total))
    return Text("━" * gone, style="green").append("━" * (_BAR - gone), style="dim")
