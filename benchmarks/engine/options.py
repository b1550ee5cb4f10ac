"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine.servers import BY_NAME, SERVERS

MEASUREMENTS = {
    "echo": "messages/s, latency and CPU per message, one message in flight per connection",
    "handshakes": "connections opened and closed again per second, 50 at a time",
    "fanout": "one message to 5000 connections",
    "memory": "bytes (PSS) of the serving process per idle connection",
    "pings": "CPU of the heartbeat of idle connections, and pings seen, over 40 s",
    "pauses": "the longest round trip of a probe each millisecond, beside idle connections and 300 "
    "that come and go per second",
}
_EPILOG = """\
Every round measures each server once, one after the other, so that what changes on the machine
changes for all; the tables show medians over the rounds. Servers run on the first processor, the
load on the second. A full run takes about twenty minutes; to iterate:

  python -m benchmarks.engine --only echo --servers floor,wssup-task,uvicorn --sizes 32 \\
      --connections 50 --runs 1
  python -m benchmarks.engine --only memory --servers wssup-task,wssup-event --runs 1
"""


@dataclass(frozen=True)
class Options:
    """What to measure.

    :param seconds: measured per echo and handshakes figure, after a warm-up of a quarter of it.
    :param sizes: of the texts, in bytes, or ``mix``.
    :param connections: of the echo.
    :param held: idle connections of memory, pings and pauses.
    :param output: a file for the tables, besides standard output.
    """

    runs: int
    only: tuple[str, ...]
    servers: tuple[str, ...]
    seconds: float
    sizes: tuple[str, ...]
    connections: tuple[int, ...]
    held: int
    output: Path | None


def parsed(arguments: list[str] | None = None) -> Options:
    """The options given."""
    names = "\n".join(f"  {server.name:20} {server.title}" for server in SERVERS)
    whats = "\n".join(f"  {name:20} {text}" for name, text in MEASUREMENTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description="Measures wssup's engine beside its peers and a C floor, and prints markdown.",
        epilog=f"measurements:\n{whats}\n\nservers:\n{names}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds; default 3")
    parser.add_argument(
        "--only",
        type=_among(MEASUREMENTS),
        default=tuple(MEASUREMENTS),
        metavar="A,B",
        help="measure only these; default all",
    )
    parser.add_argument(
        "--servers",
        type=_among(BY_NAME),
        default=tuple(BY_NAME),
        metavar="A,B",
        help="only these servers; default all. Ratios need the servers they refer to",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        metavar="S",
        help="measured per figure of echo and handshakes, after a quarter of it to warm up; "
        "default 2",
    )
    parser.add_argument(
        "--sizes",
        type=lambda text: tuple(text.split(",")),
        default=("32", "1024", "mix"),
        metavar="N,N",
        help="echo: bytes of each text, at most 16384, or mix (16 B to 16 KiB, even by logarithm); "
        "default 32,1024,mix",
    )
    parser.add_argument(
        "--connections",
        type=lambda text: tuple(map(int, text.split(","))),
        default=(50, 1000),
        metavar="N,N",
        help="echo: how many; default 50,1000",
    )
    parser.add_argument(
        "--held",
        type=int,
        default=15000,
        metavar="N",
        help="memory, pings, pauses: idle connections; default 15000",
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
