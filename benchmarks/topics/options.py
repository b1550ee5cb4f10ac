"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.topics.servers import BY_NAME

MEASUREMENTS = {
    "room": "one publisher to all subscribers of one topic",
    "rooms": "200 publishers to 1000 topics that the subscribers share",
}
_EPILOG = """\
Every round measures each server once, one after the other, so that what changes on the machine
changes for all; the tables show medians over the rounds. All processes of a server run on the first
processor, the clients on the second. Only time counts in which both were as fast as they can be, so
that a full run takes eleven minutes, and up to 40 where the host slows the machine. To iterate:

  python -m benchmarks.topics --only room --servers floor,wssup --runs 1
"""


@dataclass(frozen=True)
class Options:
    """What to measure.

    :param seconds: that count per figure, after a warm-up of a quarter of it.
    :param subscribers: connections with one topic each.
    :param output: a file for the tables, besides standard output.
    """

    runs: int
    only: tuple[str, ...]
    servers: tuple[str, ...]
    seconds: float
    subscribers: int
    output: Path | None


def parsed(arguments: list[str] | None = None) -> Options:
    """The options given."""
    names = "\n".join(f"  {server.name:20} {server.title}" for server in BY_NAME.values())
    whats = "\n".join(f"  {name:20} {text}" for name, text in MEASUREMENTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.topics",
        description="Measures topics beside peers and a C loop of send(), and prints markdown.",
        epilog=f"measurements:\n{whats}\n\nservers:\n{names}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds; default 3")
    for name, known in (("only", MEASUREMENTS), ("servers", BY_NAME)):
        parser.add_argument(
            f"--{name}",
            type=_among(known),
            default=tuple(known),
            metavar="A,B",
            help="only these; default all. Ratios need the servers that they refer to",
        )
    parser.add_argument(
        "--seconds", type=float, default=4.0, metavar="S", help="per figure; default 4"
    )
    parser.add_argument(
        "--subscribers", type=int, default=10_000, metavar="N", help="in all; default 10000"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the tables there too")
    return Options(**vars(parser.parse_args(arguments)))


def _among(known: Mapping[str, object]) -> Callable[[str], tuple[str, ...]]:
    """A type of option: names from those known, in their order."""

    def chosen(text: str) -> tuple[str, ...]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return tuple(name for name in known if name in names)

    return chosen
