"""The figures as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.engine.figures import Figures
from benchmarks.engine.servers import SERVERS, Server

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column: a figure by name, or, with ``over``, its ratio to another server's."""

    title: str
    figure: str
    form: str = ",.0f"
    over: str = ""

    def cell(self, figures: Figures, what: str, server: str) -> str:
        """The median as text."""
        if self.over:
            value = figures.ratio(what, self.figure, server, self.over)
        else:
            value = figures.median(what, server, self.figure)
        return number(value, self.form)


@dataclass(frozen=True)
class Spread(Column):
    """How far the runs differ: half their range, as a share of the median."""

    def cell(self, figures: Figures, what: str, server: str) -> str:
        """The share in per cent."""
        return number(figures.spread(what, server, self.figure), ".0%")


def number(value: float | None, form: str) -> str:
    """A number as text, thousands set apart by narrow spaces; a dash if there is none."""
    return MISSING if value is None else format(value, form).replace(",", "\u202f")


def main_figure(title: str, figure: str, form: str = ",.0f") -> tuple[Column, ...]:
    """A figure and how far its runs differ."""
    return Column(title, figure, form), Spread("±", figure)


def over(figure: str) -> tuple[Column, ...]:
    """The ratios of a figure to the floor's and the two peers' that bars are set against."""
    return tuple(
        Column(f"÷ {name}", figure, ".2f", name) for name in ("floor", "picows", "uvicorn")
    )


_ECHO = (
    *main_figure("messages/s", "messages_per_s"),
    *over("messages_per_s"),
    Column("p50 µs", "p50_us"),
    Column("p99 µs", "p99_us"),
    Column("server's CPU µs per message", "server_cpu_us", ".2f"),
    Column("load's CPU", "load_cpu", ".0%"),
)
_HANDSHAKES = (
    *main_figure("handshakes/s", "handshakes_per_s"),
    *over("handshakes_per_s"),
    Column("p50 µs", "p50_us"),
    Column("p99 µs", "p99_us"),
    Column("server's CPU µs each", "server_cpu_us"),
    Column("load's CPU", "load_cpu", ".0%"),
)
_FANOUT = (
    *main_figure("ms until all have it", "median_ms", ".1f"),
    Column("deliveries/s", "deliveries_per_s"),
    *over("deliveries_per_s"),
    Column("server's CPU µs each", "server_cpu_us", ".2f"),
)
_MEMORY = (
    *main_figure("bytes per connection", "bytes"),
    Column("÷ uvicorn", "bytes", ".3f", "uvicorn"),
    Column("MiB without connections", "base", ".1f"),
)
_PINGS = (
    *main_figure("CPU seconds per second", "cpu_share", ".4f"),
    Column("pings/s", "pings_per_s"),
    Column("bytes per connection that pinging adds", "bytes"),
)
_PAUSES = (
    *main_figure("longest ms", "longest_ms", ".1f"),
    Column("p99 ms", "p99_ms", ".2f"),
    Column("probes/s", "probes_per_s"),
    Column("handshakes/s beside", "handshakes_per_s"),
)


def table(
    figures: Figures, what: str, columns: Sequence[Column], servers: Sequence[Server] = SERVERS
) -> list[str]:
    """One table: a row per server that has figures."""
    measured = figures.measured(what)
    rows = [["server", *(column.title for column in columns)]]
    rows.append(["---"] + ["---:"] * len(columns))
    rows += [
        [server.title, *(column.cell(figures, what, server.name) for column in columns)]
        for server in servers
        if server.name in measured
    ]
    return ["| " + " | ".join(row) + " |" for row in rows]


def tables(figures: Figures, held: int, ping_seconds: float) -> list[str]:
    """All tables that there are figures for, under their headings."""
    parts: list[tuple[str, str, Sequence[Column]]] = []
    for what in figures.kinds("echo "):
        _, size, connections = what.split()
        length = "16 B to 16 KiB" if size == "mix" else f"{size} B"
        parts.append((f"Echo of {length}, {connections} connections", what, _ECHO))
    parts += [
        ("Handshakes, closed again with a close frame, 50 at a time", "handshakes", _HANDSHAKES),
        ("One message of 128 B to 5000 connections", "fanout", _FANOUT),
        (f"Memory (PSS) of {held} idle connections", "memory", _MEMORY),
        (f"Heartbeat of {held} idle connections, over {ping_seconds:g} s", "pings", _PINGS),
        (f"Probes each millisecond beside {held} idle connections", "pauses", _PAUSES),
    ]
    lines = []
    for heading, what, columns in parts:
        if figures.measured(what):
            lines += [f"### {heading}", "", *table(figures, what, columns), ""]
    return lines
