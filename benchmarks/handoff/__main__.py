"""Build, install, reload in rounds, print."""

from __future__ import annotations

import math
import sys
import time

from benchmarks.engine import machine, native
from benchmarks.engine import peers as environment
from benchmarks.engine.figures import Figures
from benchmarks.engine.measures import told
from benchmarks.handoff import options, ours, peers
from benchmarks.handoff.tables import WHAT, tables

_CONDITIONS = """\
- wssup: {talkers} of the connections talk, mixed among the others: 32 B, the answer, {think} ms \
of thought on average ({longer} ms with 8 workers, which share the processors), and again. An \
answer says the number of the message from `ws.state` and the process. After the reload each idle \
connection has a message answered too: moved are those that another process answered than before
- a talker's pause is its longest round trip under way while connections moved (p50, p99, max over \
talkers); when an answer arrived is the kernel's time, whenever the client got to run
- settle = 1 s, all else default; {knocks} other clients connect and leave per second; memory is \
the PSS of all processes of the instance, without the kernel's for sockets
- peers: limits of connections raised, all else default; 1006 is an end without a close frame\
"""
_CASES = {case.name: case for case in (ours.EVENT, ours.TASK, ours.MANY)}


def main() -> int:
    """Measure what the options ask for; 1 if something could not be measured."""
    wanted = options.parsed()
    machine.prepared()
    native.build()
    used = {}
    if any(name in peers.BY_NAME for name in wanted.only):
        environment.install()
        used = environment.versions()
    figures = Figures()
    began = time.monotonic()
    company = machine.Company()
    for run in range(1, wanted.runs + 1):
        for name in wanted.only:
            if name == ours.MANY.name and run > wanted.many_runs:
                continue
            told(f"run {run} of {wanted.runs}, {name} ({(time.monotonic() - began) / 60:.1f} min)")
            _measure(name, wanted, figures)
    took = (
        f"- medians of {wanted.runs} interleaved runs ({_many_runs(wanted)} with "
        f"{wanted.many} connections), in {(time.monotonic() - began) / 60:.0f} minutes, while "
        f"others took {company.share():.0%} of the processors"
    )
    where = "servers and load on all of them, with the system's scheduling"
    lines = ["## A reload with live connections", "", *machine.described(used, where), took]
    longer = ours.thought(ours.MANY, wanted.think)
    how = _CONDITIONS.format(
        talkers=wanted.talkers, think=wanted.think, longer=longer, knocks=ours.KNOCKS
    )
    lines += [how, "", *tables(figures, wanted)]
    if figures.notes:
        lines += ["### Not measured", "", *(f"- {note}" for note in figures.notes), ""]
    text = "\n".join(lines[:-1])
    print(text)
    if wanted.output:
        wanted.output.write_text(text + "\n")
    return 1 if figures.notes else 0


def _many_runs(wanted: options.Options) -> int:
    return min(wanted.runs, wanted.many_runs)


def _measure(name: str, wanted: options.Options, figures: Figures) -> None:
    """Reload one server once; what fails becomes a note, and the others are measured anyway."""
    try:
        if name in _CASES:
            connections = wanted.many if name == ours.MANY.name else wanted.connections
            found = ours.measured(_CASES[name], connections, wanted.talkers, wanted.think)
            told(
                f"  {found['moved']:,.0f} moved, {found['moved_per_s']:,.0f}/s; "
                f"{found['disconnected']:,.0f} disconnected, {found['wrong']:,.0f} messages wrong; "
                f"pause p99 {found.get('pause_p99_ms', math.nan):.0f} ms"
            )
        else:
            found = peers.measured(name, wanted.beside)
            told(f"  {found['disconnected']:,.0f} disconnected, {found['seconds']:.1f} s")
    except (native.MeasureError, OSError, AssertionError) as error:
        told(f"  {name}: {error}")
        figures.note(WHAT, name, str(error).strip().splitlines()[-1])
    else:
        figures.add(WHAT, name, found)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
