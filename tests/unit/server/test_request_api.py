"""What a request has beyond trio-websocket's, and the edges of answering it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, connect_websocket_url

from tests.harness import raw
from tests.harness.ends import exactly, frame
from tests.harness.served import Echo, everything, served
from tests.unit.server.peer import everything_read
from wssup.server.request import Request

HEADERS = [(b"X-Kept", b"1"), (b"Cookie", b"a=b"), (b"x-kept", b"2")]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (("x-kept",), [(b"x-kept", b"1"), (b"x-kept", b"2")]),
        (("cookie", "missing"), [(b"cookie", b"a=b")]),
        ((), []),
    ],
)
async def test_keep_headers(
    tmp_path: Path, keep: tuple[str, ...], kept: list[tuple[bytes, bytes]]
) -> None:
    """A connection has the headers that keep_headers names and no others, and its path; the request
    has them all until it is accepted.
    """

    async def handler(request: Request) -> None:
        names = {name for name, _ in request.headers}
        assert names >= {b"host", b"upgrade", b"cookie", b"x-kept", b"sec-websocket-protocol"}
        assert request.get("COOKIE") == "a=b"
        ws = await request.accept(subprotocol="chat")
        assert list(ws.handshake_headers) == request.headers == kept
        assert ws.path == request.path == "/a?b"
        await ws.send_message(str(ws.subprotocol))
        await ws.get_message()

    async with served(tmp_path, handler, keep_headers=keep) as server:
        async with await connect_websocket_url(
            server.nursery, server.url + "a?b", subprotocols=["chat"], extra_headers=HEADERS
        ) as ws:
            assert await ws.get_message() == "chat"
        counts = await server.ended(client=1)
        assert counts.handler_errors == 0


@pytest.mark.parametrize("first", ["accept", "reject"])
@pytest.mark.parametrize("second", ["accept", "reject"])
async def test_answering_twice(tmp_path: Path, first: str, second: str) -> None:
    """A request that was answered raises RuntimeError when it is answered again, also without
    waiting, and nothing happens to the connection.
    """
    caught: list[str] = []

    async def handler(request: Request) -> None:
        assert not request.is_answered
        status = {"accept": (), "reject": (403,)}
        await getattr(request, first)(*status[first])
        assert request.is_answered
        with pytest.raises(RuntimeError, match="answered"):
            await getattr(request, second)(*status[second])
        with pytest.raises(RuntimeError, match="answered"):
            getattr(request, f"{second}_nowait")(*status[second])
        caught.append("both")
        if first == "accept":
            await request.connection.send_message("fine")

    async with served(tmp_path, handler, close_timeout=0.1) as server:
        stream, answer = await server.send(raw.request())
        answer += await everything(stream)
        assert caught == ["both"]
        assert answer.startswith(b"HTTP/1.1 " + (b"101 " if first == "accept" else b"403 "))
        assert answer.count(b"HTTP/1.1") == 1
        assert (b"\x81\x04fine" in answer) is (first == "accept")
        await server.ended(**{"server" if first == "accept" else "rejected": 1})


@pytest.mark.parametrize("answer", ["accept", "reject"])
async def test_answering_a_client_that_left(tmp_path: Path, answer: str) -> None:
    """Who accepts or rejects after the client has left is told by ConnectionClosed."""
    go, told = trio.Event(), trio.Event()

    async def handler(request: Request) -> None:
        await go.wait()
        assert request.is_answered
        with pytest.raises(ConnectionClosed):
            await getattr(request, answer)(*(() if answer == "accept" else (403,)))
        told.set()

    async with served(tmp_path, handler) as server:
        stream = await server.open()
        await stream.send_all(raw.request())
        await server.until(lambda c: c.handler_runs)
        await stream.aclose()
        counts = await server.until(lambda c: not c.open)
        go.set()
        await told.wait()
        counts = await server.ended(disconnected=1)
        assert counts.handler_errors == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"subprotocol": "mail"}, "mail.* was not proposed.*chat, file"),
        ({"subprotocol": ""}, "was not proposed"),
        ({"extra_headers": [(b"X-A", b"b\r\nX-C: d")]}, "X-A"),
        ({"extra_headers": [(b"X-A", b"b\n")]}, "X-A"),
        ({"extra_headers": [(b"X-A", b"b\0")]}, "X-A"),
        ({"extra_headers": [(b"X-A: b\r\nX-C", b"d")]}, "X-A"),
        ({"extra_headers": [(b"X A", b"b")]}, "X A"),
        ({"extra_headers": [(b"", b"b")]}, "cannot be sent"),
        ({"extra_headers": [(b"Sec-WebSocket-Accept", b"x")]}, "Sec-WebSocket-Accept"),
        ({"extra_headers": [(b"upgrade", b"x")]}, "upgrade"),
    ],
)
async def test_an_answer_that_cannot_be_sent(
    tmp_path: Path, arguments: dict[str, Any], problem: str
) -> None:
    """A subprotocol that was not proposed raises ValueError with those that were, and so does a
    header that would break the answer's head or that the handshake says itself; nothing was sent,
    so the request can still be answered.
    """

    async def handler(request: Request) -> None:
        with pytest.raises(ValueError, match=problem):
            await request.accept(**arguments)
        headers = arguments.get("extra_headers")
        if headers is not None:
            with pytest.raises(ValueError, match=problem):
                await request.reject(403, extra_headers=headers)
        ws = await request.accept(subprotocol="file")
        await ws.send_message("fine")

    async with served(tmp_path, handler, close_timeout=0.1) as server:
        stream, answer = await server.send(raw.request("/", b"Sec-WebSocket-Protocol: chat, file"))
        answer += await everything(stream)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"X-C" not in answer
        assert b"\x81\x04fine" in answer
        await server.ended(server=1)


@pytest.mark.parametrize("status", [0, 99, 101, 200, 299, 600, 1000])
async def test_a_status_that_rejects_nothing(tmp_path: Path, status: int) -> None:
    """A handshake is rejected with a status from 300 to 599; another raises ValueError."""

    async def handler(request: Request) -> None:
        with pytest.raises(ValueError, match=f"{status}.*300 to 599"):
            await request.reject(status)
        await request.reject(503)

    async with served(tmp_path, handler, close_timeout=0.1) as server:
        stream, answer = await server.send(raw.request())
        answer += await everything(stream)
        assert answer.startswith(b"HTTP/1.1 503 ")
        await server.ended(rejected=1)


EARLY = raw.frame(raw.TEXT, b"one") + raw.frame(2, b"two") + raw.frame(9, b"ping")


@pytest.mark.parametrize("style", ["task", "event"])
@pytest.mark.parametrize("cut", [0, 3, len(EARLY)])
async def test_frames_that_come_with_the_handshake(tmp_path: Path, style: str, cut: int) -> None:
    """What a client sends in one go with its handshake, whole or in part, is not lost."""

    async def handler(request: Request) -> None:
        await everything_read()
        ws = await request.accept()
        async for message in ws:
            await ws.send_message(message)

    async with served(tmp_path, handler if style == "task" else Echo()) as server:
        stream = await server.open()
        await stream.send_all(raw.request() + EARLY[:cut])
        await stream.send_all(EARLY[cut:])
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await exactly(stream, 1)
        assert {await frame(stream) for _ in range(3)} == {
            (raw.TEXT, b"one"),
            (2, b"two"),
            (10, b"ping"),
        }
        await stream.aclose()
        await server.ended(lost=1)
