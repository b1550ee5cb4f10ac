"""Echo of one worker without an observer, with one, and with one that is watched."""

from __future__ import annotations

import contextlib
import statistics
import time
from contextlib import ExitStack

from benchmarks.engine import machine, native
from benchmarks.engine.measures import told
from benchmarks.observing.bars import Bar
from benchmarks.observing.client import observer, processor_seconds, running, watching
from tests.harness.instance import Instance

#: Connections, bytes, seconds of one measurement.
CONNECTIONS, SIZE, SECONDS = 50, 32, 3.0


NAMES = ("no observer", "an observer", "an observer that is watched")


def watched_echo(runs: int) -> tuple[list[str], list[Bar]]:
    """Each round measures the three in turn.

    Everything of an instance shares a processor.
    """
    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    shares: dict[str, list[float]] = {name: [] for name in NAMES}
    with ExitStack() as stack:
        with machine.pinned(machine.processors()[0]):
            bare = stack.enter_context(running(workers=1, status=False))
            seen = stack.enter_context(running(workers=1, name="seen"))
        for run in range(1, runs + 1):
            # What drifts within a round drifts both ways.
            for name in NAMES if run % 2 else reversed(NAMES):
                instance = bare if name == NAMES[0] else seen
                with watching(instance) if name == NAMES[2] else contextlib.nullcontext():
                    rate, share = _echo(instance)
                rates[name].append(rate)
                shares[name].append(share)
                told(f"  echo, run {run} of {runs}, {name}: {rate:,.0f}/s")
    rows = []
    ratios = {}
    for name in NAMES:
        ratio = [a / b for a, b in zip(rates[name], rates[NAMES[0]], strict=True)]
        ratios[name] = statistics.median(ratio)
        rate = f"{statistics.median(rates[name]):,.0f}".replace(",", " ")
        rows.append(
            f"| {name} | {rate} | {ratios[name]:.3f} | {min(ratio):.3f}, {max(ratio):.3f}"
            f" | {statistics.median(shares[name]):.2%} |"
        )
    table = [
        "| echo with | messages/s | × of the round's without | min, max | observer's processor |",
        "| --- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
    ]
    bar = Bar("echo while watched: × of no observer", ratios[NAMES[2]], 0.98, most=False)
    return table, [bar]


def _echo(instance: Instance) -> tuple[float, float]:
    """Messages per second, and the share of a processor that the observer took meanwhile."""
    watcher = observer(instance) if instance.settings["status"] else None
    began, before = time.monotonic(), processor_seconds(watcher) if watcher else 0.0
    found = native.load(
        "echo",
        int(instance.address().rpartition(":")[2]),
        SECONDS,
        warmup=SECONDS / 4,
        connections=CONNECTIONS,
        size=SIZE,
        pid=instance.workers()[0],
    )
    spent = processor_seconds(watcher) - before if watcher else 0.0
    return found["messages_per_s"], spent / (time.monotonic() - began)
