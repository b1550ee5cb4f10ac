"""Build, install, measure in rounds, print."""

from __future__ import annotations

import sys
import time

from benchmarks.engine import held, machine, measures, native, options, peers, servers
from benchmarks.engine.bars import bars
from benchmarks.engine.figures import Figures
from benchmarks.engine.tables import tables

_CONDITIONS = (
    "- one worker each, no compression, no access log; a browser's handshake of about 700 bytes, "
    "masks drawn anew for each frame, echoes compared"
)
_ROUND = {
    ("echo",): measures.echo,
    ("handshakes",): measures.handshakes,
    ("fanout",): measures.fanout,
    ("memory", "pings"): held.idle,
    ("pauses",): held.pauses,
}


def main() -> int:
    """Measure what the options ask for; 1 if something could not be measured."""
    wanted = options.parsed()
    most = machine.prepared()
    if wanted.held > most - 500 and {"memory", "pings", "pauses"} & set(wanted.only):
        raise SystemExit(f"--held {wanted.held}: a process may have {most} descriptors here")
    native.build()
    used = {}
    if any(servers.BY_NAME[name].peer for name in wanted.servers):
        peers.install()
        used = peers.versions()
    figures = Figures()
    began = time.monotonic()
    company = machine.Company()
    for number in range(1, wanted.runs + 1):
        for whats, measure in _ROUND.items():
            if set(whats) & set(wanted.only):
                minutes = (time.monotonic() - began) / 60
                asked = ", ".join(what for what in whats if what in wanted.only)
                measures.told(f"run {number} of {wanted.runs}, {asked} ({minutes:.1f} min)")
                measure(wanted, figures)
    took = (
        f"- medians of {wanted.runs} interleaved runs, in {(time.monotonic() - began) / 60:.0f} "
        f"minutes, while others took {company.share():.0%} of the processors"
    )
    lines = _report(wanted, figures, [*machine.described(used), took])
    text = "\n".join(lines)
    print(text)
    if wanted.output:
        wanted.output.write_text(text + "\n")
    return 1 if figures.notes else 0


def _report(wanted: options.Options, figures: Figures, conditions: list[str]) -> list[str]:
    lines = ["## The engine beside its peers", "", *conditions, _CONDITIONS, ""]
    lines += tables(figures, wanted.held, held.PING_SECONDS)
    lines += bars(figures)
    if figures.notes:
        lines += ["### Not measured", "", *(f"- {note}" for note in figures.notes), ""]
    return lines[:-1]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
