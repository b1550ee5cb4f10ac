"""One round of each measurement that lasts seconds: echo, handshakes, fan-out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.engine.figures import Figures
from benchmarks.engine.machine import quiet
from benchmarks.engine.native import MeasureError, load
from benchmarks.engine.options import Options
from benchmarks.engine.servers import BY_NAME, Running, Server, serving

#: Handshakes that are in progress at the same time.
AT_A_TIME = 50
#: Whom a fan-out reaches, how often, and the bytes of its text.
RECEIVERS, FANOUTS, FANOUT_BYTES = 5000, 20, 128


def told(text: str) -> None:
    """A progress line."""
    print(text, file=sys.stderr, flush=True)


def chosen(options: Options, what: str) -> list[Server]:
    """The servers that this is measured of."""
    servers = [BY_NAME[name] for name in options.servers]
    return [s for s in servers if not s.only or what in s.only]


@contextmanager
def attempt(figures: Figures, what: str, server: Server) -> Iterator[None]:
    """What fails becomes a note: the other servers are measured all the same."""
    try:
        yield
    except (MeasureError, OSError, AssertionError) as error:
        told(f"  {server.name}: {error}")
        figures.note(what, server.name, str(error).strip().splitlines()[-1])


def started(
    stack: ExitStack, options: Options, figures: Figures, what: str, app: str = "echo"
) -> list[Running]:
    """Start every server that this is measured of: side by side, but only one at a time is busy."""
    running = []
    for server in chosen(options, what):
        with attempt(figures, what, server):
            running.append(stack.enter_context(serving(server, app)))
    return running


def echo(options: Options, figures: Figures) -> None:
    """Each size and number of connections, and of these each server in turn."""
    with ExitStack() as stack:
        running = started(stack, options, figures, "echo")
        for connections in options.connections:
            for size in options.sizes:
                what = f"echo {size} {connections}"
                for server in running:
                    with attempt(figures, what, server.server):
                        found = load(
                            "echo",
                            server.port,
                            options.seconds,
                            warmup=options.seconds / 4,
                            connections=connections,
                            size=size,
                            pid=server.pid,
                        )
                        quiet(server.pid)
                        figures.add(what, server.server.name, found)
                        told(f"  {what}, {server.server.name}: {found['messages_per_s']:,.0f}/s")


def handshakes(options: Options, figures: Figures) -> None:
    """Open, say goodbye with a close frame, and again."""
    with ExitStack() as stack:
        for server in started(stack, options, figures, "handshakes"):
            with attempt(figures, "handshakes", server.server):
                found = load(
                    "handshakes",
                    server.port,
                    options.seconds,
                    warmup=options.seconds / 4,
                    connections=AT_A_TIME,
                    pid=server.pid,
                )
                quiet(server.pid)
                figures.add("handshakes", server.server.name, found)
                told(f"  handshakes, {server.server.name}: {found['handshakes_per_s']:,.0f}/s")


def fanout(options: Options, figures: Figures) -> None:
    """One connection says go; from there until all of them have the message."""
    for server in chosen(options, "fanout"):
        with attempt(figures, "fanout", server), serving(server, "fanout") as running:
            found = load(
                "fanout",
                running.port,
                connections=RECEIVERS,
                rounds=FANOUTS,
                size=FANOUT_BYTES,
                pid=running.pid,
            )
            figures.add("fanout", server.name, found)
            told(f"  fanout, {server.name}: {found['median_ms']:.1f} ms")
