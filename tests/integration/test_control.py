"""The control socket: who may use it, what it refuses, and that a bad client harms nobody else."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import processes
from tests.harness.instance import Instance
from wssup.supervisor.control import REQUEST_PATIENCE

Start = Callable[..., Instance]

#: What the documentation says of a request.
_LONGEST = 512 * 1024
_PATIENCE = REQUEST_PATIENCE


def _socket(instance: Instance) -> Path:
    return instance.runtime_dir / instance.name / "control.sock"


@contextmanager
def _client(instance: Instance) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        client.connect(str(_socket(instance)))
        yield client


def _rest(client: socket.socket) -> bytes:
    """Everything up to the end."""
    found = b""
    try:
        while data := client.recv(1 << 16):
            found += data
    except ConnectionResetError:
        # The end of one who had not read all of our request.
        return found
    return found


def _converse(instance: Instance, data: bytes) -> dict[str, Any]:
    """Send bytes and say no more; the only line of the answer, up to the end."""
    with _client(instance) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            # It did not want to hear all of it, and has said so.
            pass
        [line] = _rest(client).splitlines()
    answer: dict[str, Any] = json.loads(line)
    assert answer["v"] == 1
    return answer


def _error(instance: Instance, request: object) -> dict[str, Any]:
    """The error that a request is answered with; bytes are sent as they are."""
    data = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
    answer = _converse(instance, data)
    assert set(answer) == {"v", "error"}, (request, answer)
    error: dict[str, Any] = answer["error"]
    assert set(error) == {"code", "message", "remedy"}
    assert error["message"], request
    assert "\n" not in error["message"]
    return error


def _healthy(instance: Instance, before: dict[str, Any]) -> None:
    """The master works, and no client has changed anything."""
    status = instance.status()
    for key in ("pid", "state", "generation", "workers", "restarts", "last_reload"):
        assert status[key] == before[key]
    assert not [e for e in instance.entries() if e["level"] in {"warning", "error"}]


def test_the_mode(start: Start) -> None:
    """The socket can be used by its owner and group alone."""
    instance = start(workers=1)
    instance.running()
    found = _socket(instance).stat()
    assert stat.filemode(found.st_mode) == "srw-rw----"
    assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())


_MALFORMED: dict[str, tuple[bytes, str]] = {
    "no json": (b"status please\n", "bad_json"),
    "half an object": (b'{"v": 1, "command": \n', "bad_json"),
    "an empty line": (b"\n", "bad_json"),
    "nothing": (b"", "bad_json"),
    "no line feed": (b'{"v": 1, "command": "status"}', "bad_json"),
    "not UTF-8": (b'{"v": 1, "command": "\xff\xfe"}\n', "bad_json"),
    "a lone surrogate": (b'{"v": 1, "command": "\\ud800"}\n', "bad_json"),
    "zeros": (bytes(100) + b"\n", "bad_json"),
    "a deep nest": (b"[" * 60_000 + b"\n", "bad_json"),
    "a deep nest inside": (b'{"v": 1, "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}\n", "bad_json"),
    "a list": (b"[1]\n", "bad_json"),
    "a string": (b'"status"\n', "bad_json"),
    "a number": (b"1\n", "bad_json"),
    "null": (b"null\n", "bad_json"),
    "no version": (b'{"command": "status"}\n', "bad_version"),
    "a later version": (b'{"v": 2, "command": "status"}\n', "bad_version"),
    "a version as text": (b'{"v": "1", "command": "status"}\n', "bad_version"),
    "a version that equals 1": (b'{"v": true, "command": "status"}\n', "bad_version"),
    "too long without an end": (b"x" * (_LONGEST + 1), "too_long"),
    "much too long": (b"x" * 1_000_000, "too_long"),
    "a line one byte too long": (
        b'{"v": 1, "command": "status"}'.ljust(_LONGEST + 1) + b"\n",
        "too_long",
    ),
}


def test_a_malformed_request(start: Start) -> None:
    """What is no JSON object of the protocol's version in a line of at most 512 KiB is answered
    with an error that says so, and changes nothing.
    """
    instance = start(workers=1)
    before = instance.running()
    codes = {name: _error(instance, data)["code"] for name, (data, _) in _MALFORMED.items()}
    assert codes == {name: code for name, (_, code) in _MALFORMED.items()}
    longest = b'{"v": 1, "command": "status"}'.ljust(_LONGEST) + b"\n"
    assert _converse(instance, longest)["result"]["schema"] == 1
    _healthy(instance, before)


_HUGE = 10**30
_REFUSED: list[tuple[dict[str, object], str, str]] = [
    ({"command": "reboot"}, "unknown_command", "'reboot'"),
    ({}, "unknown_command", "None"),
    ({"command": 5}, "unknown_command", "5"),
    ({"command": ["status"]}, "unknown_command", "status"),
    ({"command": "Status"}, "unknown_command", "'Status'"),
    ({"command": "status", "verbose": True}, "bad_argument", "'verbose'"),
    ({"command": "config", "key": "bind"}, "bad_argument", "'key'"),
    ({"command": "reload", "force": True}, "bad_argument", "'force'"),
    ({"command": "reload", "wait": "no"}, "bad_argument", "wait"),
    ({"command": "reload", "wait": None}, "bad_argument", "wait"),
    ({"command": "scale"}, "bad_argument", "workers"),
    ({"command": "scale", "workers": "3"}, "bad_argument", "workers"),
    ({"command": "scale", "workers": 2.0}, "bad_argument", "workers"),
    ({"command": "scale", "workers": True}, "bad_argument", "workers"),
    ({"command": "scale", "workers": 0}, "bad_argument", "0 workers"),
    ({"command": "scale", "workers": -1}, "bad_argument", "-1 workers"),
    ({"command": "scale", "workers": _HUGE}, "bad_argument", "workers"),
    ({"command": "scale", "workers": 3, "slots": 3}, "bad_argument", "'slots'"),
    ({"command": "drain", "over": "soon"}, "bad_argument", "'soon'"),
    ({"command": "drain", "over": -1}, "bad_argument", "-1"),
    ({"command": "drain", "over": []}, "bad_argument", "over"),
    ({"command": "drain", "over": None}, "bad_argument", "over"),
    ({"command": "drain", "over": True}, "bad_argument", "over"),
    ({"command": "drain", "over": _HUGE}, "bad_argument", "over"),
    ({"command": "drain", "over": 1, "fast": True}, "bad_argument", "'fast'"),
    ({"command": "stop", "fast": 1}, "bad_argument", "fast"),
    ({"command": "stop", "now": True}, "bad_argument", "'now'"),
]


def test_a_refused_request(start: Start) -> None:
    """An unknown command, and an argument that is unknown, missing, of another type or out of range
    is answered with an error that names it, and changes nothing.
    """
    instance = start(workers=1)
    before = instance.running()
    for request, code, named in _REFUSED:
        error = _error(instance, {"v": 1, **request})
        assert error["code"] == code, (request, error)
        assert named in error["message"], (request, error)
    for word in ("config", "drain", "reload", "scale", "status", "stop"):
        assert word in _error(instance, {"v": 1, "command": "reboot"})["remedy"]
    _healthy(instance, before)


#: Its answer quotes it, five bytes for one: more than a unix socket's buffer holds.
_LONG_ANSWER = b'{"v": 1, "command": "' + b"\x7f" * 65_000 + b'"}\n'


def test_silent_clients(start: Start) -> None:
    """Clients that say nothing, half a line, or do not read their answer keep nobody else waiting;
    they are let go after a while, those who listen with the error timeout.
    """
    instance = start(workers=1)
    before = instance.running()
    began = time.monotonic()
    with (
        _client(instance) as silent,
        _client(instance) as halting,
        _client(instance) as deaf,
        _client(instance) as other,
    ):
        halting.sendall(b'{"v": 1, "comm')
        deaf.sendall(_LONG_ANSWER)
        _healthy(instance, before)
        other.sendall(b'{"v": 1, "command": "config"}\n')
        assert b'"result"' in _rest(other)
        # Nobody had to wait for their end: all three are still there.
        processes.until(lambda: len(_conversations(instance)) <= 3, 60, "the end of the others")
        left = len(_conversations(instance))
        assert left == 3 or time.monotonic() - began > _PATIENCE
        for client in (silent, halting):
            error = json.loads(_rest(client))["error"]
            assert error["code"] == "timeout"
        assert time.monotonic() - began >= _PATIENCE
        processes.until(lambda: len(_conversations(instance)) == 0, 60, "the end of the deaf one")
        cut = _rest(deaf)
        assert len(cut) > 1000
        assert not cut.endswith(b"\n")
    _healthy(instance, before)


def _conversations(instance: Instance) -> list[str]:
    """Accepted sockets of the control socket: they have its path, and are connected (03)."""
    path = str(_socket(instance))
    found = []
    for line in Path("/proc/net/unix").read_text().splitlines():
        fields = line.split()
        if fields[-1] == path and fields[5] == "03":
            found.append(fields[6])
    return found


def test_a_client_that_vanishes(start: Start) -> None:
    """A client that goes away before its answer, in the middle of it, or while it is told of a
    reload ends its own conversation alone; the reload it asked for is done.
    """
    instance = start(workers=1, settle=0.1, drain_window=0.1)
    before = instance.running()
    for _ in range(10):
        with _client(instance) as client:
            client.sendall(b'{"v": 1, "command": "status"}\n')
        with _client(instance) as client:
            client.sendall(_LONG_ANSWER)
            assert client.recv(1000)
    processes.until(lambda: len(_conversations(instance)) == 0, 60, "the end of conversations")
    _healthy(instance, before)
    with _client(instance) as client:
        client.sendall(b'{"v": 1, "command": "reload"}\n')
        assert b'"event"' in client.recv(1000)
    status = instance.wait(lambda s: s["last_reload"] is not None, "the reload")
    assert status["last_reload"]["outcome"] == "done"
    assert status["generation"] == before["generation"] + 1
    assert not [e for e in instance.entries() if e["event"] == "control_failed"]


#: Becomes another user and asks for the status: the socket must be in the current directory.
_OTHER_USER = """
import os, socket, sys

group, *further = map(int, sys.argv[1:])
os.setgroups(further)
os.setgid(group)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(60)
    try:
        client.connect("control.sock")
    except PermissionError:
        sys.exit("closed")
    try:
        client.sendall(b'{"v": 1, "command": "status"}\\n')
    except BrokenPipeError:
        pass  # it does not want to hear us, and has said so
    with client.makefile() as lines:
        print(lines.readline())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_other_users_are_refused(start: Start) -> None:
    """Another user cannot connect; when the socket's mode was opened, it is answered with the error
    forbidden, unless it is in the service's group.
    """
    instance = start(workers=1)
    instance.running()
    path = _socket(instance)

    def as_other(*groups: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _OTHER_USER, *map(str, groups)],
            cwd=path.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    # It may pass this directory, and is in it already: those above do not matter.
    path.parent.chmod(0o755)
    assert as_other(65534).stderr.strip() == "closed"
    path.chmod(0o666)
    refused = as_other(65534)
    assert refused.returncode == 0, refused.stderr
    error = json.loads(refused.stdout)["error"]
    assert error["code"] == "forbidden"
    assert "65534" in error["message"]
    assert json.loads(as_other(65534, os.getegid()).stdout)["result"]["schema"] == 1
    assert json.loads(as_other(os.getegid()).stdout)["result"]["schema"] == 1
