"""The figures as markdown, and what they must reach."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.engine.figures import Figures
from benchmarks.engine.tables import MISSING, number
from benchmarks.handoff import ours, peers
from benchmarks.handoff.options import Options

#: The one kind of figure; names of servers tell the rest.
WHAT = "reload"
_PEERS = {peers.OURS: "wssup", **{server.name: server.title for server in peers.SERVERS}}


@dataclass(frozen=True)
class Bar:
    """What a figure of a server must reach.

    :param most: whether the bound is the most allowed, instead of the least.
    """

    text: str
    server: str
    figure: str
    bound: float
    most: bool = True


BARS = (
    Bar("event style, {connections}: clients disconnected", "wssup-event", "disconnected", 0),
    Bar("task style, {connections}: clients disconnected", "wssup-task", "disconnected", 0),
    Bar("event style, {many}: clients disconnected", "wssup-many", "disconnected", 0),
    Bar("event style, {connections}: messages lost, doubled, reordered", "wssup-event", "wrong", 0),
    Bar("task style, {connections}: messages lost, doubled, reordered", "wssup-task", "wrong", 0),
    Bar("event style, {many}: messages lost, doubled, reordered", "wssup-many", "wrong", 0),
    Bar("event style, {connections}: p99 pause, ms", "wssup-event", "pause_p99_ms", 150),
    Bar("task style, {connections}: p99 pause, ms", "wssup-task", "pause_p99_ms", 150),
    Bar("event style, {connections}: moved/s", "wssup-event", "moved_per_s", 5000, most=False),
    Bar("task style, {connections}: moved/s", "wssup-task", "moved_per_s", 5000, most=False),
    Bar("event style, {many}: moved/s", "wssup-many", "moved_per_s", 5000, most=False),
)

#: Columns: their titles, the figures of each, and their form.
_Columns = tuple[tuple[str, tuple[str, ...], str], ...]
_CLIENTS: _Columns = (
    ("moved; as wssup counts", ("moved", "moved_counted"), ",.0f"),
    ("disconnected", ("disconnected",), ",.0f"),
    ("answers", ("answers",), ",.0f"),
    ("lost, doubled, reordered", ("lost", "doubled", "reordered"), ",.0f"),
    ("state lost", ("miscounted",), ",.0f"),
    ("usual round trip, ms", ("usual_ms",), ",.1f"),
    ("pause p50, p99, max, ms", ("pause_p50_ms", "pause_p99_ms", "pause_max_ms"), ",.0f"),
    ("p99 beyond the usual, ms", ("added_p99_ms",), ",.0f"),
    ("p99, max of all the reload, ms", ("reload_p99_ms", "reload_max_ms"), ",.0f"),
    ("connects refused", ("not_let_in", "knocks"), ",.0f"),
)
_SERVER: _Columns = (
    ("moved/s", ("moved_per_s",), ",.0f"),
    ("moved/s as clients saw it", ("seen_moved_per_s",), ",.0f"),
    ("p99 pause as wssup says, ms", ("told_p99_ms",), ",.0f"),
    ("moving, s", ("moving_s",), ",.2f"),
    ("the whole reload, s", ("seconds",), ",.1f"),
    ("answers/s before", ("answers_per_s",), ",.0f"),
    ("MiB before", ("before_mib",), ",.0f"),
    ("MiB at most", ("most_mib",), ",.0f"),
    ("MiB after", ("after_mib",), ",.0f"),
)


def tables(figures: Figures, options: Options) -> list[str]:
    """All tables that there are figures for, and the bars."""
    mine = [case for case in (ours.EVENT, ours.TASK, ours.MANY) if _has(figures, case.name)]
    lines: list[str] = []
    if mine:
        names = {
            case.name: f"{case.title}; {case.workers} workers, "
            f"{_median(figures, case.name, 'live')} connections"
            for case in mine
        }
        lines += ["### Reload of wssup, as clients see it", ""]
        lines += [*_table(figures, names, _CLIENTS), ""]
        lines += ["### Reload of wssup, as the machine sees it", ""]
        lines += [*_table(figures, names, _SERVER), ""]
    if any(_has(figures, name) for name in _PEERS):
        heading = f"SIGHUP with {number(options.beside, ',')} idle connections, "
        lines += [f"### {heading}{peers.WORKERS} workers", "", *_beside(figures), ""]
    return lines + _bars(figures, options)


def _has(figures: Figures, server: str) -> bool:
    return server in figures.measured(WHAT)


def _median(figures: Figures, server: str, name: str, form: str = ",.0f") -> str:
    return number(figures.median(WHAT, server, name), form)


def _lines(titles: list[str], rows: list[list[str]]) -> list[str]:
    head = [titles, ["---"] + ["---:"] * (len(titles) - 1)]
    return ["| " + " | ".join(row) + " |" for row in head + rows]


def _table(figures: Figures, names: dict[str, str], columns: _Columns) -> list[str]:
    rows = [
        [
            title,
            *(
                (" of " if parts[-1] == "knocks" else ", ").join(
                    _median(figures, server, part, form) for part in parts
                )
                for _, parts, form in columns
            ),
        ]
        for server, title in names.items()
    ]
    return _lines(["server", *(title for title, _, _ in columns)], rows)


def _beside(figures: Figures) -> list[str]:
    titles = ["server", "clients disconnected", "with code", "last of them after, s"]
    titles += ["old workers gone after, s", "connects refused", "slowest connect, ms"]
    rows = []
    for server, title in _PEERS.items():
        if not _has(figures, server):
            continue
        codes = {str(code): _codes(figures, server, str(code)) for code in (*peers.CODES, "other")}
        told = ", ".join(f"{code}: {number(n, ',.0f')}" for code, n in codes.items() if n)
        rows.append(
            [
                title,
                f"{_median(figures, server, 'disconnected')} of {_median(figures, server, 'live')}",
                told or MISSING,
                _median(figures, server, "last_s", ".1f") if told else MISSING,
                _median(figures, server, "seconds", ".1f"),
                f"{_median(figures, server, 'not_let_in')} of {_median(figures, server, 'knocks')}",
                _median(figures, server, "slowest_connect_ms"),
            ]
        )
    return _lines(titles, rows)


def _codes(figures: Figures, server: str, code: str) -> float:
    return figures.median(WHAT, server, f"code {code}") or 0.0


def _bars(figures: Figures, options: Options) -> list[str]:
    lines = ["### Bars", "", "| bar | bound | measured | |", "| --- | ---: | ---: | --- |"]
    counts = {name: number(getattr(options, name), ",") for name in ("connections", "many")}
    for bar in BARS:
        # None of anything may go wrong in any run, so of those the worst counts.
        worst = bar.most and not bar.bound
        value = (figures.highest if worst else figures.median)(WHAT, bar.server, bar.figure)
        text = bar.text.format(**counts)
        bound = f"{'≤' if bar.most else '≥'} {number(bar.bound, ',.4g')}"
        if value is None:
            lines.append(f"| {text} | {bound} | {MISSING} | not measured |")
            continue
        compare: Callable[[float, float], bool] = operator.le if bar.most else operator.ge
        verdict = "met" if compare(value, bar.bound) else "**not met**"
        lines.append(f"| {text} | {bound} | {number(value, ',.0f')} | {verdict} |")
    return [*lines, ""]
