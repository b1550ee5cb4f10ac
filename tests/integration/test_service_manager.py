"""What a real master says to a service manager, which the test plays (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.clients import aside, crowd
from tests.harness.service_manager import ServiceManager
from tests.integration.conftest import Launch


@pytest.fixture(params=["path", "abstract"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    """A service manager on either kind of socket."""
    abstract = request.param == "abstract"
    found = ServiceManager(f"@wssup-test-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    yield found
    found.close()


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
    either.wait("READY", count=2)
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
    either.wait("STOPPING")
    assert len(either.told("STOPPING")) == 1
    assert either.told("STOPPING")[0]["STATUS"].startswith("stopping, gen 2: ")
    either.catch_up()
    assert either.told("EXTEND_TIMEOUT_USEC")
    assert not [d for d in either.heard[either.heard.index(either.told("STOPPING")[0]) :]
                if "READY" in d]  # fmt: skip


def test_a_refused_reload_ends_with_ready_too(manager: ServiceManager, launch: Launch) -> None:
    """A reload of broken code is over when it is refused: the service is ready as before."""
    instance = launch(manager)
    manager.wait("READY")
    instance.source.write_text("import nothing_of_that_name\n")
    assert instance.run("reload").returncode == 1
    manager.wait("READY", count=2)
    assert [("READY" in d) for d in manager.heard if "READY" in d or "RELOADING" in d][-2:] == [
        False,
        True,
    ]
    assert manager.told("READY")[-1]["STATUS"] == "gen 1: 2/2 ready, 0 connections"


def test_not_ready_without_workers(manager: ServiceManager, launch: Launch) -> None:
    """An application that cannot be imported, or whose workers cannot start, is never ready."""
    instance = launch(manager, application="import nothing_of_that_name\n")
    assert instance.exited() == 1
    manager.wait("STOPPING")
    assert not manager.told("READY")


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
    gaps = []
    for _ in range(7):
        began = time.monotonic()
        manager.wait("WATCHDOG", count=len(manager.told("WATCHDOG")) + 1)
        gaps.append(time.monotonic() - began)
    assert sorted(gaps)[3] < 0.75
    os.kill(instance.workers()[0], signal.SIGKILL)
    manager.wait("WATCHDOG", count=len(manager.told("WATCHDOG")) + 2)
    # When it goes on, its loop and the thread that writes where the loop stood go on at once, and
    # sometimes the loop is first.
    for _ in range(10):
        instance.signal(signal.SIGSTOP)
        processes.until(
            lambda: processes.state(instance.pid) == "T", 10, "the master to stand still"
        )
        manager.catch_up()
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
    manager.catch_up()
    count = len(manager.told("WATCHDOG"))
    time.sleep(1.0)
    # One may have been said between the last try and the verdict.
    assert len(manager.told("WATCHDOG")) <= count + 1
    instance.wait_logged("watchdog_unfed")
    assert len(instance.events("watchdog_unfed")) == 1


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
