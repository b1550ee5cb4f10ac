"""wssup installed from a wheel as a service of a real systemd, in a machine of its own
(tests/harness/machine.py). FIGURES names a file to which what was measured is added.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio_websocket import WebSocketConnection

from tests.harness import machine as machines
from tests.harness import processes
from tests.harness.clients import Prober, aside, ask, connected, crowd, prober
from tests.harness.machine import Machine

ROOT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
WSSUP = "/opt/wssup/bin/wssup"
#: How people install commands.
TOOLS = ("pip", "pipx", "uv")

pytestmark = [
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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


def test_install_start_status(started: Service) -> None:
    """After installing, a start succeeds once all workers are ready; the unit is active, its status
    line counts them, and everything that wssup and its application do is possible inside of the
    hardened unit, but writing elsewhere. The journal has fields, levels and ids.
    """
    machine = started.machine
    assert started.show("ActiveState") == "active"
    assert started.show("StatusText") == "gen 1: 2/2 ready, 0 connections"
    assert started.show("NFileDescriptorStore") == "2"
    said = machine.run(WSSUP, "systemd", "verify").stdout
    score = re.search(r"exposure +([0-9.]+) of 10", said)
    assert score is not None
    assert float(score[1]) <= 1.5
    figures(security=float(score[1]))

    async def scenario() -> None:
        assert await ask(started.url, "features") == "all"
        async with many(started.url, 20) as people:
            await everybody(people, "subscribe", "subscribed")
            with trio.fail_after(60):
                # A worker hears of the subscribers of another one in a moment.
                heard = ""
                while heard != "20":
                    await people[0].send_message("subscribers")
                    heard = await people[0].get_message()
                await people[0].send_message("publish")
                assert {await ws.get_message() for ws in people} == {"to all"}
        async with connected(started.url):
            await aside(started.wait, "StatusText", "gen 1: 2/2 ready, 1 connections")

    inside(machine, scenario)
    told = machine.run(WSSUP, "status", "--name", "shop").stdout
    assert "shop  running  generation 1" in told
    assert machine.run(WSSUP, "scale", "3", "--name", "shop").returncode == 0
    started.wait("NFileDescriptorStore", "3")
    lines = machine.journal("-u", started.unit, "-o", "json", "--since", started.since).splitlines()
    entries = [json.loads(line) for line in lines]
    (running,) = [e for e in entries if e.get("WSSUP_EVENT") == "running"]
    assert running["MESSAGE_ID"] == "ce55c104ef704993bad77a9e985b877a"
    assert running["WSSUP_WORKERS"] == "2"
    assert running["_SYSTEMD_UNIT"] == started.unit
    (limits,) = [e for e in entries if str(e["MESSAGE"]).startswith("limits ")]
    assert (limits["PRIORITY"], limits["_TRANSPORT"]) == ("6", "stdout")
    user = machine.run("stat", "-c", "%U", f"/proc/{started.master}").stdout.strip()
    assert user == "wssup"


def test_the_observer_sees_from_within_the_unit(started: Service) -> None:
    """Inside of the hardened unit the observer can see what it should: accept queues, which it asks
    the kernel for over netlink, and memory and descriptors of every process. Another user may ask.
    """
    machine = started.machine
    asked = (
        "curl",
        "-sS",
        "--unix-socket",
        "/run/wssup/shop/status.sock",
        "http://localhost/metrics",
    )
    found: list[str] = []

    def seen() -> bool:
        done = machine.run("runuser", "-u", "nobody", "--", *asked, check=False)
        found[:] = [line for line in done.stdout.splitlines() if not line.startswith("#")]
        # What the master knows comes to it within a second: workers that have just begun, too.
        return all(
            sum(line.startswith(name) for line in found) == count
            for name, count in (
                ("wssup_listen_queue_length{", 2),
                ("wssup_process_resident_memory_bytes{", 5),
                ("wssup_process_open_fds{", 5),
                ("wssup_process_max_fds{", 5),
                ("wssup_connections{", 4),
            )
        )

    try:
        processes.until(seen, 60, "the observer to see all")
    except AssertionError as error:
        raise AssertionError(f"{error}; it sees {found}") from None
    assert "observer_lost" not in started.journal()


def test_reload_moves_everybody(started: Service) -> None:
    """A reload with 500 live connections returns when it is done: all were moved, none was
    disconnected, and all count on.
    """

    async def scenario() -> None:
        async with trio.open_nursery() as nursery, many(started.url, 500) as people:
            await everybody(people, "count", "1 1")
            began = trio.current_time()
            done = await aside(started.systemctl, "reload")
            seconds = trio.current_time() - began
            assert done.returncode == 0
            assert "500 moved, 0 disconnected" in started.journal()
            assert started.show("StatusText") == "gen 2: 2/2 ready, 500 connections"
            await everybody(people, "count", "2 2")
            nursery.cancel_scope.cancel()
        figures(reload_moved=500, seconds=round(seconds, 2))

    inside(started.machine, scenario)
    assert started.show("ActiveState") == "active"


def test_broken_code(started: Service) -> None:
    """A reload of broken code fails, says why in the journal, and leaves the service as it was; so
    does one of a broken configuration.
    """
    started.deploy("import nothing_of_that_name\n")
    failed = started.systemctl("reload", check=False)
    assert failed.returncode != 0
    assert "nothing_of_that_name" in started.journal()
    assert (started.show("ActiveState"), started.show("SubState")) == ("active", "running")
    inside(started.machine, lambda: said(started.url, "who", " 1 1"))
    started.deploy(APPLICATION)
    started.configure(workers="none")
    assert started.systemctl("reload", check=False).returncode != 0
    started.configure(workers=2)
    started.deploy(APPLICATION.replace("VERSION = 1", "VERSION = 2"))
    started.systemctl("reload")
    inside(started.machine, lambda: said(started.url, "who", " 2"))


def test_the_master_is_killed(started: Service) -> None:
    """When the master is killed, clients are told 1012, systemd starts it anew, and of those who
    connect without pause none is refused.
    """

    async def killed(probing: Prober, what: str) -> None:
        await probing.rounds(20)
        old = started.master
        at = trio.current_time()
        await aside(started.kill, signal.SIGKILL)
        await answered(probing, at, what)
        await aside(started.wait, "ActiveState", "active")
        assert started.master != old
        await probing.rounds(20)
        assert not probing.failures

    async def scenario() -> None:
        async with prober(started.url, 4) as probing:
            await killed(probing, "kill -9, nobody connected, drain_window 0.5 s")
        async with crowd(started.url, 200) as people, prober(started.url, 4) as probing:
            await killed(probing, "kill -9, 200 connections, drain_window 0.5 s")
            await people.wait(lambda: not people.live, "all to be told")
            assert set(people.codes) == {1012}
        figures(kill_9_refused=0)

    inside(started.machine, scenario)
    assert started.show("NRestarts") == "2"


def test_a_restart(started: Service) -> None:
    """A restart refuses no connect: the listeners wait in the fd store."""

    async def scenario() -> None:
        async with crowd(started.url, 100) as people, prober(started.url, 4, stops=True) as probing:
            await probing.rounds(20)
            began = trio.current_time()
            await aside(started.systemctl, "restart")
            figures(restart_seconds=round(trio.current_time() - began, 2), restart_refused=0)
            await probing.rounds(20)
            assert not probing.failures
            await people.wait(lambda: not people.live, "all to be told")
            assert set(people.codes) <= {1001, 1012}

    inside(started.machine, scenario)
    assert started.journal().count("listeners_taken bind=127.0.0.1:8765 kind=stored count=2") == 1


@pytest.mark.parametrize("lines", [2, 1])
def test_a_restart_with_a_socket_unit(service: Service, lines: int) -> None:
    """With a socket unit, whose listeners become the slots' or are shared, the first connect starts
    the service, a restart and a kill refuse nobody, and a stop leaves the socket.
    """
    machine = service.machine
    service.configure(workers=lines)
    machine.run(WSSUP, "systemd", "install", "--instance", "shop", "--socket")
    service.configure(workers=2)
    machine.run("systemctl", "start", "wssup@shop.socket")
    assert service.show("ActiveState") == "inactive"

    async def scenario() -> None:
        assert (await ask(service.url, "who")).endswith(" 1 1")
        await aside(service.wait, "ActiveState", "active")
        async with prober(service.url, 4, stops=True) as probing:
            await probing.rounds(40)
            assert {a.split()[0] for a in probing.answers} == {"0", "1"}
            await aside(service.systemctl, "restart")
            await probing.rounds(20)
            old = service.master
            await aside(service.kill, signal.SIGKILL)
            await aside(processes.until, lambda: service.master not in {0, old}, 60, "a new master")
            await aside(service.wait, "ActiveState", "active")
            await probing.rounds(20)
            assert not probing.failures
        await aside(service.systemctl, "stop")
        assert (await ask(service.url, "who")).endswith(" 1 1")

    inside(machine, scenario)
    assert f"kind=activated count={lines}" in service.journal()
    assert service.show("NFileDescriptorStore") == "0"


def test_a_socket_unit_that_does_not_fit(service: Service) -> None:
    """A socket unit of another address is an error that says so, and is not tried again."""
    machine = service.machine
    machine.run(WSSUP, "systemd", "install", "--instance", "shop", "--socket")
    service.configure(bind=["127.0.0.1:8799"])
    machine.run("systemctl", "start", "wssup@shop.socket")
    assert service.systemctl("start", check=False).returncode != 0
    assert service.show("ExecMainStatus") == "2"
    assert "passes a listener on 127.0.0.1:8765" in service.journal()
    assert service.show("NRestarts") == "0"


def test_the_watchdog(service: Service) -> None:
    """A master that stands still is ended by the watchdog and started anew; nobody is refused."""
    service.drop_in("WatchdogSec=2")
    service.systemctl("start")

    async def scenario() -> None:
        async with crowd(service.url, 20) as people, prober(service.url, 2) as probing:
            old = service.master
            # Fed for longer than it waits.
            await trio.sleep(5)
            assert service.master == old
            await aside(service.kill, signal.SIGSTOP)
            await aside(processes.until, lambda: service.master not in {0, old}, 60, "a new master")
            await aside(service.wait, "ActiveState", "active")
            await probing.rounds(10)
            await people.wait(lambda: not people.live, "all to be told")
            assert set(people.codes) <= {1001, 1012}
            assert not probing.failures

    inside(service.machine, scenario)
    assert service.show("NRestarts") == "1"
    assert "Failed with result 'watchdog'" in service.journal()


def test_a_stop_drains(started: Service) -> None:
    """A stop closes connections in order within its timeout, and leaves nothing but the lock's
    place: no process, no shared memory, no runtime directory.
    """
    machine = started.machine

    async def scenario() -> None:
        async with crowd(started.url, 100) as people:
            began = trio.current_time()
            await aside(started.systemctl, "stop")
            assert trio.current_time() - began < 15
            await people.wait(lambda: not people.live, "all to be told")
            assert set(people.codes) <= {1001, 1012}

    inside(machine, scenario)
    assert started.show("Result") == "success"
    assert machine.run("ls", "/dev/shm").stdout == ""
    assert machine.run("ls", "/run/wssup", check=False).stdout == ""
    assert machine.run("pgrep", "-u", "wssup", check=False).stdout == ""


def test_a_long_drain_is_given_time(service: Service) -> None:
    """A drain that is longer than the unit's timeout is not cut off: the master asks for time."""
    service.configure(drain_window=6, drain_timeout=8)
    service.drop_in("TimeoutStopSec=2")
    service.systemctl("start")

    async def scenario() -> None:
        async with crowd(service.url, 30) as people:
            await aside(service.systemctl, "stop")
            await people.wait(lambda: not people.live, "all to be told")
            assert set(people.codes) <= {1001, 1012}

    inside(service.machine, scenario)
    assert service.show("Result") == "success"


def test_two_instances(started: Service) -> None:
    """A second instance of the same unit lives beside the first; stopping one leaves the other
    whole, which can still reload.
    """
    other = Service(started.machine, "other", 8766)
    other.systemctl("start")
    inside(started.machine, lambda: said(other.url, "who", " 1 1"))
    started.systemctl("stop")
    assert other.show("ActiveState") == "active"
    other.systemctl("reload")
    inside(started.machine, lambda: said(other.url, "who", " 2 1"))
    other.kill(signal.SIGKILL)
    processes.until(lambda: other.show("NRestarts") == "1", 60, "a restart")
    other.wait("ActiveState", "active")
    inside(started.machine, lambda: said(other.url, "who", " 1 1"))


def test_broken_code_at_start(service: Service) -> None:
    """A service that cannot start fails its start, is tried a few times, and then stays down."""
    service.deploy("import nothing_of_that_name\n")
    assert service.systemctl("start", check=False).returncode != 0
    service.wait("Result", "exit-code")
    processes.until(lambda: service.show("ActiveState") == "failed", 60, "systemd to give up")
    assert int(service.show("NRestarts")) >= 4
    assert "nothing_of_that_name" in service.journal()


def test_a_low_port(service: Service) -> None:
    """A port below 1024 comes with its privilege, and nothing else."""
    machine = service.machine
    service.configure(bind=["127.0.0.1:443"])
    said_ = machine.run(WSSUP, "systemd", "install", "--instance", "shop").stdout
    assert "written   /etc/systemd/system/wssup@.service.d/low-ports.conf" in said_
    service.systemctl("start")
    inside(machine, lambda: said("ws://127.0.0.1:443/", "who", " 1 1"))
    (line,) = [
        x
        for x in machine.run("cat", f"/proc/{service.master}/status").stdout.splitlines()
        if x.startswith("CapEff:")
    ]
    assert int(line.split()[1], 16) == 1 << 10


@pytest.mark.parametrize(
    ("tool", "place"),
    [("pipx", "/opt/pipx/venvs/wssup/bin/wssup"), ("uv", "/opt/uv/wssup/bin/wssup")],
)
def test_a_wheel_installed_as_a_command(machine: Machine, tool: str, place: str) -> None:
    """Installed with pipx or uv, where all users can reach it, the command on the path writes units
    that start what it links to.
    """
    wheels = "/run/shared"
    machine.run(SYSTEM_PYTHON, "-m", "venv", "/opt/tools")
    machine.run("/opt/tools/bin/pip", "install", "--no-index", "--find-links", wheels, tool)
    if tool == "pipx":
        install = (
            "env", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={wheels}",
            f"PIPX_DEFAULT_PYTHON={SYSTEM_PYTHON}",
            "/opt/tools/bin/pipx", "install", "--global", "--backend", "pip", "wssup",
        )  # fmt: skip
    else:
        install = (
            "env", "UV_TOOL_DIR=/opt/uv", "UV_TOOL_BIN_DIR=/usr/local/bin",
            "/opt/tools/bin/uv", "tool", "install", "--offline", "--no-index", "--no-cache",
            "--find-links", wheels, "--python", SYSTEM_PYTHON, "wssup",
        )  # fmt: skip
    machine.run(*install, timeout=120)
    service = Service(machine)
    try:
        machine.run("/usr/local/bin/wssup", "systemd", "install")
        unit = machine.run("cat", "/etc/systemd/system/wssup@.service").stdout
        assert f"\nExecStart={place} serve " in unit
        service.systemctl("start")
        inside(machine, lambda: said(service.url, "who", " 1 1"))
        service.systemctl("reload")
        service.systemctl("stop")
    finally:
        machine.run("systemctl", "stop", service.unit)
        machine.run(WSSUP, "systemd", "uninstall")
        machine.run(
            "sh", "-c", "rm -rf /opt/tools /opt/pipx /opt/uv /usr/local/bin/wssup /srv/shop"
        )


def test_a_program_that_the_user_cannot_reach(machine: Machine) -> None:
    """A wssup in a directory that only root may enter is refused before anything is written."""
    machine.run("mkdir", "-m", "700", "/srv/private")
    machine.run("cp", "-a", "/opt/wssup", "/srv/private/venv")
    program = "/srv/private/venv/bin/python"
    failed = machine.run(program, "-m", "wssup", "systemd", "install", check=False)
    machine.run("rm", "-rf", "/srv/private")
    assert failed.returncode == 2
    refusal = "user wssup cannot run /srv/private/venv/bin/wssup: it may not pass /srv/private"
    assert refusal in failed.stderr
    assert "nothing is installed" in machine.run(WSSUP, "systemd", "verify", check=False).stderr


def test_uninstall(machine: Machine) -> None:
    """Uninstalling is refused while an instance runs; then it leaves nothing, not even the links
    that enabled it.
    """
    before = machine.run("find", "/etc", "-path", "/etc/ssl", "-prune", "-o", "-print").stdout
    machine.run(WSSUP, "systemd", "install", "--socket", "--low-ports")
    service = Service(machine)
    service.systemctl("start")
    machine.run("systemctl", "enable", service.unit, "wssup@shop.socket")
    refused = machine.run(WSSUP, "systemd", "uninstall", check=False)
    assert refused.returncode == 1
    assert f"systemctl disable --now {service.unit}" in refused.stderr
    service.systemctl("stop")
    machine.run(WSSUP, "systemd", "uninstall")
    listed = machine.run("systemctl", "list-unit-files", "wssup*", check=False).stdout
    assert "\n0 unit files listed" in listed
    machine.run("rm", "-r", "/etc/wssup", "/srv/shop")
    after = machine.run("find", "/etc", "-path", "/etc/ssl", "-prune", "-o", "-print").stdout
    new = set(after.splitlines()) - set(before.splitlines())
    # The user stays, and with it the backups of the files that list users.
    assert {p for p in new if not re.search("passwd|group|shadow|sub[ug]id", p)} == set()


async def said(url: str, message: str, end: str) -> None:
    """An answer ends so."""
    answer = await ask(url, message)
    assert answer.endswith(end), answer


async def answered(probing: Prober, since: float, what: str) -> None:
    """Note when the first handshake after an event was answered by the new master."""
    gap, last = 0.0, since
    while gap < 0.3:
        before = len(probing.answers)
        while len(probing.answers) == before:
            await probing.rounds(1)
        now = trio.current_time()
        gap, last = now - last, now
    figures(what=what, first_handshake_after=round(last - since, 3))


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
