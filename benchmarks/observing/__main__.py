"""Measure, print, judge. Two minutes.

Real instances, a client on the status socket. ``make bench-observing`` prints the tables.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.engine import machine, native
from benchmarks.observing.client import DASHBOARDS
from benchmarks.observing.echo import CONNECTIONS, SECONDS, SIZE, watched_echo
from benchmarks.observing.slots import APART, HELD, SLOTS, many_slots

_CONDITIONS = """\
- {slots} slots: {held} idle connections; one client on the status socket asks, waits for the \
answer, pauses {pause:.0f} ms, and asks again
- echo: event style, {connections} connections, {size} B; watched means a scrape each second and \
{dashboards} clients of /events; {runs} rounds of {seconds:.0f} s each\
"""


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observing", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="rounds of echo; default 7")
    parser.add_argument("--output", type=Path, help="a file for the tables, besides the screen")
    options = parser.parse_args()
    machine.prepared()
    native.build()
    company, began = machine.Company(), time.monotonic()
    slots, bars = many_slots()
    echo, more = watched_echo(options.runs)
    bars += more
    where = "with 64 slots all of them; with one worker the instance on one, the load on another"
    others = f"while others took {company.share():.0%} of the processors"
    took = f"- in {time.monotonic() - began:.0f} s, {others}"
    lines = [
        "## What it costs to be seen",
        "",
        *(line for line in machine.described({}, where) if not line.startswith("- peers")),
        took,
        _CONDITIONS.format(
            slots=SLOTS,
            held=HELD,
            pause=1e3 * APART,
            connections=CONNECTIONS,
            size=SIZE,
            dashboards=DASHBOARDS,
            runs=options.runs,
            seconds=SECONDS,
        ),
        "",
        f"### {SLOTS} slots",
        "",
        *slots,
        "### Echo",
        "",
        *echo,
        "### Bars",
        "",
        "| what | measured | bar | |",
        "| --- | ---: | ---: | --- |",
        *(
            f"| {bar.text} | {bar.value:.3g} | {'<' if bar.most else '≥'} {bar.bound:g} |"
            f" {'met' if bar.met else '**missed**'} |"
            for bar in bars
        ),
    ]
    text = "\n".join(lines)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
