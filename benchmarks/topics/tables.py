"""The figures as markdown, and what they must reach."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.engine.bars import Bar
from benchmarks.engine.figures import Figures
from benchmarks.engine.tables import MISSING, Column, main_figure, number
from benchmarks.topics.measures import ROOM, ROOMS, TOPICS
from benchmarks.topics.options import Options
from benchmarks.topics.servers import BOTH, FLOOR, OURS, SERVERS

_SPEED = (
    *main_figure("deliveries/s", "deliveries_per_s"),
    Column("÷ uvicorn", "deliveries_per_s", ".2f", "uvicorn"),
    *main_figure("per second of a core", "per_cpu_s"),
    Column("÷ C loop", "per_cpu_s", ".2f", FLOOR),
)
_LOAD = (
    Column("server's CPU", "server_cpu", ".0%"),
    Column("clients' CPU", "load_cpu", ".0%"),
)
_ROOM = (
    *_SPEED,
    Column("p50 ms until all have it", "last_p50_ms", ",.1f"),
    Column("p99 ms", "last_p99_ms", ",.1f"),
    *_LOAD,
)
_ROOMS = (
    *_SPEED,
    Column("messages/s at half load", "half_rate"),
    Column("p50 ms", "each_p50_ms", ",.2f"),
    Column("p99 ms", "each_p99_ms", ",.2f"),
    Column("p99 ms until all have it", "last_p99_ms", ",.2f"),
    Column("other worker p50 ms", "cross_p50_ms", ",.2f"),
    Column("other worker p99 ms", "cross_p99_ms", ",.2f"),
    Column("the same at any pace", "cross_p99_whole_ms", ",.2f"),
    *_LOAD,
)
_OVER_FLOOR = "deliveries per second of a core: × C loop"
BARS = (
    Bar(f"one topic, {_OVER_FLOOR}", ROOM, "per_cpu_s", OURS, FLOOR, 0.6),
    Bar(f"{TOPICS} topics, {_OVER_FLOOR}", ROOMS, "per_cpu_s", OURS, FLOOR, 0.6),
    Bar(
        "one topic, 2 workers on both: × uvicorn",
        ROOM,
        "deliveries_per_s",
        BOTH,
        "uvicorn",
        2,
    ),
    Bar(f"{TOPICS} topics, the same", ROOMS, "deliveries_per_s", BOTH, "uvicorn", 2),
    Bar("p99 ms to another worker, half load", ROOMS, "cross_p99_ms", OURS, "", 5, most=True),
    Bar("the same, 2 workers on both", ROOMS, "cross_p99_ms", BOTH, "", 5, most=True),
)


def tables(figures: Figures, options: Options) -> list[str]:
    """All tables that there are figures for, and the bars."""
    each = options.subscribers // TOPICS
    crowd = number(options.subscribers, ",")
    parts: list[tuple[str, str, Sequence[Column]]] = [
        (f"One publisher to {crowd} subscribers of one topic", ROOM, _ROOM),
        (f"200 publishers to {TOPICS} topics of {each} subscribers", ROOMS, _ROOMS),
    ]
    lines = []
    for heading, what, columns in parts:
        if figures.measured(what):
            lines += [f"### {heading}", "", *_table(figures, what, columns), ""]
    return lines + _bars(figures)


def _table(figures: Figures, what: str, columns: Sequence[Column]) -> list[str]:
    measured = figures.measured(what)
    rows = [["server", *(column.title for column in columns)]]
    rows.append(["---"] + ["---:"] * len(columns))
    rows += [
        [server.title, *(column.cell(figures, what, server.name) for column in columns)]
        for server in SERVERS
        if server.name in measured
    ]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _bars(figures: Figures) -> list[str]:
    lines = ["### Bars", "", "| bar | bound | measured | |", "| --- | ---: | ---: | --- |"]
    for bar in BARS:
        value = bar.value(figures)
        bound = f"{'≤' if bar.most else '≥'} {number(bar.bound, ',.4g')}"
        if value is None:
            lines.append(f"| {bar.text} | {bound} | {MISSING} | not measured |")
        else:
            verdict = "met" if bar.met(value) else "**not met**"
            lines.append(f"| {bar.text} | {bound} | {number(value, ',.2f')} | {verdict} |")
    return [*lines, ""]
