"""The sockets of the observer: whose they are, who may ask, and what is left of them."""

from __future__ import annotations

import signal
import stat
from collections.abc import Callable

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.observer import free_port, observer, request, status_socket

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
