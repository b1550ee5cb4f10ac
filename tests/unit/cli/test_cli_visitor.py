"""The status for those who may not use the control socket: another user, and a status socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from control_peer import DEADLINE, Peer
from told import running, status

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which needs root")
#: The interpreter may be where other users cannot read: everything is imported before.
CODE = """
import encodings.idna, locale, os, sys
from wssup.cli import main, reload, status, visitor
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main.main(sys.argv[1:]))
"""


@contextmanager
def showing(peer: Peer, answer: bytes, mode: int = 0o666) -> Iterator[list[bytes]]:
    """A status socket that gives one answer to everybody; the requests that came."""
    heard: list[bytes] = []
    path = peer.directory / "status.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(mode)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                heard.append(client.recv(1 << 16))
                client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)
        listener.close()
        path.unlink()


def response(content: bytes, code: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (code.encode(), len(content)) + content


def as_other(peer: Peer, *arguments: str) -> subprocess.CompletedProcess[str]:
    peer.runtime_dir.chmod(0o755)
    peer.directory.chmod(0o755)
    peer.socket_path.chmod(0o600)
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env=peer.environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize(("command", "expected"), [("status", 4), ("reload", 1)])
def test_a_control_socket_that_is_not_ours(peer: Peer, command: str, expected: int) -> None:
    """Without permission for the control socket, and with no status socket, status is unknown, and
    the remedy says who may.
    """
    running(peer)
    done = as_other(peer, command)
    assert (done.returncode, done.stdout) == (expected, "")
    assert "Permission denied" in done.stderr
    assert "run as root, or as the service's user or group" in done.stderr


def test_another_user_sees_the_status(peer: Peer) -> None:
    """It is what the status socket says, as a page and as JSON."""
    peer.lock().listen()
    with showing(peer, response(json.dumps(status()).encode())) as heard:
        done = as_other(peer, "status", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == status()
        assert heard[0].startswith(b"GET /status HTTP/1.1\r\n")
        page = as_other(peer, "status")
        assert page.returncode == 0
        assert "default  running" in page.stdout
    assert peer.requests.empty()


@pytest.mark.parametrize(
    ("answer", "mode"),
    [
        (response(b"{}", "503 Service Unavailable"), 0o666),
        (response(b"not JSON"), 0o666),
        (response(b"[1]"), 0o666),
        (b"", 0o666),
        (b"SSH-2.0\r\n", 0o666),
        (response(json.dumps(status()).encode()), 0o600),
    ],
)
def test_a_status_socket_that_does_not_help(peer: Peer, answer: bytes, mode: int) -> None:
    """Where it says nothing of use, or is not for us either, the control socket's error stands."""
    peer.lock().listen()
    with showing(peer, answer, mode):
        done = as_other(peer, "status")
        assert (done.returncode, done.stdout) == (4, "")
        assert "control.sock: Permission denied" in done.stderr
        assert "run as root, or as the service's user or group" in done.stderr
        assert done.stderr.count("\n") == 1


def test_who_may_ask_the_master_does(peer: Peer) -> None:
    """The control socket comes first; the status socket is not asked then."""
    peer.script = {"status": [{"result": status()}]}
    peer.lock().listen()
    with showing(peer, b"") as heard:
        done = subprocess.run(
            [sys.executable, "-m", "wssup", "status", "--json"],
            env=peer.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0
        assert heard == []
