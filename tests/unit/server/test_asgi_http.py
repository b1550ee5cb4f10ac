"""HTTP/1.1 for ASGI applications, with h11 as the client that says what is in order."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h11
import pytest
import trio

from tests.harness.http_client import Http, Message, Receive, Send, body_of, reply
from tests.harness.served import Served, served
from tests.unit.server.peer import OFF, everything_read


async def index(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, scope["path"].encode(), headers=[(b"Content-Type", b"text/plain")])


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, await body_of(receive))


#: Parts that a body is sent in, and whether the application says how long it is.
_PARTS = [[b""], [b"whole"], [b"one ", b"two ", b"", b"three"], [b"", b"x" * 200_000], [b"x", b""]]
_METHODS = ["GET", "HEAD", "POST"]
_STATUSES = [200, 204, 304, 404, 599]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_every_response_is_in_order(tmp_path: Path, version: bytes) -> None:
    """Whatever an application sends, in whatever parts, to whatever request: h11 understands it,
    finds the same body, and agrees on whether the connection goes on.
    """
    wanted: dict[str, Any] = {}

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        parts, status = wanted["parts"], wanted["status"]
        headers = [(b"X-Kind", b"a"), (b"x-kind", b"b"), (b"Transfer-Encoding", b"chunked")]
        if wanted["sized"]:
            headers.append((b"content-length", b"%d" % sum(map(len, parts))))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for left, part in zip(reversed(range(len(parts))), parts, strict=True):
            await send({"type": "http.response.body", "body": part, "more_body": left > 0})

    async with served(tmp_path, app, heartbeat=OFF) as server:
        client = await Http.connect(server)
        asked = failed = 0
        for parts, method, status, sized, close in itertools.product(
            _PARTS, _METHODS, _STATUSES, (False, True), (False, True)
        ):
            if status in {204, 304} and any(parts) and sized:
                continue  # what it says of itself is not true
            wanted.update(parts=parts, status=status, sized=sized)
            keeps = [("Connection", "close")] if close else [("Connection", "keep-alive")]
            answer = await client.ask("/", method=method, version=version, headers=keeps)
            asked += 1
            failed += status >= 500
            assert answer.status == status
            bodiless = method == "HEAD" or status in {204, 304}
            assert answer.body == (b"" if bodiless else b"".join(parts))
            assert [value for name, value in answer.headers if name == b"x-kind"] == [b"a", b"b"]
            assert answer.get(b"date") is not None
            if close or client.h11.their_state is not h11.IDLE:
                assert await client.rest() == b""
                assert close or version == b"1.0"
                await client.stream.aclose()
                client = await Http.connect(server)
        await client.stream.aclose()
        counts = await server.until(lambda c: not c.open)
        assert (counts.http_requests, counts.http_errors) == (asked, failed)
        # The last one has asked for nothing.
        assert counts.accepted == counts.http_closed + counts.handshake_failures


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_requests_on_one_connection(tmp_path: Path, size: int) -> None:
    """Requests that come at once, or byte by byte, are answered one after the other, each with its
    own body, and none of them starts before the one before it is answered.
    """
    running = 0

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal running
        assert running == 0
        running += 1
        body = await body_of(receive)
        await trio.lowlevel.checkpoint()
        running -= 1
        await reply(send, scope["path"].encode() + b" " + body)

    stream = (
        b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
        b"POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2;x=y\r\nde\r\n0\r\nT: r\r\n\r\n"
        b"\r\nGET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        b"GET /5 HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    async with served(tmp_path, app, heartbeat=OFF) as server, await Http.connect(server) as client:
        for at in range(0, len(stream), size):
            await client.stream.send_all(stream[at : at + size])
            await trio.lowlevel.checkpoint()
        found = await client.rest()
        bodies = [part.partition(b"\r\n\r\n")[2] for part in found.split(b"HTTP/1.1 200 OK")[1:]]
        assert bodies == [b"/1 abc", b"/2 ", b"/3 de", b"/4 "]
        await client.stream.aclose()
        await server.ended(http=1)


async def test_scope(tmp_path: Path) -> None:
    """A scope says what was asked, as uvicorn's does: path decoded, the rest as it was sent."""
    scopes: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await reply(send)

    async with served(tmp_path, app) as server, await Http.connect(server) as client:
        server.engine.style.lifespan_state = {"database": "there"}  # type: ignore[union-attr]
        await client.ask("/caf%C3%A9/%2F?q=%20&r", headers=[("X-A", "b"), ("x-a", "c")])
        await client.ask("http://other/x?y", method="DELETE")
        await client.ask("*", method="OPTIONS")
        port = client.stream.socket.getsockname()[1]
        first = scopes[0]
        assert first == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/café//",
            "raw_path": b"/caf%C3%A9/%2F",
            "query_string": b"q=%20&r",
            "root_path": "",
            "headers": [(b"host", b"test"), (b"x-a", b"b"), (b"x-a", b"c")],
            "client": ("127.0.0.1", port),
            "server": server.address,
            "extensions": {},
            "state": {"database": "there"},
        }
        first["state"]["mine"] = 1
        assert "mine" not in scopes[1]["state"]
        assert [(s["path"], s["query_string"]) for s in scopes[1:]] == [("/x", b"y"), ("*", b"")]


async def test_a_body_is_read_as_it_is_wanted(tmp_path: Path) -> None:
    """What the application does not ask for stays with the client: nothing is kept in between."""
    go_on = trio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await go_on.wait()
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            assert len(message["body"]) <= 1 << 16
            if not message["more_body"]:
                break
        await reply(send, b"%d" % size)

    total = 32 << 20
    async with served(tmp_path, app, heartbeat=OFF) as server, await Http.connect(server) as client:
        sent = 0

        async def upload() -> None:
            nonlocal sent
            await client.stream.send_all(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % total
            )
            for _ in range(total >> 16):
                await client.stream.send_all(bytes(1 << 16))
                sent += 1 << 16

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert sent < total // 2  # the kernel's buffers, and one read
            go_on.set()
        client.h11.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
        client.h11.send(h11.EndOfMessage())
        assert int((await client.answer()).body) > total - (1 << 17)


async def test_a_response_is_as_fast_as_its_client(tmp_path: Path) -> None:
    """Who does not read is not sent more than the kernel takes; the application waits. After
    send_timeout the client is given up, and the application told.
    """
    sent: list[int] = []
    told = trio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not told.is_set():
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
            sent.append(1)
            if len(sent) > 1000:
                assert await receive() == {"type": "http.disconnect"}
                told.set()

    async with served(tmp_path, app, heartbeat=OFF, send_timeout=0.5) as server:
        async with await Http.connect(server) as client:
            await client.request()
            await everything_read()
            assert 0 < len(sent) < 200
            await told.wait()
        await server.ended(http=1)


async def _raw(server: Served, data: bytes) -> bytes:
    async with await Http.connect(server) as client:
        await client.stream.send_all(data)
        return await client.rest()


_POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
_GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
_LENGTH = b"Content-Length: "
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_BODY = b"\r\n0\r\n\r\n"
SMUGGLING = {
    "CL and TE": _POST + _LENGTH + b"4\r\n" + _CHUNKED + _BODY,
    "TE and CL": _POST + _CHUNKED + _LENGTH + b"4\r\n" + _BODY,
    "two CL": _POST + _LENGTH + b"1\r\n" + _LENGTH + b"2\r\n\r\nab",
    "the same CL twice": _POST + _LENGTH + b"1\r\n" + _LENGTH + b"1\r\n\r\na",
    "CL list": _POST + _LENGTH + b"1, 2\r\n\r\nab",
    "CL +": _POST + _LENGTH + b"+1\r\n\r\na",
    "CL -": _POST + _LENGTH + b"-1\r\n\r\na",
    "CL hex": _POST + _LENGTH + b"0x1\r\n\r\na",
    "CL huge": _POST + _LENGTH + b"999999999999999999999999999999\r\n\r\na",
    "CL empty": _POST + b"Content-Length:\r\n\r\na",
    "TE unknown": _POST + b"Transfer-Encoding: xchunked\r\n" + _BODY,
    "TE twice": _POST + _CHUNKED + _CHUNKED + _BODY,
    "TE list": _POST + b"Transfer-Encoding: chunked, identity\r\n" + _BODY,
    "TE vertical tab": _POST + b"Transfer-Encoding:\x0bchunked\r\n" + _BODY,
    "TE space": _POST + b"Transfer-Encoding : chunked\r\n" + _BODY,
    "TE in 1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded": _POST + b"Transfer-Encoding:\r\n chunked\r\n" + _BODY,
    "folded first": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF at the end": _GET + b"\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare LF in a field": _GET + b"A: b\n" + _LENGTH + b"5\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: x\rContent-Length: 5\r\n\r\n",
    "NUL": _GET + b"A: \x00b\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": _GET + b"Host: y\r\n\r\n",
    "tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "other version": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "spaces": b"GET  /  HTTP/1.1\r\nHost: x\r\n\r\n",
    "expectation": _GET + b"Expect: the-unexpected\r\n\r\n",
}
CHUNKS = {
    "extension": b"1;" + b"a" * 300 + b"\r\nx\r\n0\r\n\r\n",
    "extension without end": b"1;" + b"a" * 70_000,
    "LF behind a size": b"1\nx\r\n0\r\n\r\n",
    "LF in an extension": b"1;a\nb\r\nx\r\n0\r\n\r\n",
    "LF behind a chunk": b"1\r\nx\n0\r\n\r\n",
    "no end": b"1\r\nxyz0\r\n\r\n",
    "0x": b"0x1\r\nx\r\n0\r\n\r\n",
    "minus": b"-1\r\nx\r\n0\r\n\r\n",
    "space": b"1 \r\nx\r\n0\r\n\r\n",
    "empty size": b"\r\nx\r\n0\r\n\r\n",
    "size of many digits": b"0" * 16 + b"1\r\nx\r\n0\r\n\r\n",
    "too large": b"fffffffffffffff\r\nx",
    "trailers": b"0\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    "a trailer that is none": b"0\r\nGET /evil HTTP/1.1\r\n\r\n",
    "folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
}
_EVIL = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("again", [False, True], ids=["first", "kept"])
async def test_smuggled_requests(tmp_path: Path, *, again: bool) -> None:
    """A request that two servers could read differently is refused, whether it is the first one of
    its connection or a later one; nothing behind it is looked at.
    """
    called: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        called.append(scope["path"])
        await reply(send, await body_of(receive))

    before = b"GET /fine HTTP/1.1\r\nHost: x\r\n\r\n" if again else b""
    async with served(tmp_path, app, heartbeat=OFF) as server:
        for name, data in SMUGGLING.items():
            found = await _raw(server, before + data + _EVIL)
            if again:
                assert found.startswith(b"HTTP/1.1 200 OK"), name
                found = found[found.index(b"HTTP/1.1 ", 10) :]
            status = int(found.split(b" ")[1])
            assert status in {400, 413, 417, 501}, (name, found)
            assert b"Connection: close" in found, name
            assert found.count(b"HTTP/1.1 ") == 1, name
        assert called == ["/fine"] * len(SMUGGLING) * again
        counts = await server.until(lambda c: not c.open)
        assert counts.accepted == len(SMUGGLING)
        assert counts.http_errors == counts.handler_errors == 0


async def test_smuggled_chunks(tmp_path: Path) -> None:
    """A body in chunks that is not in order is refused where it is not, and what follows is not
    looked at; the application is told that its client is gone.
    """
    told: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["path"] == "/"
        while (message := await receive())["type"] == "http.request":
            assert message["more_body"]
        told.append(message["type"])
        await reply(send)  # nobody is there

    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with served(tmp_path, app, heartbeat=OFF) as server:
        for name, data in CHUNKS.items():
            found = await _raw(server, head + data + _EVIL)
            assert found.split(b" ")[1] in {b"400", b"413"}, (name, found)
            assert found.count(b"HTTP/1.1 ") == 1, name
        assert told == ["http.disconnect"] * len(CHUNKS)
        counts = await server.ended(http=len(CHUNKS))
        assert counts.handler_errors == 0
