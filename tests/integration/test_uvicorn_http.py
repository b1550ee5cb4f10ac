"""HTTP of workers of class uvicorn beside the engine: connections that change hands, clients that
are odd, proxies, and that nothing is left of any of them; with uvloop and without.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.asgi_sides import asked, got, opened
from tests.harness.instance import Instance
from tests.harness.oracle_sockets import counts
from tests.harness.raw import TEXT, Raw, frame, request

Start = Callable[..., Instance]

APP = """\
import asyncio
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        return await websocket(scope, receive, send)
    size = 0
    if scope["path"] == "/body":
        while (event := await receive())["type"] == "http.request":
            size += len(event["body"])
            if not event["more_body"]:
                break
        else:
            return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    body = b"x" * 3_000_000 if scope["path"] == "/large" else json.dumps({
        "client": scope["client"], "scheme": scope["scheme"], "path": scope["path"], "read": size,
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
    }).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        text = event["text"]
        if text == "scope":
            text = json.dumps({"client": scope["client"], "scheme": scope["scheme"]})
        await send({"type": "websocket.send", "text": text})

async def lifespan(receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""
_PROXY = "127.0.0.9"
_GET = b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n"


def _answer(client: Raw, path: bytes = b"/", *headers: bytes) -> bytes:
    """The body of one answer on a kept-alive connection."""
    client.socket.sendall(_GET % (path, b"".join(line + b"\r\n" for line in headers)))
    return _body(client)


def _body(client: Raw) -> bytes:
    head = client.head().lower()
    assert head.startswith(b"http/1.1 200"), head
    length = int(head.partition(b"content-length: ")[2].split()[0])
    while len(client._buffer) < length:
        assert client._more()
    body, client._buffer = client._buffer[:length], client._buffer[length:]
    return body


def _descriptors(pid: int) -> list[str]:
    """What a process has open, by kind."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(each.readlink()).partition(":")[0])
    return sorted(found)


class _Proxy(Raw):
    """A connection from the proxy's address."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 60, (_PROXY, 0))
        self._buffer = b""


def _abort(client: Raw) -> None:
    """End with a reset."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


def _are_told(address: str) -> None:
    """What is wrong with a request is said, whoever reads it, and costs that connection alone."""
    for first in (b"", _GET % (b"/", b"")):
        for bad in (
            b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        ):
            with Raw(address) as client:
                if first:
                    client.socket.sendall(first)
                    _body(client)
                client.socket.sendall(bad)
                assert client.head().startswith(b"HTTP/1.1 400")
                client.rest()
    with Raw(address) as client:
        _answer(client)
        client.socket.sendall(request("/ws", b"Sec-WebSocket-Version: 7"))
        assert client.head().startswith(b"HTTP/1.1 426")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_connections_change_hands(start: Start, tmp_path: Path, loop: str) -> None:
    """Requests one after the other, then a WebSocket, on one connection; all at once; with a large
    answer still on its way; bad ones at first and later; clients that reset in the middle: each
    gets what is due to it, nobody else notices, and no descriptor and no count is left.
    """
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError\n")
    instance = start(APP, worker="uvicorn", workers=1)
    instance.running()
    address = instance.address()
    worker = instance.workers()[0]
    assert asked(address, "/")["loop"] == loop
    processes.until(lambda: counts(instance).open == 0, 20, "it to be closed")
    # It is counted as closed before its descriptor is closed, which has been done once its worker
    # answers others.
    with Raw(address) as witness:
        for _ in range(2):
            _answer(witness)
        before = _descriptors(worker)
    before.remove("socket")
    for _ in range(20):
        with Raw(address) as client:
            for _ in range(3):
                assert json.loads(_answer(client, b"/kept"))["path"] == "/kept"
            client.socket.sendall(request("/ws") + frame(TEXT, b"early") + frame(TEXT, b"too"))
            assert client.head().startswith(b"HTTP/1.1 101")
            assert [client.frame(), client.frame()] == [(TEXT, b"early"), (TEXT, b"too")]
    # Piece by piece, and two requests in one packet.
    with Raw(address) as client:
        for byte in _GET % (b"/pieces", b""):
            client.socket.sendall(bytes([byte]))
        assert json.loads(_body(client))["path"] == "/pieces"
        client.socket.sendall(_GET % (b"/one", b"") + _GET % (b"/two", b""))
        assert [json.loads(_body(client))["path"] for _ in range(2)] == ["/one", "/two"]
        for byte in request("/ws"):
            client.socket.sendall(bytes([byte]))
        assert client.head().startswith(b"HTTP/1.1 101")
        assert client.ask("hello") == "hello"
    # An upgrade that does not wait for the last answer: that is given, and the connection ends.
    for path in (b"/slow", b"/large"):
        with Raw(address) as client:
            client.socket.sendall(_GET % (path, b"") + request("/ws"))
            assert len(_body(client)) > 10
            assert client.rest() == b""
    _are_told(address)
    for path in (b"/slow", b"/large", b"/"):
        client = Raw(address)
        client.socket.sendall(_GET % (path, b""))
        _abort(client)
    client = Raw(address)
    _answer(client)
    client.socket.sendall(request("/ws"))
    _abort(client)
    assert asked(address, "/")["path"] == "/"
    processes.until(lambda: counts(instance).open == 0, 20, "all to be closed")
    processes.until(lambda: _descriptors(worker) == before, 20, "descriptors")
    found = counts(instance)
    assert found.active == 0
    assert found.handler_errors == 0
    assert instance.workers()[0] == worker


def test_clients_that_take_their_time(start: Start) -> None:
    """A client is cut off that does not finish its first or a later request's head, that stops in
    the middle of a body, or takes nothing of its answer; a body that is too large gets 413; a
    connection without a request ends after keep_alive_timeout. Those that only pause are served.
    """
    limits = {
        "handshake_timeout": 5.0,
        "body_timeout": 4.0,
        "send_timeout": 5.0,
        "keep_alive_timeout": 5.0,
        "body_bytes": 1000,
    }
    instance = start(APP, worker="uvicorn", workers=1, limits=limits)
    instance.running()
    address = instance.address()
    post = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as stack:
        first, later, body, deaf, kept, patient = (
            stack.enter_context(Raw(address)) for _ in range(6)
        )
        first.socket.sendall(b"GET / HT")
        _answer(later)
        later.socket.sendall(b"GET / HT")
        body.socket.sendall(post % 10 + b"12345")
        deaf.socket.sendall(_GET % (b"/large", b""))
        _answer(kept)
        patient.socket.sendall(post % 10)
        for digit in b"0123456789":
            time.sleep(0.45)
            patient.socket.sendall(bytes([digit]))
        assert json.loads(_body(patient))["read"] == 10
        for client in (first, later, body):
            assert client.head().startswith(b"HTTP/1.1 408")
            client.rest()
        assert kept.rest() == b""
        with Raw(address) as large:
            large.socket.sendall(post % 100_000 + bytes(100_000))
            assert large.head().startswith(b"HTTP/1.1 413")
            large.rest()
        with Raw(address) as large:
            chunks = b"200\r\n" + bytes(512) + b"\r\n"
            large.socket.sendall(
                b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                + 20 * chunks
            )
            assert large.head().startswith(b"HTTP/1.1 413")
            large.rest()
        assert got(address, "/body", "POST", bytes(1000))[0] == 200
        processes.until(lambda: counts(instance).open == 0, 20, "all to be closed")
    assert counts(instance).handler_errors == 0


def test_clients_of_proxies_and_unix_sockets(start: Start, tmp_path: Path) -> None:
    """On a trusted proxy's kept-alive connection each request, and a WebSocket at its end, has its
    own client and scheme; what others send in such headers is ignored. A unix socket has no client.
    """
    path = tmp_path / "wssup.sock"
    instance = start(
        APP,
        worker="uvicorn",
        workers=1,
        bind=["127.0.0.1:0", f"unix:{path}"],
        trusted_proxies=[_PROXY],
        limits={"connections_per_address": 3},
    )
    instance.running()
    address = instance.address()
    ada = (b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: https")
    bob = (b"X-Forwarded-For: 9.9.9.9, 2001:db8::7", b"X-Forwarded-Proto: http")
    with _Proxy(address) as client:
        shown = [json.loads(_answer(client, b"/", *lines)) for lines in (ada, bob, ())]
        assert [(one["client"][0], one["scheme"]) for one in shown] == [
            ("192.0.2.1", "https"),
            ("2001:db8::7", "http"),
            (_PROXY, "http"),
        ]
        client.socket.sendall(request("/ws", *ada))
        assert client.head().startswith(b"HTTP/1.1 101")
        assert json.loads(client.ask("scope")) == {"client": ["192.0.2.1", 0], "scheme": "wss"}
    with socket.socket(socket.AF_UNIX) as unix:
        unix.connect(str(path))
        unix.sendall(_GET % (b"/", ada[0] + b"\r\nConnection: close\r\n"))
        with unix.makefile("rb") as lines:
            assert json.loads(lines.read().rpartition(b"\r\n")[2])["client"] is None
    # Requests of one address beyond the limit are refused while so many are open, and only then.
    with Raw(address) as one, Raw(address) as two, Raw(address) as three:
        for client in (one, two, three):
            assert json.loads(_answer(client, b"/", *ada))["client"][0] == "127.0.0.1"
        assert got(address, "/")[0] == 429
    processes.until(lambda: counts(instance).open == 0, 20, "all to be closed")
    with opened(address, "/ws") as ws:
        ws.send("scope")
        assert json.loads(ws.recv(20))["client"][0] == "127.0.0.1"
