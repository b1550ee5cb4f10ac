"""Build, install, measure in rounds, print."""

from __future__ import annotations

import sys
import time

from benchmarks.engine import machine, native, peers
from benchmarks.engine.figures import Figures
from benchmarks.engine.measures import told
from benchmarks.engine.pace import Pace
from benchmarks.topics import options
from benchmarks.topics.measures import FLYING, MEASURES, SIZE
from benchmarks.topics.servers import BY_NAME
from benchmarks.topics.tables import tables

_CONDITIONS = f"""\
- messages of {SIZE} B, each checked at each subscriber; as fast as it goes: 2 on their way at any \
time (one topic) or {FLYING} (many); times are from a client's publishing to the arrival at a \
client, with one message at a time (one topic) or at half of that speed (many); another worker is \
another than the publisher's
- all processes of a server share one processor, two workers of wssup too, so that all have the \
same; on both: two workers and the clients share the two. No compression, no access log\
"""


def main() -> int:
    """Measure what the options ask for; 1 if something could not be measured."""
    wanted = options.parsed()
    most = machine.prepared()
    if wanted.subscribers > most - 500:
        raise SystemExit(f"--subscribers {wanted.subscribers}: a process may have {most} files")
    native.build()
    used = {}
    if any(BY_NAME[name].peer for name in wanted.servers):
        peers.install()
        used = peers.versions()
    figures = Figures()
    began = time.monotonic()
    company = machine.Company()
    pace = Pace()
    with machine.favoured() as standing:
        for run in range(1, wanted.runs + 1):
            for what in wanted.only:
                minutes = (time.monotonic() - began) / 60
                told(f"run {run} of {wanted.runs}, {what} ({minutes:.1f} min)")
                MEASURES[what](wanted, figures, pace)
    took = (
        f"- medians of {wanted.runs} interleaved runs, in {(time.monotonic() - began) / 60:.0f} "
        f"minutes, while others took {company.share():.0%} of the processors"
    )
    lines = ["## A message to many", "", *machine.described(used), took, pace.told(), standing]
    lines += [_CONDITIONS, ""]
    lines += tables(figures, wanted)
    if figures.notes:
        lines += ["### Not measured", "", *(f"- {note}" for note in figures.notes), ""]
    text = "\n".join(lines[:-1])
    print(text)
    if wanted.output:
        wanted.output.write_text(text + "\n")
    return 1 if figures.notes else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
