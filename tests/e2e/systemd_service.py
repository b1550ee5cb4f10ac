"""wssup as a service of a real systemd: start, reload, death, restart, socket units, stop."""

from __future__ import annotations

import json
import re
import signal

import pytest
import trio

from tests.e2e.installed import (
    APPLICATION,
    MARKS,
    WSSUP,
    Service,
    everybody,
    figures,
    inside,
    many,
    said,
)
from tests.harness import processes
from tests.harness.clients import Prober, aside, ask, connected, crowd, prober

pytestmark = MARKS


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
