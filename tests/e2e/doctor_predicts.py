"""``wssup doctor`` names the limit that is met first, and how many connections there will be: each
limit is made the lowest one in turn, and then more clients come than fit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.foreign import foreign_server
from tests.harness.instance import Instance
from tests.harness.limited import Limited, control_group, network_of
from tests.harness.storm import Storm, storm
from wssup.kernel.sockets import tcp_table
from wssup.kernel.tcp import TcpState

#: What doctor's figures may be off by.
OFF = 0.03
#: Descriptors of a process, so that a few hundred clients are enough: 100 connections a worker.
NOFILE = 164
#: A busy machine takes its time to answer.
DOCTOR = ("doctor", "--json", "--seconds", "0", "--answer-timeout", "60")
EVENT = """\
class App:
    def on_receive(self, ws, data):
        ws.send_nowait(data)

app = App()
"""


@contextmanager
def limited(home: Path, prefix: list[str], **settings: object) -> Iterator[Instance]:
    """An instance under a limit; ended at the end."""
    quiet = {"heartbeat.ping_interval": "0s", "limits.handshake_timeout": "10m"}
    instance = Limited(home, prefix, {"app": "application:app"} | quiet | settings, EVENT)
    try:
        yield instance
    finally:
        instance.end()


def examined(instance: Instance, *options: str, inside: int | None = None) -> dict[str, Any]:
    """Doctor's document."""
    command = instance.command(*DOCTOR, *options)
    if inside is not None:
        command = ["nsenter", "-t", str(inside), "-n", *command]
    done = subprocess.run(
        command,
        cwd=instance.home,
        env=instance.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stdout, done.stderr + instance.logged()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def held(instance: Instance, clients: Storm, seconds: float = 60) -> int:
    """How many clients have a WebSocket once their number has not changed for three seconds."""
    deadline = time.monotonic() + seconds
    since, last = time.monotonic(), -1
    while time.monotonic() < deadline:
        clients.watch(0.2)
        if len(clients.served) != last:
            since, last = time.monotonic(), len(clients.served)
        if last > 0 and time.monotonic() - since > 3:
            break
    status = instance.status()
    assert status["connections"]["active"] == last
    return last


def is_close(predicted: int, count: int) -> bool:
    """Whether a prediction is as good as promised."""
    return abs(predicted - count) <= OFF * count


def test_descriptors(tmp_path: Path) -> None:
    """With few descriptors these are named first, before and while it runs, and the count."""
    prefix = ["prlimit", f"--nofile={NOFILE}"]
    with limited(tmp_path, prefix) as instance:
        status = instance.running()
        found = examined(instance)
        assert found["predicted"]["limit"] == "descriptors per worker"
        assert found["findings"][0]["check"] == "descriptors per worker"
        with storm(status["bind"][0]) as clients:
            clients.add(600)
            count = held(instance, clients)
            assert is_close(found["predicted"]["connections"], count)
            later = examined(instance)
            assert later["predicted"] == found["predicted"]
            assert later["facts"]["running"]["workers"][0]["connections"] > 0
    same = subprocess.run(
        [*prefix, *instance.command(*DOCTOR, "--workers", "2")],
        cwd=tmp_path,
        env=instance.environ,
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert json.loads(same.stdout)["predicted"] == found["predicted"]


@pytest.mark.parametrize(
    ("setting", "value", "connections"),
    [("max_connections", 150, 150), ("worker_connections", 70, 140)],
)
def test_own_limits(tmp_path: Path, setting: str, value: int, connections: int) -> None:
    """A limit of the configuration is named as such."""
    with limited(tmp_path, [], **{setting: value}) as instance:
        status = instance.running()
        found = examined(instance, "--connections", "1000")
        assert found["predicted"] == {"connections": connections, "limit": setting}
        assert found["findings"][0]["check"] == setting
        assert found["verdict"] == "fail"
        with storm(status["bind"][0]) as clients:
            clients.add(450)
            assert is_close(connections, held(instance, clients))


def test_processes(tmp_path: Path) -> None:
    """A control group in which not all workers can be: two of four carry what there is."""
    # Master, zygote, two workers, and the one that is there while a worker is forked.
    prefix = ["prlimit", f"--nofile={NOFILE}"]
    with control_group("pids", pids_max=5) as (_, join):
        again = {"backoff_max": "1s", "failure_budget": 1000, "workers": 4}
        with limited(tmp_path, [*join, *prefix], **again) as instance:
            status = instance.wait(
                lambda s: (
                    sum(bool(w.get("accepting")) for x in s["slots"] for w in x["workers"]) == 2
                ),
                "two workers",
            )
            found = examined(instance, "--connections", "350")
            assert found["findings"][0]["check"] == "processes of the control group", found
            assert found["predicted"]["limit"] == "processes of the control group"
            with storm(status["bind"][0]) as clients:
                clients.add(600)
                assert is_close(found["predicted"]["connections"], held(instance, clients))


def test_accept_queue(tmp_path: Path) -> None:
    """With a small net.core.somaxconn so many connects wait as it says while workers stall."""
    rules = "ip link set lo up && echo 16 > /proc/sys/net/core/somaxconn"
    prefix = ["unshare", "-n", "sh", "-c", f'{rules} && exec "$@"', "-"]
    with limited(tmp_path, prefix) as instance:
        status = instance.running()
        found = examined(instance, "--reconnects-per-second", "100", inside=instance.pid)
        first = found["findings"][0]
        assert (first["check"], first["verdict"], first["of"]) == (
            "accept queue",
            "fail",
            "waiting",
        )
        assert "net.core.somaxconn" in first["remedy"]
        workers = list(instance.workers().values())
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            with network_of(instance.pid), storm(status["bind"][0]) as clients:
                clients.add(300)
                clients.watch(2)
                table = tcp_table(instance.pid).sockets
                waiting = sum(s.rqueue for s in table if s.state == TcpState.LISTEN)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        assert is_close(first["predicted"], waiting)


def test_another_server(tmp_path: Path) -> None:
    """Of a server that is no wssup, too: its own soft limit, and what else it has open."""
    with foreign_server("prlimit", f"--nofile={NOFILE}", backlog=16) as (pid, address):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "wssup",
                "doctor",
                "--json",
                "--seconds",
                "0",
                "--pid",
                str(pid),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        found = json.loads(done.stdout)["predicted"]
        assert found["limit"] == "descriptors per worker"
        with storm(address) as clients:
            clients.add(300)
            clients.watch(3)
            # Those that wait in the queue have no inode yet.
            port = int(address.rpartition(":")[2])
            count = sum(
                s.local_port == port and s.state == TcpState.ESTABLISHED and s.inode > 0
                for s in tcp_table().sockets
            )
        assert is_close(found["connections"], count), (found, count)


def test_memory(tmp_path: Path) -> None:
    """A control group's memory: what connections take is measured on those that there are, and so
    many more come as there is room for.
    """
    with control_group("memory") as (group, join), limited(tmp_path, join) as instance:
        status = instance.running()
        with storm(status["bind"][0]) as clients:
            clients.add(3000)
            clients.until_served(3000)
            assert examined(instance)["facts"]["memory"]["group"] is None
            taken = int((group / "memory.usage_in_bytes").read_text())
            (group / "memory.limit_in_bytes").write_text(str(taken + (12 << 20)))
            found = examined(instance)
            assert found["findings"][0]["check"] == "memory of the control group"
            assert found["plan"]["costs"]["measured"]
            predicted = found["predicted"]["connections"]
            most = 3000
            # Somebody of the instance is killed when nothing is left.
            while most < 2 * predicted and killed(group) == 0:
                most = max(most, len(clients.served))
                clients.add(50)
                clients.watch(0.1)
            assert is_close(predicted, most), (predicted, most)


def killed(group: Path) -> int:
    """How many processes of a control group were killed for want of memory."""
    lines = (group / "memory.oom_control").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
