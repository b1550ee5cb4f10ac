"""The bridge beside a real instance whose server cannot be reached, and what is told of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness import processes
from tests.harness.clients import ask
from tests.harness.instance import Instance
from tests.harness.ports import free_port

Start = Callable[..., Instance]

_MARK = "Zq7pAssw0rd"


def bridged(start: Start, **settings: object) -> Instance:
    """An instance with a bridge whose server is not there."""
    bus = f"redis://user:{_MARK}@127.0.0.1:{free_port()}/0"
    return start(topics={"bus": bus}, **settings)


def bridge(instance: Instance, pid: int | None = None) -> dict[str, Any]:
    """What is told of the bridge, once one other than that runs and looks for its server."""

    def looks(status: dict[str, Any]) -> bool:
        found = status["topics"]["bridge"]
        return found["state"] == "connecting" and found["pid"] not in (None, pid)

    status = instance.wait(looks, "the bridge")
    found: dict[str, Any] = status["topics"]["bridge"]
    return found


def test_an_instance_serves_without_its_server(start: Start) -> None:
    """Workers serve and topics work while the bridge looks for its server; status says why it has
    none; the bridge ends with the instance.
    """
    instance = bridged(start)
    instance.running()
    found = bridge(instance)
    assert found["restarts"] == 0
    assert found["url"].startswith("redis://user:***@127.0.0.1:")
    assert "wssup: bridge test" in processes.title(found["pid"])
    status = instance.wait(lambda s: s["topics"]["bridge"]["fault"] == "refused", "the reason")
    assert status["topics"]["bridge"]["connected_for"] is None
    assert trio.run(ask, instance.url()) == "hello"
    page = instance.run("status").stdout
    assert "connecting (last: refused); 0 sent, 0 received" in page
    done = instance.run("stop")
    assert done.returncode == 0
    assert instance.exited() == 0
    assert not processes.alive(found["pid"])
    assert not instance.events("bridge_overdue")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_its_death_touches_nobody(start: Start, number: int) -> None:
    """A bridge that dies, or stands still, is replaced, and no worker notices."""
    instance = bridged(start, stall_after="500ms", hang_after="4s", ready_timeout=30)
    before = instance.running()
    workers = instance.workers()
    pid = bridge(instance)["pid"]
    os.kill(pid, number)
    found = bridge(instance, pid)
    assert found["restarts"] == 1
    assert not processes.alive(pid)
    lost = instance.wait_logged("bridge_lost")[0]
    expected = "killed by SIGKILL" if number == signal.SIGKILL else "its loop did not turn for"
    assert expected in lost["reason"]
    assert trio.run(ask, instance.url()) == "hello"
    status = instance.status()
    assert instance.workers() == workers
    assert status["restarts"] == before["restarts"] == 0


def test_a_reload_keeps_it(start: Start) -> None:
    """A reload replaces the workers and not the bridge, and says that its settings are not live."""
    instance = bridged(start, settle=0.1)
    instance.running()
    pid = bridge(instance)["pid"]
    instance.reconfigure(topics={"bus": "embedded"})
    done = instance.run("reload")
    assert done.returncode == 0, done.stderr
    assert "topics.bus" in done.stdout + done.stderr + instance.logged()
    assert bridge(instance)["pid"] == pid


def test_a_reload_with_another_history(start: Start) -> None:
    """What the bridge does with topics is settled when it starts, so a change of it by a reload
    replaces the bridge; that is no loss.
    """
    instance = bridged(start, settle=0.1)
    instance.running()
    pid = bridge(instance)["pid"]
    topics = instance.settings["topics"]
    assert isinstance(topics, dict)
    instance.reconfigure(topics=topics | {"history": 5})
    done = instance.run("reload")
    assert done.returncode == 0, done.stderr
    found = bridge(instance, pid)
    assert (found["restarts"], found["error"]) == (0, None)
    assert not processes.alive(pid)
    assert len(instance.events("bridge_renewed")) == 1
    assert instance.events("bridge_lost") == []


def test_a_killed_master_takes_it_along(start: Start) -> None:
    """When the master is killed the bridge ends by itself."""
    instance = bridged(start, workers=1)
    instance.running()
    pid = bridge(instance)["pid"]
    family = processes.descendants(instance.pid)
    assert pid in family
    instance.signal(signal.SIGKILL)
    instance.exited()
    for member in family:
        processes.until(lambda m=member: not processes.alive(m), 30, f"the end of {member}")


def memory(pid: int) -> bytes:
    """What a process has in its writable memory (proc_pid_mem(5))."""
    found = []
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in maps:
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                low, high = (int(end, 16) for end in place.split("-"))
                # Some mappings of the kernel's are not to be read.
                with contextlib.suppress(OSError):
                    file.seek(low)
                    found.append(file.read(high - low))
    return b"".join(found)


def test_the_password_is_nowhere(start: Start) -> None:
    """Neither log, status, settings, errors nor the command line of any process show the password;
    and the processes that run the application do not have it.
    """
    instance = bridged(start)
    instance.running()
    pid = bridge(instance)["pid"]
    assert _MARK.encode() in memory(pid)
    others = {p for p in processes.descendants(instance.pid) if processes.alive(p)} - {pid}
    assert len(others) == 3
    assert [other for other in others if _MARK.encode() in memory(other)] == []
    os.kill(pid, signal.SIGKILL)
    instance.wait_logged("bridge_lost")
    bridge(instance, pid)
    shown = instance.run("config").stdout
    assert '"redis://user:***@127.0.0.1:' in shown
    told = [
        shown,
        json.dumps(instance.status()),
        instance.run("status").stdout,
        json.dumps(instance.ask("config")),
        instance.run("config", "--given").stdout,
        instance.run("config", "--json").stdout,
        *(
            Path(f"/proc/{member}/cmdline").read_text()
            for member in (instance.pid, *processes.descendants(instance.pid))
        ),
    ]
    instance.reconfigure(topics={"bus": f"redis://user:{_MARK}@127.0.0.1:99999/0"})
    refused = instance.run("reload")
    assert "port" in refused.stderr
    told += [refused.stdout, refused.stderr, instance.run("config").stderr, instance.logged()]
    assert [number for number, text in enumerate(told) if _MARK in text] == []


def test_a_masked_password_is_no_password(start: Start) -> None:
    """A file made of what was shown is refused, with the reason."""
    instance = start(topics={"bus": "redis://user:***@127.0.0.1"})
    assert instance.exited() == 2
    assert "its password is hidden" in instance.logged()
