"""A real master under a service manager that the test plays: what it says, and the descriptors that
it leaves there and takes back.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.harness import kernel, processes
from tests.harness.clients import aside, crowd, prober
from tests.harness.service_manager import Serviced, ServiceManager

Launch = Callable[..., Serviced]


@pytest.fixture(params=["path", "abstract"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    """A service manager on either kind of socket."""
    abstract = request.param == "abstract"
    found = ServiceManager(f"@wssup-test-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    yield found
    found.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    found = ServiceManager(str(tmp_path / "notify"))
    yield found
    found.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start instances under a manager; ended with the test."""
    started: list[Serviced] = []

    def starting(
        manager: ServiceManager | None, *, kept: object = None, **settings: object
    ) -> Serviced:
        options = {k: settings.pop(k) for k in ("passed", "environment", "application", "store")
                   if k in settings}  # fmt: skip
        instance = Serviced(tmp_path, manager, settings, **options)  # type: ignore[arg-type]
        started.append(instance)
        return instance

    yield starting
    for instance in started:
        instance.end()
        print(*instance.logged().splitlines()[-100:], sep="\n")  # noqa: T201


def test_what_is_said_from_start_to_end(either: ServiceManager, launch: Launch) -> None:
    """READY comes once all workers are ready, with a status that counts them; a reload is told with
    its time in the same datagram, and READY again before its command has ended; STOPPING is told,
    and while connections are waited for, more time is asked for. Children get nothing of it.
    """
    instance = launch(either)
    either.wait("READY")
    (first,) = either.told("READY")
    assert first["STATUS"] == "gen 1: 2/2 ready, 0 connections"
    assert len(instance.workers()) == 2
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert instance.run("reload").returncode == 0
    assert len(either.told("READY")) == 2
    (reloading,) = either.told("RELOADING")
    assert before < int(reloading["MONOTONIC_USEC"]) < time.monotonic_ns() // 1000
    assert reloading["STATUS"].startswith("reloading, gen 1: ")
    assert either.told("READY")[-1]["STATUS"] == "gen 2: 2/2 ready, 0 connections"
    for pid in processes.descendants(instance.pid):
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        for name in (b"NOTIFY_SOCKET=", b"FDSTORE=", b"LISTEN_", b"WATCHDOG_"):
            assert b"\0" + name not in b"\0" + environ
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    assert len(either.told("STOPPING")) == 1
    assert either.told("STOPPING")[0]["STATUS"].startswith("stopping, gen 2: ")
    assert either.told("EXTEND_TIMEOUT_USEC")
    assert not [d for d in either.heard[either.heard.index(either.told("STOPPING")[0]) :]
                if "READY" in d]  # fmt: skip


def test_a_refused_reload_ends_with_ready_too(manager: ServiceManager, launch: Launch) -> None:
    """A reload of broken code is over when it is refused: the service is ready as before."""
    instance = launch(manager)
    manager.wait("READY")
    instance.source.write_text("import nothing_of_that_name\n")
    assert instance.run("reload").returncode == 1
    assert [("READY" in d) for d in manager.heard if "READY" in d or "RELOADING" in d][-2:] == [
        False,
        True,
    ]
    assert manager.told("READY")[-1]["STATUS"] == "gen 1: 2/2 ready, 0 connections"


def test_not_ready_without_workers(manager: ServiceManager, launch: Launch) -> None:
    """An application that cannot be imported, or whose workers cannot start, is never ready."""
    instance = launch(manager, application="import nothing_of_that_name\n")
    assert instance.exited() == 1
    assert not manager.told("READY")
    assert manager.told("STOPPING")


async def test_status_counts_connections(manager: ServiceManager, launch: Launch) -> None:
    """The status line follows the number of connections."""
    instance = launch(manager)
    await aside(manager.wait, "READY")
    async with crowd(instance.url(), 7):
        await aside(manager.wait, "STATUS", "gen 1: 2/2 ready, 7 connections")


def test_watchdog(manager: ServiceManager, launch: Launch) -> None:
    """The watchdog hears from the master twice in its time, on and on through the loss of a worker;
    a master that is stopped says nothing, and one whose slots are all given up says nothing either.
    """
    instance = launch(
        manager,
        environment={"WATCHDOG_USEC": "1000000"},
        failure_budget=2,
        backoff_max=0.1,
        workers=1,
    )
    manager.wait("READY")
    began = time.monotonic()
    count = len(manager.told("WATCHDOG"))
    manager.wait("WATCHDOG", count=count + 6)
    assert time.monotonic() - began < 6 * 0.75
    os.kill(instance.workers()[0], signal.SIGKILL)
    manager.wait("WATCHDOG", count=len(manager.told("WATCHDOG")) + 2)
    # When it goes on, its loop and the thread that writes where the loop stood go on at once, and
    # sometimes the loop is first.
    for _ in range(10):
        instance.signal(signal.SIGSTOP)
        processes.until(
            lambda: processes.state(instance.pid) == "T", 10, "the master to stand still"
        )
        count = len(manager.told("WATCHDOG"))
        time.sleep(1.2)
        assert len(manager.told("WATCHDOG")) == count
        instance.signal(signal.SIGCONT)
        manager.wait("WATCHDOG", count=count + 1)
        if "the loop has not turned for 0.9 s:" in instance.logged():
            break
    else:
        pytest.fail("nothing was written of where the loop stood")


def test_watchdog_of_lost_slots(manager: ServiceManager, launch: Launch, tmp_path: Path) -> None:
    """Once no slot has a worker or will have one, the watchdog hears nothing more."""
    gate = tmp_path / "fail"
    instance = launch(
        manager,
        application=f"""\
import contextlib, pathlib
import wssup

@contextlib.asynccontextmanager
async def lifespan():
    if pathlib.Path({str(gate)!r}).exists():
        raise RuntimeError("broken")
    yield

class App:
    def on_receive(self, ws, data):
        ws.send_nowait(data)

app = App()
""",
        environment={"WATCHDOG_USEC": "400000"},
        failure_budget=2,
        backoff_max=0.1,
        workers=1,
    )
    manager.wait("READY")
    gate.touch()
    os.kill(instance.workers()[0], signal.SIGKILL)
    instance.wait_logged("slot_failed")
    count = len(manager.told("WATCHDOG"))
    time.sleep(1.0)
    # One may have been said between the last try and the verdict.
    assert len(manager.told("WATCHDOG")) <= count + 1
    assert len(instance.events("watchdog_unfed")) == 1


async def test_a_restart_refuses_nobody(manager: ServiceManager, launch: Launch) -> None:
    """The listeners of all slots are in the store while the instance runs. Through a stop and a
    start, during which nobody accepts, connects wait and are answered by the new master; none is
    refused or reset. The new one has the same listeners and stores nothing twice.
    """
    instance = launch(manager, drain_window=0.1)
    await aside(manager.wait, "READY")
    url, port = instance.url(), int(instance.address().rpartition(":")[2])
    assert len(manager.store) == 2
    assert all(re.fullmatch(r"wssup-[0-9a-f]{16}-[01]", name) for name in manager.store)
    assert all(d["FDPOLL"] == "0" for d in manager.told("FDSTORE"))
    listening = kernel.listening(port)
    async with prober(url, 4, stops=True) as probing:
        await probing.rounds(20)
        instance.signal(signal.SIGTERM)
        assert await aside(instance.exited) == 0
        assert kernel.listening(port) == listening
        instance.restarted()
        await aside(manager.wait, "READY", "1", 2)
        await probing.rounds(20)
    assert not probing.failures
    assert kernel.listening(port) == listening
    assert len(manager.told("FDSTORE")) == 2
    assert not manager.told("FDSTOREREMOVE")
    assert {e["count"] for e in instance.events("listeners_taken")} == {2}


async def test_a_killed_master_refuses_nobody(manager: ServiceManager, launch: Launch) -> None:
    """When the master is killed, clients are told 1012; connects wait until a new master has the
    listeners, and none is refused.
    """
    instance = launch(manager, drain_window=0.1)
    await aside(manager.wait, "READY")
    url = instance.url()
    async with crowd(url, 20) as people, prober(url, 4) as probing:
        await probing.rounds(20)
        family = processes.descendants(instance.pid)
        instance.signal(signal.SIGKILL)
        await aside(instance.exited)

        def gone() -> bool:
            for pid in family:
                processes.reap(pid)
            return not any(processes.alive(pid) for pid in family)

        await aside(processes.until, gone, 60, "the workers to end")
        instance.restarted()
        await aside(manager.wait, "READY", "1", 2)
        await probing.rounds(20)
        assert not probing.failures
        await people.wait(lambda: not people.live, "all to be told")
        assert set(people.codes) == {1012}


def test_fewer_workers_after_a_restart(manager: ServiceManager, launch: Launch) -> None:
    """A restart with fewer workers parks the listeners that are too many: they are lent, and every
    connect is answered; with more workers further ones join them and are stored.
    """
    instance = launch(manager, workers=3)
    manager.wait("READY")
    bind = instance.address()
    for workers, stored in ((1, 3), (4, 4)):
        instance.signal(signal.SIGTERM)
        assert instance.exited() == 0
        instance.reconfigure(workers=workers)
        instance.restarted()
        status = instance.running()
        assert sum(s["state"] == "ready" for s in status["slots"]) == workers
        assert status["bind"] == [bind]
        assert len(manager.store) == stored

        async def many() -> None:
            async with prober(instance.url(), 4) as probing:
                await probing.rounds(60)
            assert not probing.failures

        trio.run(many)


def test_addresses_that_come_and_go(
    manager: ServiceManager, launch: Launch, tmp_path: Path
) -> None:
    """An address that a reload adds is stored, and one that it removes leaves the store once it is
    closed. What the store has of addresses that are not configured any more is dropped with a
    warning, and so is what is no listener.
    """
    sock = f"unix:{tmp_path}/app.sock"
    instance = launch(manager, bind=["127.0.0.1:0", sock], address_linger=0.1)
    manager.wait("READY")
    assert len(manager.store) == 3
    instance.reconfigure(bind=["127.0.0.1:0", "127.0.0.2:0"])
    assert instance.run("reload").returncode == 0
    instance.wait_logged("address_closed")
    processes.until(lambda: len(manager.store) == 4, 10, "the store to follow")
    assert not (tmp_path / "app.sock").exists()
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    manager.store["stray"] = os.open("/dev/null", os.O_RDONLY)
    instance.reconfigure(bind=["127.0.0.2:0"])
    instance.restarted()
    manager.wait("READY", count=3)
    assert len(manager.store) == 2
    dropped = instance.events("descriptor_dropped")
    assert {e["name"] for e in dropped} == {"stray"} | {
        e["name"] for e in dropped if e.get("where")
    }
    assert len(dropped) == 3


async def test_a_unix_socket_through_a_restart(
    manager: ServiceManager, launch: Launch, tmp_path: Path
) -> None:
    """The file of a unix socket stays through a restart, and connects wait; when it was removed
    meanwhile, a new socket is made.
    """
    sock = tmp_path / "app.sock"
    instance = launch(manager, bind=[f"unix:{sock}"], drain_window=0.1)
    await aside(manager.wait, "READY")
    async with prober(f"unix:{sock}", 2, stops=True) as probing:
        await probing.rounds(5)
        instance.signal(signal.SIGTERM)
        assert await aside(instance.exited) == 0
        assert sock.is_socket()
        instance.restarted()
        await aside(manager.wait, "READY", "1", 2)
        await probing.rounds(5)
    assert not probing.failures
    instance.signal(signal.SIGTERM)
    assert await aside(instance.exited) == 0
    sock.unlink()
    instance.restarted()
    await aside(manager.wait, "READY", "1", 3)
    async with prober(f"unix:{sock}", 1) as probing:
        await probing.rounds(2)
    assert "its file is gone" in instance.events("descriptor_dropped")[0]["reason"]


def test_a_small_store(manager: ServiceManager, launch: Launch) -> None:
    """What does not fit into the store is said once; what fits outlives the master."""
    instance = launch(manager, workers=3, store=2)
    manager.wait("READY")
    assert len(manager.store) == 2
    assert len(instance.events("fdstore_full")) == 1
    port = int(instance.address().rpartition(":")[2])
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    assert len(kernel.listening(port)) == 2


def reuseport(count: int) -> list[socket.socket]:
    """Listeners as a socket unit with ReusePort=yes makes them."""
    made: list[socket.socket] = []
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", made[0].getsockname()[1] if made else 0))
        sock.listen(64)
        made.append(sock)
    return made


@pytest.mark.parametrize(("count", "workers"), [(1, 3), (2, 3), (3, 1)])
async def test_socket_activation(
    launch: Launch, manager: ServiceManager, count: int, workers: int
) -> None:
    """The listeners of a socket unit become the slots'; fewer of them are shared, and shared by
    slots that come later, and more of them are lent. None is stored or bound anew, and every worker
    serves. Through a stop and a start connects wait.
    """
    sockets = reuseport(count)
    port = sockets[0].getsockname()[1]
    instance = launch(
        manager,
        passed=[("wssup", s.fileno()) for s in sockets],
        bind=f"127.0.0.1:{port}",
        workers=workers,
        drain_window=0.1,
    )
    await aside(manager.wait, "READY")
    assert not manager.store
    url = instance.url()
    async with prober(url, 4, stops=True) as probing:
        # Of a shared listener the kernel does not promise who takes the next connection.
        with trio.fail_after(60):
            while {a.split()[0] for a in probing.answers} != {str(s) for s in range(workers)}:
                await probing.rounds(1)
        scaled = await aside(instance.run, "scale", str(workers + 1))
        assert scaled.returncode == 0
        await probing.rounds(40)
        instance.signal(signal.SIGTERM)
        assert await aside(instance.exited) == 0
        instance.restarted()
        await aside(manager.wait, "READY", "1", 2)
        await probing.rounds(20)
    assert not probing.failures
    assert len(kernel.listening(port)) == count
    for sock in sockets:
        sock.close()


def test_a_socket_unit_of_another_address(launch: Launch, manager: ServiceManager) -> None:
    """A listener that no bind names is a clear error, and nothing is started; a reload that drops
    the address of a socket unit is refused.
    """
    (sock,) = reuseport(1)
    port = sock.getsockname()[1]
    wrong = launch(manager, passed=[("wssup", sock.fileno())], bind="127.0.0.1:1")
    assert wrong.exited() == 2
    assert (
        f"the service's socket unit passes a listener on 127.0.0.1:{port} (named 'wssup'), "
        "which bind does not name (127.0.0.1:1)" in wrong.logged()
    )
    assert not manager.told("READY")
    right = launch(
        manager, name="right", passed=[("wssup", sock.fileno())], bind=f"127.0.0.1:{port}"
    )
    manager.wait("READY")
    right.reconfigure(bind="127.0.0.1:0")
    refused = right.run("reload")
    assert refused.returncode == 1
    assert f"bind no longer names 127.0.0.1:{port}" in refused.stderr
    assert right.status()["generation"] == 1
    sock.close()


def test_without_a_service_manager(launch: Launch) -> None:
    """Descriptors that are meant for another process, and a manager that is gone, are nothing."""
    instance = launch(
        None, environment={"LISTEN_PID": "1", "LISTEN_FDS": "3", "NOTIFY_SOCKET": "/nowhere/at/all"}
    )
    instance.running()
    assert not instance.events("descriptor_dropped")
    closed = launch(None, name="closed", environment={"LISTEN_FDS": "2"})
    closed.running()
    assert not closed.events("descriptor_dropped")


def test_a_reload_by_signal(manager: ServiceManager, launch: Launch) -> None:
    """A HUP is told like any reload, as Type=notify-reload wants it. One that is refused because
    another is under way is told as begun, and over when that is.
    """
    instance = launch(manager)
    manager.wait("READY")
    instance.hold_import()
    instance.signal(signal.SIGHUP)
    manager.wait("RELOADING")
    instance.signal(signal.SIGHUP)
    manager.wait("RELOADING", count=2)
    assert len(manager.told("READY")) == 1
    first, second = (int(d["MONOTONIC_USEC"]) for d in manager.told("RELOADING"))
    assert first < second
    instance.let_import()
    manager.wait("READY", count=2)
    assert len(instance.events("reload_done")) == 1


def test_everybody_is_told_to_stop(manager: ServiceManager, launch: Launch) -> None:
    """A service manager signals all processes at a stop, and may do so again and again: workers end
    in order, whatever moment of their end it meets, and so does the master.
    """
    instance = launch(manager, drain_window=0.1, workers=4)
    for count in range(1, 4):
        manager.wait("READY", count=count)
        workers = set(instance.workers().values())
        family = processes.descendants(instance.pid)
        instance.signal(signal.SIGTERM)
        while any(processes.alive(pid) for pid in workers):
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        assert instance.exited() == 0
        assert "ExceptionGroup" not in instance.logged()
        instance.restarted()
