"""What ``wssup audit`` takes with 20 000 live connections, idle and while others come and go.

Real instances, real clients; the whole command is timed, from its start to its end. A minute.
``make bench-audit`` prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.engine import machine, native
from benchmarks.engine.measures import told
from benchmarks.engine.native import holding
from benchmarks.observing.bars import Bar
from tests.harness.instance import Instance
from tests.harness.raw import Raw

WORKERS = 2
HELD = 20_000
CLIENTS = 2
"""Processes that hold them: one has no more than 20 000 descriptors here."""
AUDITS = 5
ECHO = Path(__file__).parent / "apps" / "echo_event.py"
BOUND = 2.0
"""Seconds."""


class Timed:
    """Audits of one kind: what each took."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.documents: list[dict[str, Any]] = []

    def audit(self, instance: Instance, *further: str) -> None:
        """One more."""
        command = instance.command("audit", "--json", *further)
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=instance.environ) as process:
            assert process.stdout is not None
            text = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.wall.append(time.monotonic() - began)
        self.cpu.append(used.ru_utime + used.ru_stime)
        document = json.loads(text)
        assert process.returncode == 0, document["findings"]
        self.documents.append(document)
        told(f"  {self.what}: {self.wall[-1]:.2f} s, processor {self.cpu[-1]:.2f} s")

    def row(self) -> str:
        """Of the table."""
        looks = [document["looks"] for document in self.documents]
        unsure = [max(p["unsure"] for p in document["processes"]) for document in self.documents]
        figures = (
            f"{statistics.median(self.wall):.2f}",
            f"{max(self.wall):.2f}",
            f"{statistics.median(self.cpu):.2f}",
            f"{statistics.median(looks):g}",
            f"{max(unsure)}",
        )
        return f"| {self.what} | {len(self.wall)} | {' | '.join(figures)} |"


@contextmanager
def comings_and_goings(address: str) -> Iterator[list[int]]:
    """One client after the other comes, is served and goes; how many so far."""
    over, done = threading.Event(), [0]

    def run() -> None:
        while not over.is_set():
            with Raw(address) as client:
                client.open().ask("hello")
            done[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def measure() -> list[Timed]:
    """An instance, its clients, and the audits."""
    idle, busy, foreign = map(Timed, ("idle", "others come and go", "idle, `--pid` of its master"))
    home = Path(tempfile.mkdtemp(prefix="wssup-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home)
        settings = {"workers": WORKERS, "log_level": "info", "heartbeat": {"ping_interval": 0}}
        instance = Instance(home, ECHO.read_text(), settings)
        stack.callback(instance.end)
        instance.running()
        address = instance.address()
        port = int(address.rpartition(":")[2])
        clients = [stack.enter_context(holding(port, HELD // CLIENTS)) for _ in range(CLIENTS)]
        instance.wait(lambda s: s["connections"]["active"] == HELD, f"{HELD} connections")
        for _ in range(AUDITS):
            idle.audit(instance)
        for document in idle.documents:
            assert sum(process["held"] for process in document["processes"]) == HELD
        with comings_and_goings(address) as done:
            for _ in range(AUDITS):
                busy.audit(instance)
        told(f"  {done[0]} came and went")
        for _ in range(AUDITS):
            foreign.audit(instance, "--pid", str(instance.pid))
        for client in clients:
            client.intact()
        print(instance.run("audit").stdout)
    return [idle, busy, foreign]


def main() -> int:
    """Measure, print, judge; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__)
    parser.add_argument("--output", type=Path, help="a file for the table, besides the screen")
    options = parser.parse_args()
    machine.prepared()
    native.build()
    company, began = machine.Company(), time.monotonic()
    timed = measure()
    bar = Bar(
        f"the slowest audit of {HELD} connections, s",
        max(max(one.wall) for one in timed),
        BOUND,
        most=True,
    )
    described = machine.described({}, "all of them, the clients' two processes, too")
    others = f"while others took {company.share():.0%} of the processors"
    held = (
        f"- {HELD} connections at {WORKERS} workers, event style, and their clients on the same "
        f"machine (so {2 * HELD} sockets are in the kernel's tables); the whole command is timed, "
        "the start of Python included"
    )
    verdict = "met" if bar.met else "**missed**"
    lines = [
        "## What an audit takes",
        "",
        *(line for line in described if not line.startswith("- peers")),
        f"- in {time.monotonic() - began:.0f} s, {others}",
        held,
        "",
        "| instance | audits | median, s | max, s | processor, s | looks | unsure at most |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(one.row() for one in timed),
        "",
        "| what | measured | bar | |",
        "| --- | ---: | ---: | --- |",
        f"| {bar.text} | {bar.value:.3g} | < {bar.bound:g} | {verdict} |",
    ]
    text = "\n".join(lines)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 0 if bar.met else 1


if __name__ == "__main__":
    sys.exit(main())
