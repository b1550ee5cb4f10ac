"""The audit of an instance whose master and worker is this process: what it is not misled by."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import pytest
from control_peer import Peer

from tests.harness.processes import until
from tests.harness.tracing import may_ask
from wssup.cli import audit as auditing
from wssup.cli.main import main

Sockets = Callable[[int], tuple[socket.socket, list[socket.socket], list[socket.socket]]]
PATIENCE = 60
#: More than the sockets that this process has from what ran before: each of these could be one of
#: those that are missing.
MANY = 1000
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER (socket(7)): the connection ends without a word."""


@pytest.fixture
def listen() -> Iterator[Sockets]:
    """A listener with accepted connections and their clients, all closed in the end."""
    with ExitStack() as stack:

        def made(count: int) -> tuple[socket.socket, list[socket.socket], list[socket.socket]]:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            clients, served = [], []
            for _ in range(count):
                clients.append(
                    stack.enter_context(socket.create_connection(listener.getsockname()))
                )
                served.append(stack.enter_context(listener.accept()[0]))
            return listener, served, clients

        yield made


def port(listener: socket.socket) -> int:
    """Where it listens."""
    found: int = listener.getsockname()[1]
    return found


class Audit:
    """Audits an instance that says of itself what it is told to."""

    def __init__(self, peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
        self._peer = peer.lock().listen()
        self._capsys = capsys

    def status(self, bind: str, count: int, **changes: Any) -> None:
        """Have it serve one address, with a worker that counts so many connections."""
        worker = {"serial": 1, "pid": os.getpid(), "open": count, "accepted": count}
        status = {
            "name": "default",
            "state": "running",
            "generation": 1,
            "pid": os.getpid(),
            "bind": [bind],
            "slots": [{"slot": 0, "workers": [worker]}],
        }
        self._peer.script["status"] = [{"result": status | changes}]

    def __call__(self) -> tuple[int, dict[str, int], str]:
        """The exit status, how many of which finding, and the notes, or the error."""
        status = main(["audit", "--json", "--answer-timeout", str(PATIENCE)])
        told = self._capsys.readouterr()
        if told.err:
            assert told.out == ""
            return status, {}, told.err
        document = json.loads(told.out)
        found = {finding["kind"]: finding["count"] for finding in document["findings"]}
        return status, found, "\n".join(document["notes"])


@pytest.fixture
def audit(peer: Peer, capsys: pytest.CaptureFixture[str]) -> Audit:
    """The audit under test."""
    return Audit(peer, capsys)


def test_a_host_name(audit: Audit, listen: Sockets) -> None:
    """An instance that is bound to a host's name is judged by the addresses of its listeners."""
    listener, _, _ = listen(3)
    audit.status(f"localhost:{port(listener)}", 3)
    assert audit() == (0, {}, "")
    audit.status(f"localhost:{port(listener)}", 3 + MANY)
    status, found, _ = audit()
    assert (status, set(found)) == (1, {"gone"})


def test_no_address(audit: Audit) -> None:
    """Where no address can be found, nobody is accused: it cannot be audited."""
    audit.status("shop.invalid:80", 3)
    status, _, error = audit()
    assert status == 2
    assert "shop.invalid:80" in error


def test_a_removed_address(audit: Audit, listen: Sockets) -> None:
    """Connections that came to an address which a reload has removed are not called gone, and a
    note says so. Before any reload there are no such connections.
    """
    listener, _, _ = listen(1)
    former, _, _ = listen(2)
    former.close()
    bind = f"127.0.0.1:{port(listener)}"
    audit.status(bind, 3, generation=2)
    status, found, notes = audit()
    assert (status, found) == (0, {})
    assert ": 2 of those it counts came to an address that is served no more, or are gone" in notes
    # A reload that failed has had an address, too.
    audit.status(bind, 3, last_reload={"outcome": "rolled_back"})
    assert audit()[:2] == (0, {})
    audit.status(bind, 3 + MANY)
    status, found, notes = audit()
    assert (status, set(found), notes) == (1, {"gone"}, "")


def test_what_was_reset(audit: Audit, listen: Sockets) -> None:
    """A connection of the application's own that was reset is none of a client's; a client's that
    was reset is one if it is still held.
    """
    listener, served, clients = listen(3)
    _, databases, pooled = listen(1)
    # This one was never connected.
    with socket.socket():
        databases[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        databases[0].close()
        until(lambda: is_dead(pooled[0]), PATIENCE, "the reset")
        audit.status(f"127.0.0.1:{port(listener)}", 3)
        status, found, notes = audit()
        assert (status, found) == (0, {})
        # Where nobody may know, that is said.
        assert ("2 TCP sockets are connected to nobody" in notes) == (not may_ask())
        kept = served[0].dup()
        with kept:
            clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            clients[0].close()
            served[0].close()
            until(lambda: is_dead(kept), PATIENCE, "the reset")
            audit.status(f"127.0.0.1:{port(listener)}", 2)
            assert audit()[:2] == ((1, {"dead": 1}) if may_ask() else (0, {}))


def is_dead(sock: socket.socket) -> bool:
    """Whether it is connected to nobody."""
    try:
        sock.getpeername()
    except OSError:
        return True
    return False


def test_another_pid_namespace(audit: Audit) -> None:
    """An instance whose process ids are not those of here (a container's) is not judged by the
    processes that have these ids here; it is said where to audit it.
    """
    audit.status("127.0.0.1:80", 3, pid=1)
    status, _, error = audit()
    assert status == 2
    assert f"nsenter --all --target {os.getpid()} wssup audit" in error


def test_a_mistake_is_no_leak(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, the exit status is not that of a leak."""

    def mistaken(*_: object) -> NoReturn:
        raise KeyError("of ours")

    monkeypatch.setattr(auditing, "audit_instance", mistaken)
    status, _, error = audit()
    assert status == 2
    assert "cannot audit: KeyError('of ours')" in error
    assert "Traceback" in error


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_nobody_reads(form: list[str]) -> None:
    """The exit status is the verdict's, also if nobody reads what is shown."""
    with subprocess.Popen(["sleep", "600"]) as process:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "wssup", "audit", "--pid", str(process.pid), *form],
                stdout=writing,
                stderr=subprocess.PIPE,
                timeout=PATIENCE,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, b"")
        finally:
            os.close(writing)
            process.kill()
