"""The master as PID 1 of a container."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import processes

#: A process namespace of its own, in which the next program is PID 1 (unshare(1)).
NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]

#: An application whose import leaves an orphan behind, which becomes a child of PID 1.
LITTER = """\
import os, subprocess

if os.fork() == 0:
    subprocess.Popen(["sleep", "0.2"])
    os._exit(0)
os.wait()

async def app(request):
    await request.accept()
"""


def test_master_is_pid_1(tmp_path: Path) -> None:
    """As PID 1 the master serves, respawns, reaps orphans, and stops on TERM with 0."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespaces here (tests/skips.md)")
    (tmp_path / "litter.py").write_text(LITTER)
    log = tmp_path / "log"
    with log.open("wb") as out:
        outside = subprocess.Popen(
            [
                *(*NAMESPACE, sys.executable, "-m", "wssup", "serve", "litter:app"),
                *("--workers", "2", "--bind", "127.0.0.1:0", "--log-format", "json"),
                *("--runtime-dir", str(tmp_path / "run")),
            ],
            cwd=tmp_path,
            stdout=out,
            stderr=out,
        )

    def events(name: str) -> list[dict[str, object]]:
        # The last one may still be being written.
        whole = [x for x in log.read_text().splitlines(keepends=True) if x.endswith("\n")]
        lines = [json.loads(x) for x in whole if x.startswith("{")]
        return [x for x in lines if x["event"] == name]

    try:
        processes.until(lambda: events("running"), 60, "the instance to run")
        assert events("starting")[0]["pid"] == 1
        (master,) = processes.children(outside.pid)
        workers = {p for p in processes.children(master) if "worker" in processes.title(p)}
        assert len(workers) == 2
        victim = workers.pop()
        subprocess.run(["kill", "-9", str(victim)], check=True)
        processes.until(lambda: len(events("worker_ready")) == 3, 60, "a successor")
        family = processes.children(master)
        processes.until(
            lambda: (
                not any(processes.state(p) == "Z" for p in processes.children(master))
                and not any("sleep" in processes.title(p) for p in processes.children(master))
            ),
            60,
            f"the orphans to be reaped: {[processes.title(p) for p in family]}",
        )
        subprocess.run(["kill", "-TERM", str(master)], check=True)
        assert outside.wait(60) == 0
    finally:
        outside.send_signal(signal.SIGKILL)
        outside.wait(10)
