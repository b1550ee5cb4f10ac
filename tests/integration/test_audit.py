"""``wssup audit`` on a real instance with planted leaks, and on another server."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.harness.instance import Instance
from tests.harness.processes import until
from tests.harness.raw import Raw, spread_clients
from tests.harness.tracing import may_ask
from wssup.cli.main import main

Start = Callable[..., Instance]

PATIENCE = 60
#: An application that does with the descriptor of its client what it is told, behind the server's
#: back.
LEAKY = """\
import os, socket, subprocess
import wssup

kept = []

def descriptor_of(port):
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as sock:
                peer = sock.getpeername()
        except OSError:
            continue
        if peer and peer[1] == port:
            return int(name)

class App:
    def on_receive(self, ws, data):
        what, _, port = data.partition(" ")
        if what == "who":
            ws.send_nowait(str(wssup.current_worker().slot))
            return
        fd = descriptor_of(int(port))
        if what == "keep":
            kept.append(os.dup(fd))
        if what == "inherit":
            kept.append(subprocess.Popen(["sleep", "600"], pass_fds=[fd]))
        ws.send_nowait(data)
        if what == "close":
            os.close(fd)

app = App()
"""
#: It accepts, and closes nothing; it says where it listens.
FOREIGN = """\
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
kept = []
while True:
    kept.append(listener.accept())
"""


def tell(client: Raw, what: str) -> None:
    """Have the application do something to a client's descriptor, and wait until it is done."""
    text = f"{what} {client.socket.getsockname()[1]}"
    assert client.ask(text) == text


def reset(client: Raw) -> None:
    """End without a word (socket(7), SO_LINGER)."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


@contextmanager
def comings_and_goings(address: str) -> Iterator[None]:
    """Clients come, are served and go without pause meanwhile."""
    over = threading.Event()
    failed: list[Exception] = []

    def come_and_go() -> None:
        try:
            while not over.wait(0.005):
                with Raw(address) as client:
                    client.open().ask("who")
        except (OSError, AssertionError) as error:
            failed.append(error)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE)
    assert not failed


def kinds(document: dict[str, Any]) -> dict[str, int]:
    """How many of each finding."""
    found: dict[str, int] = {}
    for finding in document["findings"]:
        found[finding["kind"]] = found.get(finding["kind"], 0) + finding["count"]
    return found


def test_an_instance(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """An instance is clean, also under load. Then the application leaks in all the ways there are,
    and each is found, told apart and counted: a duplicate of a descriptor, one whose client has
    gone (CLOSE_WAIT) or was reset, one that a child process has, and one that the application
    closed itself.
    """
    instance = start(LEAKY, heartbeat={"ping_interval": 0})
    # Whose a socket was that was reset is known only where it may be asked.
    dead = {"dead": 1} if may_ask() else {}
    instance.running()
    address = instance.address()
    arguments = ["--config", str(instance.config), "--answer-timeout", str(PATIENCE)]

    def audit(*further: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = main(["audit", "--json", *further, *arguments])
        told = capsys.readouterr()
        assert told.err == ""
        document: dict[str, Any] = json.loads(told.out)
        assert document["verdict"] == ("leak" if status else "clean")
        return status, document

    def wait_for(count: int) -> None:
        instance.wait(lambda s: s["connections"]["open"] == count, f"{count} connections")

    with spread_clients(address, 2, 3) as clients:
        # A worker that has one too many and counts another too many has as many as it counts.
        crowd, other = clients[0], clients[1][0]
        everybody = len(crowd) + len(clients[1])
        wait_for(everybody)
        status, document = audit()
        assert status == 0
        for process in document["processes"]:
            assert process["held"] == process["counted"] == len(clients[process["slot"]])
        assert document["addresses"][0]["established"] == everybody
        with comings_and_goings(address):
            for _ in range(3):
                status, document = audit()
                assert (status, kinds(document)) == (0, {})
        wait_for(everybody)

        tell(crowd[0], "keep")
        status, document = audit()
        assert (status, kinds(document)) == (1, {"uncounted": 1})
        crowd[0].socket.close()
        wait_for(everybody - 1)
        status, document = audit("--older-than", "0")
        assert (status, kinds(document)) == (1, {"uncounted": 1, "close_wait": 1})

        tell(crowd[1], "keep")
        reset(crowd[1])
        wait_for(everybody - 2)
        status, document = audit()
        assert (status, kinds(document)) == (1, {"uncounted": 1, **dead})

        tell(crowd[2], "inherit")
        status, document = audit()
        assert kinds(document) == {"uncounted": 1, **dead}
        crowd[2].socket.close()
        wait_for(everybody - 3)
        status, document = audit()
        assert kinds(document) == {"uncounted": 1, **dead, "stray": 1}
        (stray,) = [f for f in document["findings"] if f["kind"] == "stray"]
        assert stray["pid"] not in {p["pid"] for p in document["processes"]}

        tell(other, "close")
        shown = instance.run("audit", "--answer-timeout", str(PATIENCE))
        assert shown.returncode == 1, shown
        assert shown.stderr == ""
        assert ": 1 gone: connections that are counted and not there" in shown.stdout
        assert "clean" not in shown.stdout


def test_another_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Of any other server the descriptors, accept queue and states are shown; connections whose
    clients have long gone are a pile, which a higher bound tolerates, with the oldest one's age.
    """
    with (
        subprocess.Popen(
            [sys.executable, "-c", FOREIGN], stdout=subprocess.PIPE, text=True
        ) as server,
        ExitStack() as stack,
    ):
        stack.callback(server.kill)
        assert server.stdout is not None
        where = ("127.0.0.1", int(server.stdout.readline()))

        def audit(*further: str) -> tuple[int, dict[str, Any]]:
            status = main(["audit", "--json", "--pid", str(server.pid), *further])
            return status, json.loads(capsys.readouterr().out)

        clients = [stack.enter_context(socket.create_connection(where)) for _ in range(7)]
        until(lambda: audit()[1]["processes"][0]["held"] == 7, PATIENCE, "7 connections")
        assert audit()[0] == 0
        for client in clients[:5]:
            client.close()
        until(lambda: audit("--older-than", "0.1")[0] == 1, PATIENCE, "a pile")
        until(
            lambda: audit("--older-than", "0.1")[1]["findings"][0]["count"] == 5,
            PATIENCE,
            "all of it",
        )
        status, document = audit("--older-than", "0.1")
        assert status == 1
        (process,) = document["processes"]
        assert process["descriptors"]["socket"] == 8
        assert (process["listeners"], process["close_wait"]["old"]) == (1, 5)
        assert 0.1 <= document["findings"][0]["oldest"] == process["close_wait"]["oldest"]
        (place,) = document["addresses"]
        assert place["address"] == f"127.0.0.1:{where[1]}"
        assert (place["established"], place["close_wait"], place["waiting"]) == (2, 5, 0)
        assert audit("--older-than", "0.1", "--tolerate", "5")[0] == 0
        assert audit("--older-than", "3600")[0] == 0
        assert main(["audit", "--pid", str(server.pid), "--older-than", "0"]) == 1
        shown = capsys.readouterr().out
        assert ": 5 close-wait: kept for more than 0s after their clients closed them" in shown
        assert f"127.0.0.1:{where[1]}" in shown


def test_what_cannot_be_audited(
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without an instance or a process there is no audit: exit status 2 and one line."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    for arguments in (["--runtime-dir", "."], ["--pid", str(gone.pid)], ["--older-than", "nan"]):
        assert main(["audit", *arguments]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("wssup: error: ")
        assert told.err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which needs root")
def test_another_user() -> None:
    """Who may not see a process's descriptors is told who may; exit status 2."""
    # The interpreter may be where other users cannot read: everything is imported before.
    code = (
        "import os, sys; from wssup.cli import audit, main; os.setgroups([]); os.setgid(65534); "
        f"os.setuid(65534); sys.exit(main.main(['audit', '--pid', '{os.getpid()}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"wssup: error: cannot audit: the descriptors of pid {os.getpid()} are not shown to this "
        "user → run as the service's user or as root\n"
    )
