"""An instance with 64 slots: how long answers take, and whether a worker wakes for them."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from benchmarks.engine.measures import told
from benchmarks.observing.bars import Bar
from benchmarks.observing.client import Client, observer, processor_seconds, running
from tests.harness.instance import Instance
from tests.harness.observed import OPENMETRICS
from tests.harness.raw import raw_clients

SLOTS = 64
#: Connections that it holds, so that there is something to count.
HELD = 640
#: Requests whose times are taken, and seconds between them.
STATUSES, SCRAPES, APART = 1000, 200, 0.005
#: Requests before them.
WARM_UP = 10
#: Seconds without and with polling, in turn, and how often /status is asked for meanwhile.
WINDOW, POLLS_PER_S = 8.0, 50


def many_slots() -> tuple[list[str], list[Bar]]:
    """Answers with 64 slots: how long they take, and whether a worker wakes for them."""
    told(f"{SLOTS} slots, {HELD} connections …")
    rows: list[str] = []
    bars: list[Bar] = []
    with running(workers=SLOTS) as instance:
        (address,) = instance.status()["bind"]
        with raw_clients(address, HELD):
            client, watcher = Client(instance), observer(instance)
            for path, accept, count, bound in (
                ("/status", "*/*", STATUSES, 5),
                ("/metrics", OPENMETRICS, SCRAPES, 20),
                ("/metrics", "text/plain", SCRAPES, 20),
            ):
                before = processor_seconds(watcher)
                times, size = _timed(client, path, accept, count)
                spent = 1e3 * (processor_seconds(watcher) - before) / (count + WARM_UP)
                kind = f"{path} ({accept.partition(';')[0]})" if path == "/metrics" else path
                p50, p99 = (1e3 * _share(times, share) for share in (0.5, 0.99))
                rows.append(
                    f"| {kind} | {count} | {size / 1024:.0f} | {p50:.1f} | {p99:.1f}"
                    f" | {1e3 * times[-1]:.1f} | {spent:.1f} |"
                )
                told(f"  {kind}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, processor {spent:.1f} ms")
                bars.append(Bar(f"{kind} with {SLOTS} slots, p99, ms", p99, bound, most=True))
            client.close()
            switches, bar = _switches(instance)
    table = [
        "| request | times | KiB | p50, ms | p99, ms | max, ms | of the observer's processor, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
    ]
    return table + switches, [*bars, bar]


def _timed(client: Client, path: str, accept: str, count: int) -> tuple[list[float], int]:
    """Seconds that each request took, sorted, and the bytes of the last answer."""
    size = 0
    for _ in range(WARM_UP):
        client.get(path, accept)
    times = []
    for _ in range(count):
        began = time.perf_counter()
        size = client.get(path, accept)
        times.append(time.perf_counter() - began)
        time.sleep(APART)
    return sorted(times), size


def _share(times: list[float], share: float) -> float:
    """The time that a share of sorted times did not exceed."""
    return times[min(len(times) - 1, int(share * len(times)))]


def _switches(instance: Instance) -> tuple[list[str], Bar]:
    """Context switches of all workers per second, without and with polling.

    A worker that is woken gives the processor back by itself: a voluntary switch. An involuntary
    one is made when the observer or the client takes the processor from a worker that runs.
    """
    pids = list(instance.workers().values())
    counted: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for polling in (False, True) * 2:
        client = Client(instance)
        before = _switched(pids)
        began = time.monotonic()
        while (passed := time.monotonic() - began) < WINDOW:
            if polling:
                client.get("/status")
            time.sleep(max(0.001, 1 / POLLS_PER_S))
        after = _switched(pids)
        client.close()
        voluntary, involuntary = ((b - a) / passed for a, b in zip(before, after, strict=True))
        counted[polling].append((voluntary, involuntary))
        told(f"  polling {polling}: {voluntary:.1f} voluntary, {involuntary:.1f} involuntary /s")
    rows = []
    means = {}
    for polling, what in ((False, "without"), (True, f"with, about {POLLS_PER_S} a second")):
        voluntary, involuntary = (statistics.mean(n) for n in zip(*counted[polling], strict=True))
        means[polling] = voluntary
        rows.append(f"| {what} | {voluntary:.1f} | {involuntary:.1f} |")
    more = (means[True] - means[False]) / POLLS_PER_S
    table = [
        f"| polling of `/status` | voluntary switches/s of {SLOTS} workers | involuntary |",
        "| --- | ---: | ---: |",
        *rows,
        "",
    ]
    return table, Bar(
        f"voluntary switches of {SLOTS} workers per poll ({SLOTS} if each were asked)",
        more,
        0.5,
        most=True,
    )


def _switched(pids: list[int]) -> tuple[int, int]:
    """Voluntary and involuntary context switches of processes so far (proc(5))."""
    voluntary = involuntary = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            voluntary += int(value) if name == "voluntary_ctxt_switches" else 0
            involuntary += int(value) if name == "nonvoluntary_ctxt_switches" else 0
    return voluntary, involuntary
