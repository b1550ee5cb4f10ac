"""The figures of the main job: a reload under load, a worker's death, memory at rest.

Real instances, real clients, three runs of each, medians. The load comes from this process over
loopback and ends by itself. ``make bench`` prints the table.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import trio

from tests.harness import processes
from tests.harness.clients import ask, crowd, prober
from tests.harness.instance import Instance

RUNS = 3
LIVE = 1000


def main() -> None:
    """Measure and print."""
    processes.become_subreaper()
    rows = []
    for name, measure in (
        ("reload under load", reload_under_load),
        ("kill -9 of a worker", worker_killed),
        ("memory at rest", at_rest),
    ):
        print(f"{name} …", flush=True)
        figures: dict[str, list[float]] = {}
        for _ in range(RUNS):
            home = Path(tempfile.mkdtemp(prefix="wssup-bench-"))
            instance = Instance(
                home,
                "",
                {"settle": 5, "drain_window": 10, "drain_timeout": 30, "log_level": "info"},
            )
            try:
                instance.running()
                for key, value in trio.run(measure, instance).items():
                    figures.setdefault(key, []).append(value)
            finally:
                instance.end()
                shutil.rmtree(home)
        rows += [(name, key, values) for key, values in figures.items()]
    print_table(rows)


async def reload_under_load(instance: Instance) -> dict[str, float]:
    """2 workers, 1000 live connections, two probers that connect without pause; default windows."""
    url = instance.url()
    async with crowd(url, LIVE) as people, prober(url) as probing:
        began = time.monotonic()
        done = await trio.run_process(
            instance.command("reload"), cwd=instance.home, env=instance.environ, capture_stdout=True
        )
        seconds = time.monotonic() - began
        assert done.returncode == 0
        await people.wait(lambda: not people.live, "all of the old workers' clients to be told")
        return {
            "seconds, with 5 s settle and 10 s drain_window": seconds,
            "connects during it": len(probing.answers),
            "of them refused, reset or timed out": len(probing.failures),
            "live connections closed, with 1012": people.codes[1012],
            "live connections closed otherwise": sum(people.codes.values()) - people.codes[1012],
        }


async def worker_killed(instance: Instance) -> dict[str, float]:
    """From SIGKILL until the slot's new worker is ready, and until the next connect is answered."""
    url = instance.url()
    victim = instance.workers()[0]
    slot = instance.status()["slots"][0]["workers"][0]
    assert slot["pid"] == victim
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    await ask(url)
    answered = time.monotonic() - began
    successor = math.nan
    while math.isnan(successor):
        for line in instance.events("worker_ready")[2:]:
            if line["slot"] == 0:
                successor = time.monotonic() - began
    return {
        "ms to the next connect answered": answered * 1e3,
        "ms to the successor": successor * 1e3,
    }


async def at_rest(instance: Instance) -> dict[str, float]:
    """Proportional set size of each process: shared pages count in shares."""
    await trio.lowlevel.checkpoint()
    worker = instance.workers()[0]
    mib = 1024 * 1024
    return {
        "MiB PSS, master": processes.pss(instance.pid) / mib,
        "MiB PSS, zygote": processes.pss(instance.zygote()) / mib,
        "MiB PSS, worker": processes.pss(worker) / mib,
    }


def print_table(rows: list[tuple[str, str, list[float]]]) -> None:
    """Medians with the smallest and the largest, and what they were measured on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(
        f"\ncommit {commit}, Python {platform.python_version()}, Linux {platform.release()}, "
        f"{os.cpu_count()} processors, {RUNS} runs\n"
    )
    print("| what | figure | median | min | max |\n|---|---|---|---|---|")
    for what, figure, values in rows:
        numbers = " | ".join(
            f"{v:.4g}" for v in (statistics.median(values), min(values), max(values))
        )
        print(f"| {what} | {figure} | {numbers} |")


if __name__ == "__main__":
    main()
