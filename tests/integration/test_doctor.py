"""``wssup doctor`` beside real processes: an instance under a limit, servers of another kind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.harness import processes
from tests.harness.foreign import foreign_server
from tests.harness.limited import Limited
from tests.harness.storm import storm
from wssup.kernel.sockets import tcp_table
from wssup.kernel.tcp import TcpState


@contextmanager
def limited(home: Path) -> Iterator[Limited]:
    instance = Limited(home, ["prlimit", "--nofile=300"], {})
    try:
        yield instance
    finally:
        instance.end()


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What ``--json`` printed."""
    assert not done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_instance(tmp_path: Path) -> None:
    """A running instance is looked at as it is: its own limits, not those of whoever asks; its
    connections, its port; and the tables, files and exit statuses say the same.
    """
    with limited(tmp_path) as instance:
        status = instance.running()
        # A busy machine takes its time to answer.
        quick = ("doctor", "--seconds", "0", "--answer-timeout", "60")
        with storm(status["bind"][0]) as clients:
            clients.add(20)
            clients.until_served(20)
            found = document(instance.run(*quick, "--json"))
            assert found["predicted"] == {
                "connections": 2 * (300 - 64),
                "limit": "descriptors per worker",
            }
            workers = found["facts"]["running"]["workers"]
            assert {worker["pid"] for worker in workers} == set(instance.workers().values())
            assert sum(worker["connections"] for worker in workers) == 20
            for worker in workers:
                assert (worker["soft"], worker["hard"]) == (300, 300)
                assert worker["descriptors"] > worker["connections"]
                assert worker["resident"] > 1 << 20
            assert not found["facts"]["holders"]
            # One for each worker, as the kernel says it, whatever the sysctl is by now.
            queues = found["facts"]["queues"]
            assert [queue["address"] for queue in queues] == [status["bind"][0]] * 2
            limit = min(4096, int(Path("/proc/sys/net/core/somaxconn").read_text()))
            assert {queue["limit"] for queue in queues} == {limit}
            assert (found["plan"]["queues"], found["plan"]["queue"]) == (2, limit)

        more = instance.run(*quick, "--connections", "1000")
        assert more.returncode == 2
        assert "1,000 connections do not fit: 472 can be carried; descriptors per" in more.stdout
        assert "of the running instance test, 2 workers" in more.stdout
        rows = [line for line in more.stdout.splitlines() if " fail " in line]
        assert rows[0].startswith("descriptors per worker")
        # Whoever takes the address of one that runs is seen, if the kernel lets him.
        port = int(status["bind"][0].rpartition(":")[2])
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            shared = document(instance.run(*quick, "--json"))
        (first, *_) = shared["findings"]
        assert (first["check"], first["verdict"]) == ("other listener", "fail")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, for no instance."""
    return subprocess.run(
        [sys.executable, "-m", "wssup", "doctor", "--seconds", "0", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_without_an_instance(tmp_path: Path) -> None:
    """It looks at what would run: the limits of this shell, and who has the port."""
    here = ("--runtime-dir", str(tmp_path), "--workers", "2")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--bind", f"127.0.0.1:{port}", "--json", *here, cwd=tmp_path)
    assert done.returncode == 2
    found = document(done)
    assert found["findings"][0]["check"] == "other listener"
    assert f"pid {os.getpid()} (" in found["findings"][0]["found"]
    assert found["predicted"] == {"connections": 0, "limit": "other listener"}


def until_held(port: int, state: TcpState, count: int) -> None:
    """Wait until so many connections of a port are in a state, and some process's."""

    def there() -> bool:
        found = [s for s in tcp_table().sockets if s.local_port == port and s.inode]
        return sum(s.state == state for s in found) == count

    processes.until(there, 60, f"{count} sockets in {state.name}")


def test_another_server(tmp_path: Path) -> None:
    """Any server: descriptors by kind, sockets by state, who accepts, and how many it can carry;
    a pile of connections that it does not close.
    """
    with foreign_server("prlimit", "--nofile=150:300", acceptors=2) as (pid, address):
        host, _, port = address.rpartition(":")
        with ExitStack() as stack:
            for _ in range(30):
                stack.enter_context(socket.create_connection((host, int(port))))

            until_held(int(port), TcpState.ESTABLISHED, 30)
            done = run("--pid", str(pid), "--json", cwd=tmp_path)
            found = document(done)
            server = found["server"]
            accepting = [p for p in server["processes"] if p["accepts"]]
            assert len(accepting) == 2
            assert pid not in {p["pid"] for p in accepting}
            assert sum(p["states"].get("ESTABLISHED", 0) for p in accepting) == 30
            assert server["states"]["ESTABLISHED"] == 30
            others = {sum(p["kinds"].values()) - sum(p["states"].values()) for p in accepting}
            # Two pipes and stderr, the listener, the epoll.
            assert found["predicted"]["connections"] == 2 * (150 - max(others))
            assert found["predicted"]["limit"] == "descriptors per worker"
            assert all(p["kinds"]["eventpoll"] == 1 for p in accepting)
            assert server["queues"][0]["limit"] == 128
        until_held(int(port), TcpState.CLOSE_WAIT, 30)
        done = run("--pid", str(pid), cwd=tmp_path)
        assert done.returncode == 1
        (row,) = [line for line in done.stdout.splitlines() if line.startswith("CLOSE_WAIT")]
        assert " warn " in row


def test_no_server(tmp_path: Path) -> None:
    """A process that is none, and one that serves nothing: one line, exit status 2."""
    for pid, words in (("2147483", "no process 2147483"), (None, "listens on no TCP port")):
        idle = subprocess.Popen(["sleep", "100"])
        try:
            done = run("--pid", pid or str(idle.pid), cwd=tmp_path)
        finally:
            idle.kill()
            idle.wait()
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
