"""The servers: how each is started, alone on its processor, and ended."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.engine import native, peers
from benchmarks.engine.machine import pinned, processors
from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.ports import free_port

APPS = Path(__file__).resolve().parents[1] / "apps"
#: What the tests' harness shortens is left at its default here.
_DEFAULTS: dict[str, object] = {
    "name": "bench",
    "workers": 1,
    "log_level": "info",
    "settle": None,
    "drain_window": None,
    "drain_timeout": None,
    "backoff_min": None,
}
#: Seconds until a server must accept connections.
_START = 30.0


@dataclass(frozen=True)
class Server:
    """A server to measure.

    :param name: as in the options.
    :param title: as in the tables.
    :param peer: its file in ``benchmarks/peers``; empty for the floor and for wssup.
    :param app: wssup: its application, by what is measured (``echo``, ``fanout``).
    :param settings: wssup: settings besides the defaults.
    :param only: the measurements it is for; empty: all.
    """

    name: str
    title: str
    peer: str = ""
    app: dict[str, str] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    only: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Running:
    """A server that runs.

    :param pid: the process that serves.
    """

    server: Server
    port: int
    pid: int


_TASK = {"echo": "echo_task:app", "fanout": "fanout_task:app"}
_EVENT = {"echo": "echo_event:app", "fanout": "fanout_event:app"}
SERVERS = (
    Server("floor", "C floor, no checks"),
    Server("wssup-event", "wssup, event style", app=_EVENT),
    Server(
        "wssup-event-trimmed",
        "wssup, event style, keep_headers = []",
        app=_EVENT,
        settings={"keep_headers": []},
        only=frozenset({"memory"}),
    ),
    Server("wssup-task", "wssup, task style", app=_TASK),
    Server("picows", "picows, uvloop", peer="picows_app.py"),
    Server("uvicorn", "uvicorn websockets-sansio, uvloop", peer="uvicorn_app.py"),
    Server("websockets", "websockets asyncio, uvloop", peer="websockets_app.py"),
    Server("trio-websocket", "trio-websocket", peer="trio_websocket_app.py"),
)
BY_NAME = {server.name: server for server in SERVERS}


@contextmanager
def serving(server: Server, app: str = "echo") -> Iterator[Running]:
    """Run a server.

    :param app: what it should do; peers and the floor do everything at once.
    :raises MeasureError: if it does not start.
    """
    home = Path(tempfile.mkdtemp(prefix="wssup-bench-"))
    try:
        if server.app:
            with _wssup(server, app, home) as running:
                yield running
        else:
            with _process(server, home) as running:
                yield running
    finally:
        shutil.rmtree(home)


@contextmanager
def _wssup(server: Server, app: str, home: Path) -> Iterator[Running]:
    if app not in server.app:
        raise native.MeasureError(f"there is no {app} application in this style")
    with pinned(processors()[0]):
        instance = Instance(
            home,
            "",
            _DEFAULTS | {"app": server.app[app], "app_dir": str(APPS)} | server.settings,
        )
    try:
        try:
            instance.running()
        except AssertionError as error:
            why = reason(instance.logged()) or str(error)
            raise native.MeasureError(why.replace(f"{home}/", "")) from None
        port = int(instance.address().rpartition(":")[2])
        yield Running(server, port, instance.workers()[0])
    finally:
        instance.end()


@contextmanager
def _process(server: Server, home: Path) -> Iterator[Running]:
    port = free_port()
    program = [str(peers.PYTHON), str(peers.HOME / server.peer)] if server.peer else [native.FLOOR]
    with (home / "log").open("wb") as log, pinned(processors()[0]):
        process = subprocess.Popen(
            [*program, str(port)], cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + _START
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise native.MeasureError(reason((home / "log").read_text()) or "it does not start")
            time.sleep(0.05)
        yield Running(server, port, process.pid)
    finally:
        # The worker of a peer that has a master outlives it.
        family = processes.descendants(process.pid)
        process.kill()
        process.wait()
        processes.end(family)


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def reason(log: str) -> str:
    """What a log ends with: of JSON lines the last error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("{"):
            entry = json.loads(line)
            if entry["level"] in {"error", "critical"}:
                return f"{entry['event']}: {entry.get('reason') or entry}"
    return lines[-1] if lines else ""
