"""A machine of its own with a real systemd as its first process (tests/harness/machine.py), in
which wssup is installed from a wheel; a service in it, and clients in its network. FIGURES names a
file to which what was measured is added.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio_websocket import WebSocketConnection

from tests.harness import machine as machines
from tests.harness import processes
from tests.harness.clients import ask, connected
from tests.harness.machine import Machine

ROOT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
WSSUP = "/opt/wssup/bin/wssup"
#: How people install commands.
TOOLS = ("pip", "pipx", "uv")

#: What each module of these tests begins with.
MARKS = [
    pytest.mark.skipif(bool(machines.obstacle()), reason=f"{machines.obstacle()} (tests/skips.md)"),
    pytest.mark.timeout(300),
]

#: An application that uses what a sandbox could refuse: threads, shared memory, a file in memory.
APPLICATION = """\
import ctypes, multiprocessing.shared_memory, os, subprocess, tempfile, threading
import wssup

VERSION = 1

class App:
    def on_receive(self, ws, data):
        if data == "who":
            worker = wssup.current_worker()
            ws.send_nowait(f"{worker.slot} {worker.generation} {VERSION}")
        elif data == "count":
            ws.state["count"] = ws.state.get("count", 0) + 1
            ws.send_nowait(f"{ws.state['count']} {wssup.current_worker().generation}")
        elif data == "subscribe":
            ws.subscribe("news")
            ws.send_nowait("subscribed")
        elif data == "subscribers":
            ws.send_nowait(str(wssup.subscribers("news")))
        elif data == "publish":
            wssup.publish("news", "to all")
        elif data == "features":
            ws.send_nowait(features())
        else:
            ws.send_nowait(data)

def features():
    shared = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
    shared.buf[0] = 7
    shared.close()
    shared.unlink()
    os.close(os.memfd_create("test"))
    done = []
    thread = threading.Thread(target=lambda: done.append(1))
    thread.start()
    thread.join()
    assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5)() == 5
    assert subprocess.run(["/bin/true"]).returncode == 0
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    for path in ("/etc/written", "/opt/written", "/home/x"):
        try:
            open(path, "w")
        except OSError:
            continue
        return f"{path} could be written"
    return "all"

app = App()
"""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source and those that it needs, for the system's Python; and the tools by
    which people install commands.
    """
    home = tmp_path_factory.mktemp("wheels")
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", str(home / "venv")], check=True)
    done = subprocess.run(
        [str(home / "venv/bin/pip"), "wheel", "--quiet", "--disable-pip-version-check",
         "-c", str(ROOT / "constraints.txt"), "-w", str(home / "wheels"),
         str(ROOT), *TOOLS],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return home / "wheels"


@pytest.fixture(scope="session")
def machine(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine with wssup in /opt, installed as a service."""
    home = tmp_path_factory.mktemp("machine")
    with machines.booted(home) as booted:
        for wheel in wheels.iterdir():
            (booted.shared / wheel.name).write_bytes(wheel.read_bytes())
        booted.run(SYSTEM_PYTHON, "-m", "venv", "/opt/wssup")
        booted.run(
            "/opt/wssup/bin/pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-index", "--find-links", "/run/shared", "wssup", timeout=120,
        )  # fmt: skip
        booted.run("mkdir", "/var/log/journal")
        yield booted


@pytest.fixture
def installed(machine: Machine) -> Iterator[Machine]:
    """With units; without any afterwards."""
    said = machine.run(WSSUP, "systemd", "install").stdout
    assert "ran       systemd-sysusers /etc/sysusers.d/wssup.conf" in said
    assert "ran       systemctl daemon-reload" in said
    yield machine
    machine.run("systemctl", "stop", "wssup@*.socket", "wssup@*.service", timeout=120)
    machine.run("systemctl", "reset-failed", check=False)
    machine.run("sh", "-c", "rm -rf /etc/systemd/system/wssup@?*.d /etc/wssup /srv/*")
    machine.run(WSSUP, "systemd", "uninstall", "--force")


class Service:
    """An instance of the service."""

    def __init__(self, machine: Machine, name: str = "shop", port: int = 8765) -> None:
        self.machine = machine
        self.name = name
        self.unit = f"wssup@{name}.service"
        # Earlier tests had units of this name.
        self.since = machine.run("date", "+@%s.%N").stdout.strip()
        self.url = f"ws://127.0.0.1:{port}/"
        self.settings: dict[str, object] = {
            "app": "application:app",
            "app_dir": f"/srv/{name}",
            "workers": 2,
            "bind": [f"127.0.0.1:{port}"],
            "settle": 0.5,
            "drain_window": 0.5,
            "drain_timeout": 10,
        }
        self.deploy(APPLICATION)
        self.configure()

    def deploy(self, source: str) -> None:
        """Put other code there."""
        self.machine.write(f"/srv/{self.name}/application.py", source)

    def configure(self, **changes: object) -> None:
        """Write the configuration."""
        self.settings |= changes
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in self.settings.items()]
        self.machine.write(f"/etc/wssup/{self.name}.toml", "".join(lines))

    def drop_in(self, *lines: str) -> None:
        """Override what the unit says."""
        path = f"/etc/systemd/system/{self.unit}.d/test.conf"
        self.machine.write(path, "\n".join(("[Service]", *lines, "")))
        self.systemctl("daemon-reload", unit=False)

    def systemctl(
        self, command: str, *, check: bool = True, unit: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run systemctl for it."""
        names = [self.unit] if unit else []
        return self.machine.run("systemctl", command, *names, check=check, timeout=120)

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.machine.show(self.unit, name)

    @property
    def master(self) -> int:
        """Its process id inside."""
        return int(self.show("MainPID"))

    def kill(self, number: int) -> None:
        """Signal the master alone."""
        os.kill(self.machine.outside(self.master), number)

    def wait(self, name: str, value: str, seconds: float = 60) -> None:
        """Wait for a property to be so."""
        processes.until(
            lambda: self.show(name) == value,
            seconds,
            f"{name}={value}; {self.show(name)}\n{self.journal()[-3000:]}",
        )

    def journal(self) -> str:
        """What it said."""
        return self.machine.journal("-u", self.unit, "-o", "cat", "--since", self.since)


@pytest.fixture
def service(installed: Machine) -> Iterator[Service]:
    """A service that was not started yet; the journal of a failed test is shown."""
    found = Service(installed)
    yield found
    print(installed.journal("-n", "150", "-o", "short-precise"))  # noqa: T201


@pytest.fixture
def started(service: Service) -> Service:
    """A service that runs."""
    service.systemctl("start")
    return service


def figures(**found: object) -> None:
    """Note what was measured."""
    if path := os.environ.get("FIGURES"):
        with Path(path).open("a") as file:
            file.write(json.dumps(found) + "\n")


def inside(machine: Machine, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario whose clients are in the machine's network."""
    with machine.network():
        trio.run(scenario)


async def said(url: str, message: str, end: str) -> None:
    """An answer ends so."""
    answer = await ask(url, message)
    assert answer.endswith(end), answer


@asynccontextmanager
async def many(url: str, count: int) -> AsyncIterator[list[WebSocketConnection]]:
    """Connections that are asked one by one."""
    async with trio.open_nursery() as nursery:
        found: list[WebSocketConnection] = []
        for _ in range(count):
            await nursery.start(_hold, url, found)
        yield found
        nursery.cancel_scope.cancel()


async def _hold(
    url: str,
    found: list[WebSocketConnection],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    async with connected(url) as ws:
        found.append(ws)
        task_status.started()
        await trio.sleep_forever()


async def everybody(people: list[WebSocketConnection], message: str, answer: str) -> None:
    """All give the same answer."""
    with trio.fail_after(60):
        for ws in people:
            await ws.send_message(message)
        for ws in people:
            assert await ws.get_message() == answer
