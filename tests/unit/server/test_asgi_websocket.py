"""The WebSocket protocol of ASGI (asgi.readthedocs.io), as applications see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, connect_websocket_url

import wssup
from tests.harness import raw
from tests.harness.http_client import Message, Receive, Send, routes
from tests.harness.served import served
from tests.unit.server.peer import OFF, Peer, everything_read


async def accept(receive: Receive, send: Send, **more: Any) -> None:
    """Take a connection."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def test_messages_both_ways(tmp_path: Path) -> None:
    """Text is text and bytes are bytes, each under its own key alone; what is sent may have the
    other key as None.
    """
    received: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        for _ in range(3):
            received.append(message := await receive())
            await send({"bytes": None, "text": None, **message, "type": "websocket.send"})
        await receive()

    async with served(tmp_path, app) as server:
        async with await server.connect() as ws:
            for message in ("text", b"bytes", ""):
                await ws.send_message(message)
                assert await ws.get_message() == message
        assert received == [
            {"type": "websocket.receive", "text": "text"},
            {"type": "websocket.receive", "bytes": b"bytes"},
            {"type": "websocket.receive", "text": ""},
        ]
        await server.ended(client=1)


async def test_scope(tmp_path: Path) -> None:
    """A scope says what was asked; what is wssup's own is in an extension."""
    scopes: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await accept(receive, send, subprotocol=scope["subprotocols"][-1], headers=[(b"X-A", b"b")])
        await receive()

    async with served(tmp_path, app) as server:
        server.engine.style.lifespan_state = {"database": "there"}  # type: ignore[union-attr]
        async with await connect_websocket_url(
            server.nursery,
            server.url + "caf%C3%A9?q",
            subprotocols=["v1", "v2"],
            extra_headers=[(b"X-C", b"d")],
        ) as ws:
            assert ws.subprotocol == "v2"
            assert (b"x-a", b"b") in ws.handshake_headers
        scope = scopes[0]
        own = scope["extensions"].pop("wssup")
        assert (b"x-c", b"d") in scope.pop("headers")
        assert scope.pop("client")[0] == "127.0.0.1"
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/café",
            "raw_path": b"/caf%C3%A9",
            "query_string": b"q",
            "root_path": "",
            "server": server.address,
            "subprotocols": ["v1", "v2"],
            "extensions": {"websocket.http.response": {}},
            "state": {"database": "there"},
        }
        assert own["resumed"] is False
        assert own["state"] is own["connection"].state
        assert own["id"] == own["connection"].id


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        ({"code": 3456, "reason": "enough"}, 3456, "enough"),
        ({"code": 1000}, 1000, None),
        ({}, 1000, None),
        ({"code": None, "reason": None}, 1000, None),
    ],
)
async def test_the_application_closes(
    tmp_path: Path, end: Message, code: int, reason: str | None
) -> None:
    """The client gets the code and the reason of ``websocket.close``; the application is told the
    same code back, again and again, and may not send any more.
    """
    told: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", **end})
        told.extend([await receive(), await receive()])
        with pytest.raises(RuntimeError, match="after the application has closed"):
            await send({"type": "websocket.send", "text": "more"})

    async with served(tmp_path, app) as server:
        ws = await server.connect()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.get_message()
        assert (caught.value.reason.code, caught.value.reason.reason) == (code, reason)
        counts = await server.ended(server=1)
        assert told == [{"type": "websocket.disconnect", "code": code, "reason": reason or ""}] * 2
        assert counts.handler_errors == 0


async def test_the_application_returns(tmp_path: Path) -> None:
    """An application that returns has closed, with 1000."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)

    async with served(tmp_path, app) as server:
        async with await Peer.open(server) as peer:
            assert await peer.code() == 1000
        await server.ended(server=1)


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (raw.frame(raw.CLOSE, b"\x0f\xa0bye"), 4000, "bye"),
        (raw.frame(raw.CLOSE, b""), 1005, ""),
        (b"", 1006, ""),
        (raw.frame(raw.TEXT, b"\xff"), 1007, None),
    ],
    ids=["code and reason", "neither", "broken", "no text"],
)
async def test_the_client_closes(
    tmp_path: Path, said: bytes, code: int, reason: str | None
) -> None:
    """Whatever came before is received first; then the code that the client has said, 1005 if it
    has said none, and 1006 if it has just gone.
    """
    told: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await trio.sleep(0.05)
        while True:
            told.append(message := await receive())
            if message["type"] == "websocket.disconnect":
                break
        with pytest.raises(OSError):  # noqa: PT011 - ASGI says no more than that
            await send({"type": "websocket.send", "text": "is anybody there?"})
        await send({"type": "websocket.close"})  # of what is closed nothing is left to close

    async with served(tmp_path, app, heartbeat=OFF) as server:
        async with await Peer.open(server) as peer:
            await peer.send(raw.frame(raw.TEXT, b"first") + said)
            if not said:
                peer.reset()
        counts = await server.until(lambda c: not c.open)
        while len(told) < 2:
            await everything_read()
        *before, last = told
        assert before == [{"type": "websocket.receive", "text": "first"}]
        assert last["type"] == "websocket.disconnect"
        assert last["code"] == code
        assert reason is None or last["reason"] == reason
        await server.engine.wait_empty()
        assert counts.handler_errors == 0


async def _closes(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 4000})
    assert (await receive()) == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def _denies(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    headers = [(b"X-Why", b"not today"), (b"Content-Length", b"7"), (b"Connection", b"keep-alive")]
    await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"tea", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"pot\n"})
    assert (await receive())["type"] == "websocket.disconnect"


async def test_the_application_refuses(tmp_path: Path) -> None:
    """``websocket.close`` before the acceptance is a 403; the extension makes any response."""
    async with served(tmp_path, routes(closes=_closes, denies=_denies)) as server:
        stream, answer = await server.send(raw.request("/closes"))
        await stream.aclose()
        assert answer.startswith(b"HTTP/1.1 403 ")
        stream, answer = await server.send(raw.request("/denies"))
        await stream.aclose()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 418 ")
        assert b"X-Why: not today" in head
        assert head.count(b"Connection: ") == head.count(b"Content-Length: ") == 1
        assert body == b"teapot\n"
        counts = await server.ended(rejected=2)
        assert counts.handler_errors == 0


async def test_who_listens_while_it_is_refused(tmp_path: Path) -> None:
    """A task that waits for messages hears of the end when the application's own response is
    complete, and not when it begins: applications end when they hear it.
    """
    heard: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                heard.append(await receive())

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            assert heard == []
            await send({"type": "websocket.http.response.body", "body": b"teapot"})

    async with served(tmp_path, app) as server:
        stream, answer = await server.send(raw.request("/"))
        await stream.aclose()
        assert answer.startswith(b"HTTP/1.1 418 ")
        await server.ended(rejected=1)
    assert [message["type"] for message in heard] == ["websocket.disconnect"]


class WebSocketDisconnect(Exception):  # noqa: N818 - Starlette's name, by which it is known
    pass


async def test_a_farewell_is_no_error(tmp_path: Path) -> None:
    """What frameworks raise because the client has left, and applications let through, is no error
    of the application: it would count against the code of a reload. The same out of the blue is.
    """

    async def lets_through(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while (await receive())["type"] == "websocket.receive":
            pass
        raise WebSocketDisconnect

    async def sends_on(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while True:
            await send({"type": "websocket.send", "text": "x"})
            await trio.sleep(0.001)

    async def in_a_group(scope: Message, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lets_through, scope, receive, send)

    async def for_no_reason(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        raise WebSocketDisconnect

    app = routes(lets=lets_through, sends=sends_on, group=in_a_group, no=for_no_reason)
    async with served(tmp_path, app, heartbeat=OFF) as server:
        for path in ("/lets", "/sends", "/group"):
            async with await Peer.open(server, path) as peer:
                await peer.close()
        await server.until(lambda c: not c.open)
        await server.engine.wait_empty()
        assert server.counts.handler_errors == 0
        async with await Peer.open(server, "/no") as peer:
            assert await peer.code() == 1011
        assert (await server.until(lambda c: not c.open)).handler_errors == 1


async def test_a_slow_client_is_waited_for(tmp_path: Path) -> None:
    """send() waits while the client's queue is full, for that client alone; when the client reads,
    everything comes in order.
    """
    count = 300
    sent: list[int] = []

    async def floods(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        for number in range(count):
            await send({"type": "websocket.send", "bytes": b"%5d" % number + bytes(1 << 16)})
            sent.append(number)
        await receive()

    app = routes(floods=floods, index=echo)
    async with (
        served(tmp_path, app, heartbeat=OFF) as server,
        await Peer.open(server, "/floods", buffer=1 << 16) as peer,
    ):
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert len(sent) < count
        await server.works()
        for number in range(count):
            _, payload = await peer.frame()
            assert int(payload[:5]) == number
        await peer.close()


async def test_who_sends_without_end_lets_others_run(tmp_path: Path) -> None:
    """An application that does nothing but send to clients that read is no stall."""
    stop = trio.Event()

    async def floods(scope: Message, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while not stop.is_set():
            await send({"type": "websocket.send", "text": "x"})

    app = routes(floods=floods, index=echo)
    async with (
        served(tmp_path, app, heartbeat=OFF) as server,
        await Peer.open(server, "/floods") as peer,
    ):

        async def read() -> None:
            while not stop.is_set():
                await peer.frame()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for _ in range(3):
                await server.works()
            stop.set()


async def test_topics(tmp_path: Path) -> None:
    """What is published to a topic comes to those that subscribed through their scope, and not to
    the connection that is excluded.
    """

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        extension = scope["extensions"]["wssup"]
        await accept(receive, send)
        extension["subscribe"]("room")
        await send({"type": "websocket.send", "text": "in"})
        while (message := await receive())["type"] == "websocket.receive":
            if message["text"] == "leave":
                extension["unsubscribe"]("room")
            wssup.publish("room", message["text"], exclude=extension["connection"])

    async with served(tmp_path, app) as server:
        one, two = await server.connect(), await server.connect()
        for ws in (one, two):
            assert await ws.get_message() == "in"
        await one.send_message("hello")
        assert await two.get_message() == "hello"
        await two.send_message("leave")
        assert await one.get_message() == "leave"
        await one.send_message("nobody hears it")
        await two.send_message("bye")
        assert await one.get_message() == "bye"
