"""The end of an instance, whoever asks for it and whatever it is doing."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.instance import ECHO, Instance
from tests.harness.raw import Raw, endings, raw_clients, request
from tests.harness.terminal import OnTerminal

Start = Callable[..., Instance]

#: Longer than any test lasts: what ends before has been told to.
LONG = 300.0
#: Its import and its start-up wait for files.
PATIENT = (
    ECHO
    + """
import time
from contextlib import asynccontextmanager
from pathlib import Path
import trio

def waits_for(name):
    blocker = Path(__file__).with_name(name)
    return blocker.exists()

Path(__file__).with_name("importing").touch()
while waits_for("slow-import"):
    time.sleep(0.01)

@asynccontextmanager
async def lifespan():
    Path(__file__).with_name("booting").touch()
    while waits_for("slow-start"):
        await trio.sleep(0.01)
    yield
"""
)


@contextmanager
def _leaves_nothing(instance: Instance) -> Iterator[None]:
    """Of what an instance has made, only its lock file is left after the body."""
    segment = instance.segment()
    assert segment.exists()
    family = processes.descendants(instance.pid)
    yield
    # Others may make descendants only while it runs.
    processes.until(
        lambda: not any(processes.alive(p) for p in family), 20, "all its processes to end"
    )
    assert not segment.exists()
    directory = instance.runtime_dir / instance.name
    assert [p.name for p in directory.iterdir()] == ["lock"]
    assert (directory / "lock").read_text() == ""
    assert "Traceback" not in instance.logged()


def _where(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _is_stopping(instance: Instance, state: str = "stopping") -> None:
    instance.wait(lambda s: s["state"] == state, f"state {state}")


def test_term_under_load_closes_everyone_with_1001(start: Start) -> None:
    """SIGTERM while clients talk closes every connection with 1001 and ends with status 0."""
    instance = start()
    instance.running()
    with _leaves_nothing(instance), raw_clients(instance.address(), 150) as clients:
        for client in clients:
            client.say("one")
            client.say("two")
        instance.signal(signal.SIGTERM)
        ends = endings(clients)
        assert {e.code for e in ends} == {1001}
        assert {tuple(e.texts) for e in ends} <= {(), ("one",), ("one", "two")}
        assert instance.exited() == 0
    ended = instance.events("worker_ended")
    assert sum(e["accepted"] for e in ended) == 150
    assert instance.events("worker_lost") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_stop_at_once(start: Start, number: int) -> None:
    """SIGINT and SIGQUIT close all connections at once with 1001, whatever the drain window is."""
    instance = start(drain_window=LONG, drain_timeout=LONG)
    instance.running()
    with _leaves_nothing(instance), raw_clients(instance.address(), 10) as clients:
        instance.signal(number)
        assert {e.code for e in endings(clients)} == {1001}
        assert instance.exited() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_slow_stop(start: Start, number: int) -> None:
    """While a stop takes its time, a second SIGTERM or a SIGINT makes it a fast one."""
    instance = start(drain_window=LONG, drain_timeout=LONG)
    instance.running()
    with _leaves_nothing(instance), raw_clients(instance.address(), 10) as clients:
        instance.signal(signal.SIGTERM)
        _is_stopping(instance)
        assert instance.process.poll() is None
        instance.signal(number)
        assert {e.code for e in endings(clients)} == {1001}
        assert instance.exited() == 0


def test_term_turns_a_long_drain_into_a_stop(start: Start) -> None:
    """SIGTERM during ``wssup drain`` over a long time closes what is left over the drain window."""
    instance = start()
    instance.running()
    with _leaves_nothing(instance), raw_clients(instance.address(), 10) as clients:
        drain = instance.launch("drain", "--over", f"{LONG}s")
        _is_stopping(instance, "draining")
        instance.signal(signal.SIGTERM)
        assert {e.code for e in endings(clients)} <= {1001, 1012}
        assert instance.exited() == 0
        output, _ = drain.communicate(timeout=60)
        assert drain.returncode == 0, output


def test_stop_command(start: Start) -> None:
    """``wssup stop`` closes everyone with 1001 and returns when the next instance can start."""
    instance = start()
    instance.running()
    with _leaves_nothing(instance), raw_clients(instance.address(), 10) as clients:
        address = instance.address()
        stop = instance.launch("stop")
        assert {e.code for e in endings(clients)} == {1001}
        output, _ = stop.communicate(timeout=60)
        assert (stop.returncode, output.splitlines()[-1]) == (0, "stopped test")
        with (instance.runtime_dir / "test" / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.create_server(_where(address)):
            pass
        assert instance.exited() == 0


def test_stop_fast_command(start: Start) -> None:
    """``wssup stop --fast`` closes everyone at once, also during a stop that takes its time."""
    instance = start(drain_window=LONG, drain_timeout=LONG)
    instance.running()
    with _leaves_nothing(instance), raw_clients(instance.address(), 10) as clients:
        slow = instance.launch("stop")
        _is_stopping(instance)
        fast = instance.launch("stop", "--fast")
        assert {e.code for e in endings(clients)} == {1001}
        for command in (slow, fast):
            output, _ = command.communicate(timeout=60)
            assert command.returncode == 0, output
        assert instance.exited() == 0


def test_drain_command_sheds_over_the_given_time(start: Start) -> None:
    """``wssup drain --over TIME`` closes everyone with 1012 spread over that time, takes nobody new
    meanwhile, and ends the instance with status 0.
    """
    over = 10
    instance = start(drain_window=0)
    instance.running()
    address = instance.address()
    with _leaves_nothing(instance), raw_clients(address, 30) as clients:
        drain = instance.launch("drain", "--over", f"{over}s")
        _is_stopping(instance, "draining")
        began = time.monotonic()
        # Each worker says so once it has closed its listeners.
        instance.wait_logged("draining", 2)
        # It may have to wait: the kernel drops what knocks in the first second.
        with ThreadPoolExecutor() as beside:
            coming = beside.submit(_late_comer, address)
            ends = endings(clients)
            late = coming.result()
        assert {e.code for e in ends} == {1012}
        times = sorted(e.at - began for e in ends)
        assert times[-1] - times[0] > over / 2, times
        assert times[len(times) // 2] - times[0] > over / 8, times
        assert late is None or late.rest() == b""
        if late is not None:
            late.socket.close()
        output, _ = drain.communicate(timeout=60)
        assert (drain.returncode, output.splitlines()[-1]) == (0, "drained and stopped test")
        assert instance.exited() == 0
    assert sum(e["accepted"] for e in instance.events("worker_ended")) == 30


def _late_comer(address: str) -> Raw | None:
    """A client that comes while an instance drains; None if it is refused."""
    try:
        late = Raw(address)
    except ConnectionRefusedError:
        return None
    late.socket.sendall(request())
    return late


def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """Ctrl-C closes everyone with 1001 and ends with status 0; the terminal shows no traceback."""
    instance = OnTerminal(tmp_path, "", {"log_format": "auto", "log_level": "info"})
    try:
        instance.running()
        processes.until(lambda: "wssup serves application:app" in instance.logged(), 60, "its text")
        with _leaves_nothing(instance), raw_clients(instance.address(), 10) as clients:
            instance.press_ctrl_c()
            assert {e.code for e in endings(clients)} == {1001}
            assert instance.exited() == 0
        # What it wrote last may be on its way through the terminal.
        processes.until(lambda: "SIGINT" in instance.logged(), 20, "the signal in the log")
        # Workers and zygote are in sessions of their own: it was the master's to tell them.
        assert "worker_lost" not in instance.logged()
    finally:
        instance.end()


def test_stop_while_the_application_is_imported(start: Start, tmp_path: Path) -> None:
    """A stop during the import ends at once, with status 0, and the importing process with it."""
    (tmp_path / "slow-import").touch()
    instance = start(PATIENT)
    processes.until((tmp_path / "importing").exists, 60, "the import")
    with _leaves_nothing(instance):
        instance.signal(signal.SIGTERM)
        assert instance.exited(20) == 0


def test_stop_while_workers_start(start: Start, tmp_path: Path) -> None:
    """A stop while the application's start-up runs cancels it and ends with status 0."""
    (tmp_path / "slow-start").touch()
    instance = start(PATIENT, drain_window=LONG, drain_timeout=LONG)
    processes.until((tmp_path / "booting").exists, 60, "the start-up")
    with _leaves_nothing(instance):
        assert instance.run("stop").returncode == 0
        assert instance.exited() == 0
    assert instance.events("worker_ready") == []
    assert instance.events("worker_lost") == []


@pytest.mark.parametrize("phase", ["importing", "starting", "settling", "draining"])
def test_stop_during_a_reload(start: Start, tmp_path: Path, phase: str) -> None:
    """A stop in any phase of a reload closes everyone, ends both generations, and the command that
    waited for the reload says that it failed.
    """
    settle = LONG if phase == "settling" else 0.2
    instance = start(PATIENT, settle=settle, drain_window=0)
    instance.running()
    with _leaves_nothing(instance), raw_clients(instance.address(), 10) as clients:
        if phase == "importing":
            (tmp_path / "importing").unlink()
            (tmp_path / "slow-import").touch()
        elif phase == "starting":
            (tmp_path / "booting").unlink()
            (tmp_path / "slow-start").touch()
        elif phase == "draining":
            # These are closed over the window of the reload; the stop must not wait for it.
            instance.reconfigure(drain_window=LONG, drain_timeout=LONG)
        reload = instance.launch("reload")
        processes.until(
            lambda: phase in {e["phase"] for e in instance.events("reload_phase")}, 60, phase
        )
        if phase in {"importing", "starting"}:
            started = {"importing": "importing", "starting": "booting"}[phase]
            processes.until((tmp_path / started).exists, 60, started)
        instance.signal(signal.SIGINT)
        codes = [e.code for e in endings(clients)]
        if phase == "draining" and 1012 in codes:
            # One whose turn in the window came between the beginning of the phase and the stop.
            codes.remove(1012)
        assert set(codes) == {1001}
        assert instance.exited() == 0
        output, _ = reload.communicate(timeout=60)
        assert reload.returncode == 1, output
        assert "Traceback" not in output


def test_a_client_that_does_not_answer_cannot_hold_up_a_stop(start: Start) -> None:
    """Clients that never answer the close are cut off at drain_timeout and counted so."""
    instance = start(drain_window=0.1, drain_timeout=5)
    instance.running()
    with _leaves_nothing(instance), raw_clients(instance.address(), 4):
        instance.signal(signal.SIGTERM)
        assert instance.exited() == 0
    assert sum(e["left"] for e in instance.events("drain_deadline")) == 4
    assert [e["reason"] for e in instance.events("closed")] == ["deadline"] * 4
    assert instance.events("worker_lost") == []


def test_a_stop_kills_what_does_not_end(start: Start) -> None:
    """A worker that is stopped (SIGSTOP) does not keep the instance from ending."""
    instance = start(drain_window=0, drain_timeout=1)
    instance.running()
    with _leaves_nothing(instance):
        os.kill(instance.workers()[0], signal.SIGSTOP)
        instance.signal(signal.SIGINT)
        assert instance.exited(60) == 0
    assert instance.events("worker_overdue")
