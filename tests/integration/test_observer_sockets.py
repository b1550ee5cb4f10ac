"""The sockets of the observer: whose they are, who may ask, and what is left of them."""

from __future__ import annotations

import signal
import stat
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.observer import dial, observer, request, status_socket
from tests.harness.ports import free_port
from tests.harness.raw import raw_clients

Start = Callable[..., Instance]


def test_tcp(start: Start) -> None:
    """On loopback it answers to names of this machine only, so that no page of a foreign name can
    read it through a browser; a port that is taken ends the start with one clear line.
    """
    port = free_port()
    where = f"127.0.0.1:{port}"
    instance = start(status=True, status_bind=where, status_mode="0600")
    instance.running()
    observer(instance)
    assert stat.S_IMODE(status_socket(instance).stat().st_mode) == 0o600
    for host in (where, "localhost", f"LOCALHOST:{port}", "app.localhost", "[::1]:80"):
        assert request(where, "/status", Host=host).status == 200, host
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1"):
        refused = request(where, "/status", Host=host)
        assert (refused.status, refused.json()["error"]["code"]) == (421, "wrong_host"), host
        assert request(instance, "/status", Host=host).status == 200
    assert not instance.events("status_exposed")
    second = start(status=True, status_bind=where, name="second")
    assert second.exited() == 2
    said = second.logged()
    assert f"status_bind {where} is in use" in said
    assert "Traceback" not in said
    assert not status_socket(second).exists()


def test_everywhere_is_warned_of(start: Start) -> None:
    """An address that others reach is said in the log, and answers to any name. A master that was
    killed leaves a socket and a port; its successor takes both.
    """
    port = free_port()
    instance = start(status=True, status_bind=f"0.0.0.0:{port}")
    instance.running()
    pid = observer(instance)
    [warned] = instance.events("status_exposed")
    assert (warned["level"], warned["bind"]) == ("warning", f"0.0.0.0:{port}")
    instance.signal(signal.SIGKILL)
    instance.exited()
    processes.until(lambda: not processes.alive(pid), 10, "the observer to die with its master")
    assert status_socket(instance).exists()
    after = start(status=True, status_bind=f"0.0.0.0:{port}")
    after.running()
    observer(after)
    assert request(f"127.0.0.1:{port}", "/healthz").status == 200
    instance.end()


def test_a_flood_touches_nobody_who_is_served(start: Start) -> None:
    """While the observer is held by slow clients and asked without pause, it is the same process,
    the service answers as ever, and so do the commands.
    """
    instance = start(status=True, workers=1)
    instance.running()
    pid = observer(instance)
    with raw_clients(instance.address(), 3) as clients, ExitStack() as stack:
        for number in range(150):
            held = stack.enter_context(dial(status_socket(instance)))
            whole = b"\r\n\r\n" if number % 3 == 0 else b""
            held.sendall(b"GET /events HTTP/1.1\r\nHost: x" + whole)
        over = threading.Event()
        asked: list[int] = []

        def ask() -> None:
            while not over.is_set():
                asked.append(request(instance, "/metrics").status)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        try:
            for number in range(200):
                began = time.monotonic()
                assert clients[number % 3].ask("there") == "there"
                assert time.monotonic() - began < 8
            assert instance.status()["observer"]["restarts"] == 0
            processes.until(lambda: len(asked) > 20, 30, "some answers")
        finally:
            over.set()
            for thread in asking:
                thread.join()
        assert set(asked) <= {200, 503}
        assert 200 in asked
    assert observer(instance) == pid


def test_none_is_wanted(start: Start) -> None:
    """``status = false``: no process, no socket."""
    instance = start(status=False)
    instance.running()
    nothing = {"pid": None, "restarts": 0, "socket": None, "bind": None}
    assert instance.status()["observer"] == nothing
    assert not status_socket(instance).exists()
    assert not [p for p in processes.children(instance.pid) if "observer" in processes.title(p)]
    instance.configure(**(instance.settings | {"status": True}))
    assert instance.ask("reload")["result"]["outcome"] == "done"
    assert instance.events("setting_needs_restart")[0]["key"] == "status"
