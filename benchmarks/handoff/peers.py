"""The same reload of servers that several workers serve: SIGHUP, and who of the clients is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine import peers
from benchmarks.engine.native import MeasureError
from benchmarks.engine.servers import accepts, reason
from benchmarks.handoff import ours
from benchmarks.handoff.clients import crowd, not_let_in, started
from tests.harness import processes
from tests.harness.ports import free_port

WORKERS = 2
#: Seconds until a server must accept connections, and until its old workers must be gone.
_START, _PATIENCE = 30.0, 90.0
#: Seconds that are watched before a reload and after it.
_BEFORE, _AFTER = 1.0, 2.0
#: The codes that are told apart; 1006 stands for an end without a close frame.
CODES = (1000, 1001, 1005, 1006, 1011, 1012, 1013)


@dataclass(frozen=True)
class Server:
    """A server with a master process that replaces its workers on SIGHUP.

    :param name: as in the options; ``title`` as in the tables.
    :param command: after the environment's directory of programs; ``{port}`` is replaced.
    """

    name: str
    title: str
    command: tuple[str, ...]


_GUNICORN = (
    *("gunicorn", "numbered_asgi:app", "--bind", "127.0.0.1:{port}", "--log-level", "warning"),
    *("--workers", str(WORKERS), "--worker-connections", "4000"),
)
#: All with their own windows and deadlines; limits of connections raised where they have some.
SERVERS = (
    Server(
        "uvicorn",
        "uvicorn websockets-sansio, uvloop",
        (
            *("uvicorn", "numbered_asgi:app", "--host", "127.0.0.1", "--port", "{port}"),
            *("--workers", str(WORKERS), "--ws", "websockets-sansio", "--loop", "uvloop"),
            *("--no-access-log", "--log-level", "warning", "--lifespan", "off"),
        ),
    ),
    Server(
        "granian",
        "granian",
        (
            *("granian", "numbered_asgi:app", "--host", "127.0.0.1", "--port", "{port}"),
            *("--workers", str(WORKERS), "--interface", "asgi", "--ws"),
            *("--backlog", "4096", "--backpressure", "4000", "--log-level", "warning"),
        ),
    ),
    Server(
        "gunicorn-uvicorn",
        "gunicorn, uvicorn's worker",
        (*_GUNICORN, "--worker-class", "uvicorn_worker.UvicornWorker"),
    ),
    Server("gunicorn-asgi", "gunicorn, its asgi worker", (*_GUNICORN, "--worker-class", "asgi")),
)
OURS = "wssup-beside"
BY_NAME = {server.name: server for server in SERVERS}


def measured(name: str, connections: int) -> dict[str, float]:
    """The figures of one reload, by name.

    :param name: of a peer, or :data:`OURS`.
    :raises MeasureError: if it cannot be measured.
    """
    if name == OURS:
        with ours.instance(ours.EVENT) as running:
            return _reloaded(ours.port_of(running), running.pid, connections)
    with _serving(BY_NAME[name]) as (port, pid):
        return _reloaded(port, pid, connections)


def _reloaded(port: int, pid: int, connections: int) -> dict[str, float]:
    with crowd(port, connections) as people:
        old = people.asked()["pids"]
        with started("knock", port=port, rate=ours.KNOCKS) as knocking:
            time.sleep(_BEFORE)
            began, wall = time.monotonic(), time.time_ns()
            os.kill(pid, signal.SIGHUP)
            deadline = began + _PATIENCE
            while any(map(processes.alive, old)) and time.monotonic() < deadline:
                time.sleep(0.02)
            seconds = time.monotonic() - began
            if seconds >= _PATIENCE:
                raise MeasureError(f"its old workers were still there after {_PATIENCE:g} s")
            time.sleep(_AFTER)
            knocked = knocking.ask("stop")
        told = people.finished()
    closed: dict[int, int] = told["closed"]
    found = {f"code {code}": float(closed.get(code, 0)) for code in CODES}
    last = (told["closed_last"] - wall) / 1e9 if closed else 0.0
    return found | {
        "code other": float(sum(n for code, n in closed.items() if code not in CODES)),
        "live": float(connections),
        "disconnected": float(sum(closed.values())),
        "left": float(told["open"]),
        "seconds": seconds,
        "last_s": last,
        "not_let_in": float(not_let_in(knocked)),
        "knocks": float(knocked["begun"]),
        "slowest_connect_ms": float(knocked["slowest_ms"]),
    }


@contextmanager
def _serving(server: Server) -> Iterator[tuple[int, int]]:
    """Run a peer: its port, and its master's process; all of it ends with the block."""
    port = free_port()
    program, *arguments = (word.format(port=port) for word in server.command)
    strangers = processes.descendants()
    home = Path(tempfile.mkdtemp(prefix="wssup-bench-"))
    try:
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(peers.PYTHON.with_name(program)), *arguments],
                cwd=home,
                env=os.environ | {"PYTHONPATH": str(peers.HOME)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + _START
            while not accepts(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise MeasureError(reason((home / "log").read_text()) or "it does not start")
                time.sleep(0.05)
            yield port, process.pid
        finally:
            process.kill()
            process.wait()
            # Its workers have become this process's children (a subreaper's).
            processes.end(processes.descendants() - strangers)
    finally:
        shutil.rmtree(home)
