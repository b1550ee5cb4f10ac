"""What is done to a server, once for each seed."""

from __future__ import annotations

import math
import os
import signal
import statistics
import time

from benchmarks.steering.clients import Client, Crowd
from benchmarks.steering.servers import STALL_AFTER, Server, Wssup

__all__ = ["REFILL", "REFILL_RATE", "STALLED", "STALLED_RATE", "STORM", "STORM_RATE", "one_seed"]

#: Connections, and how many are begun a second.
STORM, STORM_RATE = 4000, 10_000.0
REFILL, REFILL_RATE = 2000, 2_000.0
STALLED, STALLED_RATE = 600, 300.0
#: Seconds that a handshake takes longer than usual when it waits for a stalled worker.
_KEPT_WAITING = 0.15

Figures = dict[str, list[float]]


def one_seed(server: Server, figures: Figures) -> None:
    """A storm, a worker that restarts empty, and one that stalls; then everybody goes."""
    with Crowd(server.address) as crowd:
        began = time.monotonic()
        crowd.open(STORM, STORM_RATE)
        took = time.monotonic() - began
        before = server.spread(crowd)
        _add(figures, "storm", _unevenness(before))
        _add(figures, "storm, connections/s", STORM / took)
        server.kill()
        crowd.forget_lost(before[-1])
        began = time.monotonic()
        crowd.open(REFILL, REFILL_RATE)
        _add(figures, "refill, connections/s", REFILL / (time.monotonic() - began))
        _add(figures, "refill", _unevenness(server.spread(crowd)))
        if isinstance(server, Wssup) and not server.address.startswith("unix:"):
            _stall(server, crowd, figures)
    server.empty()


def _stall(server: Wssup, crowd: Crowd, figures: Figures) -> None:
    victim = server.rows()[0]
    had = victim.counts.accepted
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        fresh = crowd.open(STALLED, STALLED_RATE)
        last_beat = server.rows()[0].heartbeat_ns / 1e9
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    _add(figures, "stall, ms", 1e3 * (_served(fresh) - last_beat - STALL_AFTER))
    _add(figures, "stall", _unevenness(server.spread(crowd)[1:]))
    # The loop has to turn before it could take what it was given.
    deadline = time.monotonic() + 60
    while server.rows()[0].heartbeat_ns / 1e9 <= last_beat and time.monotonic() < deadline:
        time.sleep(0.05)
    _add(figures, "stall, taken by it", server.rows()[0].counts.accepted - had)


def _served(fresh: list[Client]) -> float:
    """When those connections were answered that had waited for a stalled worker."""
    waits = [client.opened - client.begun for client in fresh]
    usual = statistics.median(waits)
    late = [c.opened for c, w in zip(fresh, waits, strict=True) if w > usual + _KEPT_WAITING]
    return statistics.median(late or [math.nan])


def _unevenness(active: list[int]) -> float:
    return max(active) / statistics.mean(active)


def _add(figures: Figures, name: str, value: float) -> None:
    figures.setdefault(name, []).append(value)
