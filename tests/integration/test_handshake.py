"""What clients may send instead of a handshake: it costs them their connection and nobody else."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable

from tests.harness.instance import Instance
from tests.harness.raw import Raw, request

Start = Callable[..., Instance]

#: Far beyond what any test waits.
_PATIENT = {"handshake_timeout": 1000}


def _who(address: str) -> int:
    """The process id of the only worker, from a new connection."""
    with Raw(address) as client:
        pid = int(client.open().ask("who").split()[2])
        client.close()
    return pid


def _wait_failures(instance: Instance, expected: dict[str, int], seconds: float = 30) -> None:
    """Wait until so many handshakes have failed; they must have failed for these reasons."""
    total = sum(expected.values())
    status = instance.wait(
        lambda s: s["connections"]["handshake_failures"] >= total, "failed handshakes", seconds
    )
    by_reason = status["connections"]["handshake_failures_by_reason"]
    assert {reason: count for reason, count in by_reason.items() if count} == expected


def _refused(address: str, data: bytes, status: int = 400) -> None:
    """Send it all; the answer must be this status, or the end of the connection."""
    with Raw(address) as client:
        try:
            client.socket.sendall(data)
            answer = client.head()
        except (ConnectionResetError, BrokenPipeError):
            return
        assert answer == b"" or answer.startswith(b"HTTP/1.1 %d " % status), (data, answer)
        client.rest()


_NOT_ASCII = [
    header + b": " + value
    for header in (
        b"Sec-WebSocket-Protocol",
        b"Sec-WebSocket-Extensions",
        b"Host",
        b"Connection",
    )
    for value in (b"\xff", b"caf\xc3\xa9", b"Upgrade, \x80\x81")
]


def test_a_header_that_is_not_ascii(start: Start) -> None:
    """A header with bytes beyond ASCII, UTF-8 or not, is answered with 400 or the end of the
    connection, and counted as a bad request; the worker lives on, and so do its connections.
    """
    instance = start(workers=1, limits=_PATIENT)
    instance.running()
    address = instance.address()
    with Raw(address) as bystander:
        pid = bystander.open().ask("who").split()[2]
        for line in _NOT_ASCII:
            _refused(address, request("/", line))
        assert bystander.ask("who").split()[2] == pid
        _wait_failures(instance, {"bad_request": len(_NOT_ASCII)})
    assert _who(address) == int(pid)
    assert {e["level"] for e in instance.entries()} <= {"debug", "info"}


_GARBAGE = {
    "zeros": bytes(1000),
    "a TLS handshake": bytes.fromhex("16030100c8010000c40303") + bytes(range(194)),
    "a line of no protocol": b"hello there\r\n\r\n",
    "a POST": request().replace(b"GET", b"POST"),
    "HTTP/1.0": request().replace(b"/1.1", b"/1.0"),
    "a body": request("/", b"Content-Length: 2") + b"hi",
    "a key that is none": request("/", b"Sec-WebSocket-Key: short"),
    "a path that is not ASCII": request("/caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
    "a header without colon": request("/", b"Upgrade: websocket\r\nnonsense"),
    "two hosts": request("/", b"Host: one\r\nHost: two"),
    "a response": b"HTTP/1.1 200 OK\r\n\r\n",
}


def test_garbage(start: Start) -> None:
    """Bytes that are no handshake are answered with 400 or the end of the connection, at once, and
    counted as bad requests; the worker lives on.
    """
    instance = start(workers=1, limits=_PATIENT)
    instance.running()
    address = instance.address()
    pid = _who(address)
    for data in (*_GARBAGE.values(), os.urandom(1000).replace(b"\n", b"") + b"\r\n\r\n"):
        _refused(address, data)
    # RFC 6455 section 4.2.2: a version that is not spoken has a status of its own; RFC 6585 section
    # 5: so has a head that is too large.
    _refused(address, request("/", b"Sec-WebSocket-Version: 12"), 426)
    _refused(address, b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000, 431)
    _wait_failures(instance, {"bad_request": len(_GARBAGE) + 3})
    assert _who(address) == pid
    assert {e["level"] for e in instance.entries()} <= {"debug", "info"}


def test_a_client_that_leaves_early(start: Start) -> None:
    """A client that goes away before its request is complete, by close, half-close or reset, is
    counted as disconnected at once, not after the handshake's timeout.
    """
    instance = start(workers=1, limits=_PATIENT)
    instance.running()
    address = instance.address()
    half = request()[:40]
    with Raw(address) as client:
        client.socket.sendall(half)
    with Raw(address):
        pass
    with Raw(address) as client:
        client.socket.sendall(half)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Raw(address) as client:
        client.socket.sendall(half)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b""
    _wait_failures(instance, {"disconnected": 4})
    assert instance.status()["connections"]["open"] == 0


def test_a_slow_handshake(start: Start) -> None:
    """A client that has not sent its request within limits.handshake_timeout is cut off then,
    whether it is silent or drips byte by byte, and counted as timeout.
    """
    instance = start(workers=1, limits={"handshake_timeout": 0.5})
    instance.running()
    address = instance.address()
    for endless in (b"", b"x" * 10_000):
        began = time.monotonic()
        with Raw(address) as client:
            client.socket.sendall(request()[:-4] + b"\r\nX: ")
            client.socket.settimeout(0.02)
            _drip(client.socket, endless)
        assert time.monotonic() - began >= 0.5
    _wait_failures(instance, {"timeout": 2})
    assert instance.status()["connections"]["open"] == 0
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0


def _drip(client: socket.socket, data: bytes) -> None:
    """Send byte by byte, as slowly as the socket's timeout says, until the server ends it."""
    deadline = time.monotonic() + 30
    for byte in data or bytes(1500):
        assert time.monotonic() < deadline, "it was not cut off"
        try:
            if data:
                client.sendall(bytes([byte]))
            if client.recv(1000) == b"":
                return
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return
    raise AssertionError("it was not cut off")
