"""One round of what is measured with many idle connections: memory, pings, pauses."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.engine.figures import Figures
from benchmarks.engine.machine import anonymous, cpu_seconds
from benchmarks.engine.measures import attempt, chosen, told
from benchmarks.engine.native import Held, holding, load
from benchmarks.engine.options import Options
from benchmarks.engine.servers import Running, serving
from tests.harness.processes import pss

#: Connections that a server opens and closes before its memory is measured.
WARMING = 400
#: Seconds until what a server does after opening connections is done.
SETTLED = 3.0
#: Seconds that pings are watched for: two rounds of a heartbeat of 20 s exactly, so that it does
#: not matter where in its round it is.
PING_SECONDS = 40.0
#: Seconds that pauses are watched for: one round of that heartbeat at least.
PAUSE_SECONDS = 22.0
#: Connections that come and go each second meanwhile.
PASSERS = 300
#: Whose pings cost is of interest, and whose pauses: wssup's and, to compare, the peers' that a
#: run has time for.
PINGS = ("wssup-event", "wssup-task", "uvicorn")
PAUSES = ("wssup-event", "wssup-task", "uvicorn")


def idle(options: Options, figures: Figures) -> None:
    """Memory of each server in turn; of those whose pings count, the connections stay, and all
    of them are watched at the same time: they are busy for moments only.
    """
    memory, pings = "memory" in options.only, "pings" in options.only
    what = "memory" if memory else "pings"
    with ExitStack() as stack:
        watched: list[_Watched] = []
        for server in chosen(options, what):
            if server.name == "floor" or (not memory and server.name not in PINGS):
                continue
            with attempt(figures, what, server), ExitStack() as own:
                running = own.enter_context(serving(server))
                load("handshakes", running.port, 30, count=WARMING)
                time.sleep(SETTLED / 2)
                before = pss(running.pid)
                held = own.enter_context(holding(running.port, options.held))
                time.sleep(SETTLED)
                held.intact()
                each = (pss(running.pid) - before) / options.held
                if memory:
                    found = {"bytes": each, "base": before / 1024 / 1024}
                    figures.add("memory", server.name, found)
                    told(f"  memory, {server.name}: {each:,.0f} bytes per connection")
                if pings and server.name in PINGS:
                    watched.append(_Watched(running, held, anonymous(running.pid)))
                    stack.enter_context(own.pop_all())
        if watched:
            _pings(watched, options.held, figures)


@dataclass(frozen=True)
class _Watched:
    """A server with idle connections.

    :param bytes: its anonymous memory before the first ping.
    """

    running: Running
    held: Held
    bytes: int


def _pings(watched: list[_Watched], connections: int, figures: Figures) -> None:
    told(f"  pings of {', '.join(one.running.server.name for one in watched)} …")
    at_first = [_counted(one.running, one.held) for one in watched]
    time.sleep(PING_SECONDS)
    for one, before in zip(watched, at_first, strict=True):
        server, pid = one.running.server, one.running.pid
        with attempt(figures, "pings", server):
            now, cpu, pings = _counted(one.running, one.held)
            one.held.intact()
            seconds = now - before[0]
            found = {
                "cpu_share": (cpu - before[1]) / seconds,
                "pings_per_s": (pings - before[2]) / seconds,
                "bytes": (anonymous(pid) - one.bytes) / connections,
            }
            figures.add("pings", server.name, found)
            told(f"  pings, {server.name}: {found['cpu_share']:.4f} CPU s/s")


def _counted(running: Running, held: Held) -> tuple[float, float, int]:
    """The time, processor seconds of the server, and pings that came, all so far."""
    return time.monotonic(), cpu_seconds(running.pid), held.pings()


def pauses(options: Options, figures: Figures) -> None:
    """The longest wait of a client beside many idle ones."""
    for server in chosen(options, "pauses"):
        if server.name not in PAUSES:
            continue
        with (
            attempt(figures, "pauses", server),
            serving(server) as running,
            holding(running.port, options.held),
        ):
            time.sleep(SETTLED)
            found = load("pauses", running.port, PAUSE_SECONDS, rate=PASSERS)
            figures.add("pauses", server.name, found)
            told(f"  pauses, {server.name}: longest {found['longest_ms']:.1f} ms")
