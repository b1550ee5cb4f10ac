"""The command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.handoff import ours, peers

#: What is measured, in order, by name.
CASES = {
    ours.EVENT.name: "event style, 2 workers, --connections",
    ours.TASK.name: "task style, 2 workers, --connections",
    ours.MANY.name: "event style, 8 workers, --many connections",
    peers.OURS: "event style, 2 workers, --beside connections, all idle: to compare with peers",
    **{server.name: f"{server.title}, the same" for server in peers.SERVERS},
}
_EPILOG = """\
Every round reloads each server once, one after the other, so that what changes on the machine
changes for all; the tables show medians over the rounds. A full run takes about six minutes; to
iterate:

  python -m benchmarks.handoff --only wssup-event --runs 1
"""


@dataclass(frozen=True)
class Options:
    """What to measure.

    :param many_runs: of the case with the most connections, which takes a minute.
    :param connections: held by two workers; ``many`` by eight; ``beside`` by peers.
    :param talkers: how many of the first two kinds talk; ``think`` is in milliseconds.
    :param output: a file for the tables, besides standard output.
    """

    runs: int
    many_runs: int
    only: tuple[str, ...]
    connections: int
    many: int
    beside: int
    talkers: int
    think: int
    output: Path | None


def parsed(arguments: list[str] | None = None) -> Options:
    """The options given."""
    names = "\n".join(f"  {name:20} {text}" for name, text in CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.handoff",
        description="Reloads wssup and its peers with live connections, and prints markdown.",
        epilog=f"servers:\n{names}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds; default 3")
    parser.add_argument(
        "--many-runs", type=int, default=1, metavar="N", help="rounds of wssup-many; default 1"
    )
    parser.add_argument(
        "--only",
        type=_chosen,
        default=tuple(CASES),
        metavar="A,B",
        help="only these servers; default all",
    )
    numbers = (
        ("connections", 15_000, "live connections of two workers"),
        ("many", 100_000, "live connections of eight workers"),
        ("beside", 2000, "live connections of peers"),
        ("talkers", 500, "connections that talk during a reload of wssup"),
        ("think", 20, "milliseconds from an answer to the next text, on average"),
    )
    for name, default, text in numbers:
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{text}; default {default}"
        )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the tables there too")
    return Options(**vars(parser.parse_args(arguments)))


def _chosen(text: str) -> tuple[str, ...]:
    names = text.split(",")
    for name in names:
        if name not in CASES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(CASES)}")
    return tuple(name for name in CASES if name in names)
