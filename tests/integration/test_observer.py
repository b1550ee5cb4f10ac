"""The observer's answers, and that nobody but itself pays for them."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness import processes
from tests.harness.instance import ECHO, Instance
from tests.harness.observer import Event, listening, observer, request, status_socket
from tests.harness.raw import raw_clients

Start = Callable[..., Instance]

#: What differs between two status documents of one moment and the next.
_MOVING = {"age", "lag_ms", "lag_max_ms", "stale"}


def still(document: Any) -> Any:
    """A document without what moves by itself."""
    if isinstance(document, dict):
        return {key: still(value) for key, value in document.items() if key not in _MOVING}
    return [still(item) for item in document] if isinstance(document, list) else document


def switches(pid: int) -> int:
    """How often a process was put on a processor (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def wait_for(events: Any, kind: str, name: str = "") -> Event:
    """The next event of a kind, or of a name."""
    deadline = time.monotonic() + 60
    for event in events:
        assert time.monotonic() < deadline, f"no {kind} {name}"
        if event.kind == kind and (not name or event.data["event"] == name):
            return event  # type: ignore[no-any-return]
    raise AssertionError(f"the stream ended without {kind} {name}")


def test_what_it_answers(start: Start) -> None:
    """/status is the document of ``wssup status``; each slot, health, readiness and metrics have
    their paths; what there is not is said in JSON; every answer forbids the browser all that the
    page does not need.
    """
    instance = start(status=True)
    instance.running()
    pid = observer(instance)
    with raw_clients(instance.address(), 3):
        instance.wait(lambda s: s["connections"]["active"] == 3, "the connections")
        answer = request(instance, "/status")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert still(answer.json()) == still(instance.status())
        slots = [request(instance, f"/workers/{n}").json() for n in (0, 1)]
        assert sum(s["workers"][0]["connections"]["active"] for s in slots) == 3
        assert [s["slot"] for s in slots] == [0, 1]
        assert {"latency", "lifetimes"} <= set(slots[0]["workers"][0])
        metrics = request(instance, "/metrics")
        assert b'state="active"' in metrics.body
        assert metrics.headers["content-type"].startswith("text/plain")
    assert request(instance, "/healthz").body == b"ok\n"
    assert request(instance, "/readyz", method="HEAD").body == b""
    found = {
        path: (request(instance, path).status, request(instance, path).json()["error"]["code"])
        for path in ("/workers/2", "/workers/x", "/nothing", "/assets/..%2fapp.py", "/publish/a")
    }
    assert found == {
        "/workers/2": (404, "no_slot"),
        "/workers/x": (404, "not_found"),
        "/nothing": (404, "not_found"),
        "/assets/..%2fapp.py": (404, "not_found"),
        "/publish/a": (405, "method_not_allowed"),
    }
    off = request(instance, "/publish/a", method="POST", body=b"x")
    assert (off.status, off.json()["error"]["code"]) == (404, "off")
    assert request(instance, "/status", method="DELETE").status == 405
    for answered in (answer, metrics, off, request(instance, "/nothing"), request(instance, "/")):
        assert "default-src 'none'" in answered.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answered.headers["content-security-policy"]
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert answered.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answered.headers
    assert request(instance, "/").headers["content-type"].startswith("text/html")
    assert stat.S_IMODE(status_socket(instance).stat().st_mode) == 0o666
    assert processes.title(pid) == "wssup: observer test"
    assert os.getsid(pid) == pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 5


def test_no_worker_is_asked(start: Start) -> None:
    """Workers that are stopped cannot be asked for anything: the observer answers for them, with
    their right counts. Nor do those that run wake for it: hundreds of requests cost them no switch
    of context.
    """
    instance = start(status=True, stall_after=60, hang_after=120)
    instance.running()
    observer(instance)
    workers = list(instance.workers().values())
    asked = ("/status", "/metrics", "/readyz", "/workers/0")
    before, began = [switches(pid) for pid in workers], time.monotonic()
    for number in range(200):
        assert request(instance, asked[number % len(asked)]).status == 200
    with_them, took = [switches(pid) for pid in workers], time.monotonic() - began
    time.sleep(took)
    without = [switches(pid) for pid in workers]
    # Their own heartbeats go on in both, not always as often: a process that the kernel puts aside
    # is late with some. A worker that was asked would have woken 200 times.
    rises = [(b - a, c - b) for a, b, c in zip(before, with_them, without, strict=True)]
    assert all(rise <= idle + 100 for rise, idle in rises), rises
    with raw_clients(instance.address(), 4):
        instance.wait(lambda s: s["connections"]["active"] == 4, "the connections")
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
            processes.until(lambda pid=pid: processes.state(pid) == "T", 10, "it to stop")
        stopped = [switches(pid) for pid in workers]
        try:
            for path in asked * 5:
                assert request(instance, path).status == 200
            status = request(instance, "/status").json()
            assert status["connections"]["active"] == 4
            assert [switches(pid) for pid in workers] == stopped
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)


def test_events(start: Start) -> None:
    """Who listens gets what has happened, then the state at once and each second, and what happens
    as it happens, numbered by the master; who comes back gets what it missed; ``past`` and
    ``state`` choose. The document of the observer has no traceback of the application.
    """
    instance = start(status=True, settle=0.1, drain_window=0.1)
    instance.running()
    observer(instance)
    with (
        listening(instance) as events,
        listening(instance, "/events?past=0&state=no") as others,
    ):
        first = wait_for(events, "lifecycle")
        assert (first.id, first.data["seq"], first.data["event"]) == (1, 1, "starting")
        assert {"at", "level", "workers"} <= set(first.data)
        running = wait_for(events, "lifecycle", "running")
        state = wait_for(events, "state")
        assert state.data["status"]["state"] == "running"
        following = wait_for(events, "state")
        assert 0.9 < following.data["at"] - state.data["at"] < 5
        assert instance.ask("reload")["result"]["outcome"] == "done"
        for stream in (events, others):
            assert wait_for(stream, "lifecycle", "reload_started")
            done = wait_for(stream, "lifecycle", "reload_done")
            assert done.data["gen"] == 2
        assert wait_for(events, "state").data["status"]["reloads"]["done"] == 1
    with listening(instance, Last_Event_ID=str(running.id)) as events:
        assert wait_for(events, "lifecycle").data["seq"] == running.data["seq"] + 1
    with listening(instance, "/events?past=1") as events:
        assert wait_for(events, "lifecycle").data["seq"] >= done.data["seq"]
    instance.source.write_text("raise ValueError('s3cret in a traceback')\n")
    assert instance.ask("reload")["result"]["outcome"] == "refused"
    known = request(instance, "/status").json()["last_reload"]
    processes.until(
        lambda: request(instance, "/status").json()["last_reload"]["outcome"] == "refused", 10, "it"
    )
    known = request(instance, "/status").json()["last_reload"]
    assert known["reason"]
    assert known["traceback"] is None
    assert instance.status()["last_reload"]["traceback"]


def test_its_death_touches_nobody(start: Start) -> None:
    """An observer that is killed, or hangs, is started again; who asks meanwhile waits and is
    answered; the events keep their numbers; and the connections of the service live on.
    """
    instance = start(status=True, hang_after=4, stall_after=0.5)
    instance.running()
    first = observer(instance)
    workers = instance.workers()
    with raw_clients(instance.address(), 3) as clients:
        instance.wait(lambda s: s["connections"]["active"] == 3, "the connections")
        with listening(instance) as events:
            starting = wait_for(events, "lifecycle")
            os.kill(first, signal.SIGKILL)
            assert wait_for_end(events)
        [lost] = instance.wait_logged("observer_lost")
        assert "SIGKILL" in lost["reason"]
        # Asked while there is none: the master's listener holds the request.
        assert request(instance, "/healthz").status == 200
        second = observer(instance)
        assert second != first
        with listening(instance) as events:
            again = wait_for(events, "lifecycle")
            assert again.data == starting.data
            assert wait_for(events, "lifecycle", "observer_lost")
        os.kill(second, signal.SIGSTOP)
        lost = instance.wait_logged("observer_lost", 2)[-1]
        assert "did not answer" in lost["reason"]
        observer(instance)
        assert request(instance, "/status").json()["observer"]["restarts"] == 2
        assert len(instance.wait_logged("observer_ready", 3)) == 3
        assert instance.workers() == workers
        for client in clients:
            assert client.ask("still there") == "still there"
        assert instance.status()["connections"]["closed"] == 0


def wait_for_end(events: Any) -> bool:
    """Whether a stream ends."""
    try:
        for _ in events:
            pass
    except OSError:
        return True
    return True


def test_signals_drain_and_stop(start: Start) -> None:
    """It ignores the signals of a terminal and a service manager, says during a drain that nothing
    should be sent here, ends its streams at the stop, and leaves no socket; a stop does not wait
    for it.
    """
    instance = start(status=True, drain_window=0.2, drain_timeout=60, limits={"close_timeout": 50})
    instance.running()
    pid = observer(instance)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert observer(instance) == pid
    with raw_clients(instance.address(), 1) as [client], listening(instance) as events:
        instance.wait(lambda s: s["connections"]["active"] == 1, "the connection")
        draining = instance.launch("drain")
        refusals: list[bytes] = []

        def refused() -> bool:
            answer = request(instance, "/readyz")
            refusals.extend([answer.body] if answer.status == 503 else [])
            return bool(refusals)

        processes.until(refused, 60, "it to drain")
        # From the first one on it is the reason, and not only that no worker accepts.
        assert refusals == [b"draining\n"]
        assert request(instance, "/healthz").status == 200
        assert request(instance, "/status").json()["state"] == "draining"
        assert wait_for(events, "lifecycle", "stopping").data["how"] == "drain"
        # It has not answered the closing handshake so far, which the drain waits for.
        assert client.ending().code == 1012
        assert draining.wait(60) == 0
        assert wait_for_end(events)
    assert instance.exited() == 0
    assert not status_socket(instance).exists()
    assert not processes.alive(pid)


def test_readiness(start: Start, tmp_path: Path) -> None:
    """While the application is imported /readyz says 503 with the reason, then 200, and 503 again
    when every worker stands still.
    """
    gate = tmp_path / "gate"
    waiting = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
    held = start(waiting + ECHO, status=True, stall_after=0.4, hang_after=60, workers=1)
    processes.until(lambda: status_socket(held).exists(), 30, "the socket")
    answer = request(held, "/readyz")
    assert (answer.status, answer.body) == (503, b"starting\n")
    assert request(held, "/healthz").status == 200
    held.let_import()
    held.running()
    observer(held)
    [worker] = held.workers().values()
    os.kill(worker, signal.SIGSTOP)
    processes.until(lambda: request(held, "/readyz").status == 503, 30, "the stall to be seen")
    assert request(held, "/readyz").body == b"no worker accepts\n"
    os.kill(worker, signal.SIGCONT)
    processes.until(lambda: request(held, "/readyz").status == 200, 30, "it to recover")
