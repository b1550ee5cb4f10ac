"""Measure how evenly connections are spread, print, judge. Six minutes.

Real instances of four workers, real handshakes. ``make bench-steering`` prints the tables.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine import machine
from benchmarks.engine.measures import told
from benchmarks.observing.bars import Bar
from benchmarks.steering import scenes
from benchmarks.steering.scenes import Figures, one_seed
from benchmarks.steering.servers import SERVERS, STALL_AFTER, WORKERS, serving

_CONDITIONS = f"""\
- {WORKERS} workers; one listener for all: gunicorn with the same engine in its workers, which \
share a listener; wssup, unix: the same, but workers with more than their part hold back
- storm: {scenes.STORM} connections from nothing, begun at {scenes.STORM_RATE:.0f}/s if the \
machine can; refill: a worker is killed, and when another stands in its place {scenes.REFILL} \
more are begun, {scenes.REFILL_RATE:.0f}/s; stall: a worker is stopped, and {scenes.STALLED} more \
are begun, {scenes.STALLED_RATE:.0f}/s
- figures are the most connections of a worker ÷ the mean of all (stall: of the others); served: \
from the moment at which the worker counts as stalled (stall_after, here \
{STALL_AFTER * 1e3:.0f} ms, after its last beat) until those that wait in its queue are answered \
by another and none is steered to it any more; taken by it later: connections that it still got\
"""
_STEERED, _HASHED = "wssup, least", "wssup, hash"


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steering", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="times each; default 20")
    parser.add_argument("--only", nargs="+", choices=SERVERS, default=list(SERVERS), help="servers")
    parser.add_argument("--output", type=Path, help="a file for the tables, besides the screen")
    options = parser.parse_args()
    machine.prepared()
    company, began = machine.Company(), time.monotonic()
    found: dict[str, Figures] = {}
    for name in options.only:
        figures = found[name] = {}
        with serving(name) as server:
            for seed in range(1, options.seeds + 1):
                told(f"{name}, {seed} of {options.seeds}")
                one_seed(server, figures)
    took = (
        f"- medians of {options.seeds} seeds (and the greatest), in {time.monotonic() - began:.0f} "
        f"s, while others took {company.share():.0%} of the processors"
    )
    where = "all processes on all of them"
    lines = ["## How evenly connections are spread", ""]
    lines += [text for text in machine.described({}, where) if not text.startswith("- peers")]
    lines += [took, _CONDITIONS, "", *_table(found), ""]
    bars = _bars(found)
    lines += ["### Bars", "", "| bar | bound | measured | |", "| --- | ---: | ---: | --- |"]
    lines += [
        f"| {b.text} | ≤ {b.bound:g} | {b.value:.3g} | {'met' if b.met else '**not met**'} |"
        for b in bars
    ]
    text = "\n".join(lines)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 0 if all(bar.met for bar in bars) else 1


def _cell(values: Sequence[float] | None, form: str) -> str:
    if not values:
        return "–"
    return f"{statistics.median(values):{form}} ({max(values):{form}})"


def _table(found: dict[str, Figures]) -> list[str]:
    columns = (
        ("storm", ".3f"),
        ("refill", ".3f"),
        ("stall", ".3f"),
        ("stall, ms", ".0f"),
        ("stall, taken by it", ".0f"),
        ("storm, connections/s", ",.0f"),
        ("refill, connections/s", ",.0f"),
    )
    head = "storm | refill | stall | served, ms | taken by it later | storm's connections/s"
    lines = [
        f"| server | {head} | refill's |",
        f"| --- |{' ---: |' * len(columns)}",
    ]
    for name, figures in found.items():
        cells = " | ".join(_cell(figures.get(key), form) for key, form in columns)
        lines.append(f"| {name} | {cells} |")
    return lines


def _bars(found: dict[str, Figures]) -> list[Bar]:
    wanted = []
    for name, text, key, bound in (
        (_STEERED, "refill", "refill", 1.05),
        (_STEERED, "storm", "storm", 1.03),
        (_STEERED, "the queue of a stalled worker is served, ms", "stall, ms", 300),
    ):
        if name in found:
            wanted.append(Bar(text, statistics.median(found[name][key]), bound, most=True))
    if _HASHED in found and _STEERED in found:
        ratio = statistics.median(found[_STEERED]["refill"]) / statistics.median(
            found[_HASHED]["refill"]
        )
        wanted.append(Bar("refill, ÷ that of the hash", ratio, 1.0, most=True))
    return wanted


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
