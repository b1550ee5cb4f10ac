"""What the engine must reach, judged from the run's own figures."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.engine.figures import Figures
from benchmarks.engine.tables import MISSING, number

SMALL = "echo 32 50"
CROWD = "echo 32 1000"


@dataclass(frozen=True)
class Bar:
    """A figure of a server, or its ratio to another server's, and its bound.

    :param over: the other server; empty for the figure itself.
    :param most: whether the bound is the most allowed, instead of the least.
    """

    text: str
    what: str
    figure: str
    server: str
    over: str
    bound: float
    most: bool = False

    def value(self, figures: Figures) -> float | None:
        """What was measured; None if it was not."""
        if self.over:
            return figures.ratio(self.what, self.figure, self.server, self.over)
        return figures.median(self.what, self.server, self.figure)

    def met(self, value: float) -> bool:
        """Whether that suffices."""
        compare: Callable[[float, float], bool] = operator.le if self.most else operator.ge
        return compare(value, self.bound)


def _speed(text: str, what: str, server: str, over: str, bound: float) -> Bar:
    figure = {"handshakes": "handshakes_per_s", "fanout": "deliveries_per_s"}
    return Bar(text, what, figure.get(what, "messages_per_s"), server, over, bound)


def _memory(text: str, server: str, bound: float) -> Bar:
    return Bar(text, "memory", "bytes", server, "", bound, most=True)


BARS = (
    _speed("task style, echo 32 B, 50: × uvicorn", SMALL, "wssup-task", "uvicorn", 1.3),
    _speed("task style, echo 32 B, 50: × trio-websocket", SMALL, "wssup-task", "trio-websocket", 5),
    _speed("task style, echo 32 B, 1000: × uvicorn", CROWD, "wssup-task", "uvicorn", 2),
    _speed("event style, echo 32 B, 50: × picows", SMALL, "wssup-event", "picows", 0.6),
    _speed("event style, echo 32 B, 1000: × picows", CROWD, "wssup-event", "picows", 0.8),
    _memory("task style, bytes per idle connection", "wssup-task", 5000),
    _memory("event style, bytes per idle connection", "wssup-event", 1600),
    _memory("event style, keep_headers = [], bytes", "wssup-event-trimmed", 800),
    _speed("task style, handshakes: × uvicorn", "handshakes", "wssup-task", "uvicorn", 3),
    _speed("event style, handshakes: × uvicorn", "handshakes", "wssup-event", "uvicorn", 3),
    _speed("event style, fan-out: × floor", "fanout", "wssup-event", "floor", 0.6),
)


def bars(figures: Figures) -> list[str]:
    """The table of the engine's bars."""
    return judged(figures, BARS)


def judged(figures: Figures, wanted: Sequence[Bar]) -> list[str]:
    """A table: each bar, what was measured, and whether it is met."""
    lines = ["### Bars", "", "| bar | bound | measured | |", "| --- | ---: | ---: | --- |"]
    for bar in wanted:
        value = bar.value(figures)
        bound = f"{'≤' if bar.most else '≥'} {number(bar.bound, ',.4g')}"
        if value is None:
            lines.append(f"| {bar.text} | {bound} | {MISSING} | not measured |")
        else:
            verdict = "met" if bar.met(value) else "**not met**"
            found = number(value, ",.0f" if bar.most and not bar.over else ".2f")
            lines.append(f"| {bar.text} | {bound} | {found} | {verdict} |")
    return [*lines, ""]
