"""The life of an HTTP connection: what it waits for, how it ends, and what it becomes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from tests.harness import raw
from tests.harness.http_client import Http, Message, Receive, Send, body_of, reply, routes
from tests.harness.served import served
from tests.harness.waiting import until
from tests.unit.server.peer import OFF, Peer, everything_read
from wssup.scoreboard import ClosedReason

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def index(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, b"fine")


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await reply(send, await body_of(receive))
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def forever(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


# Expect: 100-continue (RFC 9110 section 10.1.1).


async def test_continue_is_said_when_the_body_is_wanted(tmp_path: Path) -> None:
    """Who waits for a word before it sends the body gets it when the application asks for the
    body, once; who is answered without gets none, and its connection ends, as nobody knows whether
    the body will come.
    """
    app = routes(index=index, echo=echo)
    async with served(tmp_path, app, heartbeat=OFF) as server:
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        async with await Http.connect(server) as client:
            await client.stream.send_all(head % b"/echo")
            assert await client.stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.stream.send_all(b"a")
            await client.stream.send_all(b"bc" + GET)
            found = b""
            while not found.endswith(b"fine"):
                found += await client.stream.receive_some()
            assert found.count(b"HTTP/1.1 200 OK") == 2
            assert b"\r\n\r\nabc" in found
        async with await Http.connect(server) as client:
            await client.stream.send_all(head % b"/")
            found = await client.rest()
            assert found.startswith(b"HTTP/1.1 200 OK")
            assert b"Connection: close" in found or found.endswith(b"fine")
        async with await Http.connect(server) as client:
            await client.stream.send_all(head % b"/echo" + b"abc")  # it has not waited
            assert b"\r\n\r\nabc" in await client.stream.receive_some()
        await server.ended(http=3)


# Limits.


async def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    """One byte more than body_bytes is refused: at once if the head says so, in chunks when it
    comes; the client can read why.
    """
    async with served(tmp_path, echo, heartbeat=OFF, body_bytes=10_000) as server:
        for chunked, size, status in (
            (False, 10_000, 200),
            (True, 10_000, 200),
            (False, 10_001, 413),
            (True, 10_001, 413),
        ):
            async with await Http.connect(server) as client:
                coding = [("Transfer-Encoding", "chunked")] if chunked else []
                answer = await client.ask(method="POST", body=bytes(size), headers=coding)
                assert answer.status == status
                assert answer.body in {bytes(size), b"the body is too large\n"}
        counts = await server.ended(http=4)
        assert counts.handler_errors == 1  # this application insists on a body


async def test_a_body_that_does_not_come(tmp_path: Path) -> None:
    """A body of which nothing comes for body_timeout gets 408; one that comes slowly does not."""
    async with served(tmp_path, echo, heartbeat=OFF, body_timeout=4.0) as server:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        async with await Http.connect(server) as slow, await Http.connect(server) as late:
            await slow.stream.send_all(head)
            await late.stream.send_all(head + b"slow bod")
            for byte in b"slow body":
                await trio.sleep(0.5)
                await slow.stream.send_all(bytes([byte]))
            assert b"\r\n\r\nslow body" in await slow.stream.receive_some()
            assert (await late.rest()).startswith(b"HTTP/1.1 408 ")


async def test_between_requests(tmp_path: Path) -> None:
    """A connection without a request is closed after keep_alive_timeout, without a word; one whose
    next head does not become complete in handshake_timeout is told 408. Both is counted as HTTP.
    """
    async with served(
        tmp_path, index, heartbeat=OFF, keep_alive_timeout=0.3, handshake_timeout=0.6
    ) as server:
        async with await Http.connect(server) as idle, await Http.connect(server) as slow:
            began = time.monotonic()
            for client in (idle, slow):
                assert (await client.ask()).body == b"fine"
            await slow.stream.send_all(b"GET /")
            assert await idle.rest() == b""
            assert time.monotonic() - began >= 0.3
            found = b""
            while data := await slow.stream.receive_some():
                found += data
            assert found.startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - began >= 0.6
        await server.ended(http=2)


async def test_idle_connections_cost_no_task(tmp_path: Path) -> None:
    """Between two requests the pump has a connection: there is no task for it."""
    async with served(tmp_path, index, heartbeat=OFF) as server:
        clients = [await Http.connect(server) for _ in range(20)]
        before = trio.lowlevel.current_statistics().tasks_living
        for client in clients:
            assert (await client.ask()).body == b"fine"
        await until(lambda: not server.engine._style.busy)
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert server.counts.open == 20
        for client in clients:
            assert (await client.ask()).body == b"fine"
            await client.stream.aclose()
        await server.ended(http=20)


async def test_connections_per_address(tmp_path: Path) -> None:
    """HTTP connections count among those of their address, from the first byte to the end, however
    often they go from the pump to a task and back.
    """
    async with served(tmp_path, index, heartbeat=OFF, connections_per_address=2) as server:
        for _ in range(3):
            async with await Http.connect(server) as one, await Http.connect(server) as two:
                for client in (one, two, one, two):
                    assert (await client.ask()).status == 200
                async with await Http.connect(server) as third:
                    assert (await third.rest()).startswith(b"HTTP/1.1 429 ")
            await server.until(lambda c: not c.open)


# The client leaves.


async def test_a_client_that_leaves(tmp_path: Path) -> None:
    """An application that waits is told when its client is gone; what it sends then goes nowhere,
    and is no error.
    """
    told: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        told.append(await receive())
        told.append(await receive())
        for more in (True, False):
            await send({"type": "http.response.body", "body": b"x", "more_body": more})

    async with served(tmp_path, app, heartbeat=OFF) as server:
        async with await Http.connect(server) as client:
            await client.request()
            assert b"begun" in await client.stream.receive_some()
            assert told == []
        counts = await server.ended(http=1)
        assert told == [{"type": "http.disconnect"}] * 2
        assert counts.handler_errors == 0


@pytest.mark.parametrize("body", [b"", b"half of it"])
async def test_a_client_that_leaves_in_its_request(tmp_path: Path, body: bytes) -> None:
    """A body that ends too early is no body: the application is told that its client is gone."""
    told: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        told.append(message)
        await reply(send)

    async with served(tmp_path, app, heartbeat=OFF) as server:
        async with await Http.connect(server) as client:
            await client.stream.send_all(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + body
            )
        await server.ended(http=1)
        assert told == [{"type": "http.disconnect"}]


async def test_the_end_of_the_response_ends_a_wait(tmp_path: Path) -> None:
    """Who listens for the client's end in a task beside the response is told when the response is
    complete, and takes nothing of the next request; two may listen.
    """

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"

        async def listen() -> None:
            assert (await receive()) == {"type": "http.disconnect"}

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(listen)
            await everything_read()
            await reply(send, scope["path"].encode())

    async with served(tmp_path, app, heartbeat=OFF) as server:
        async with await Http.connect(server) as client:
            for path in ("/1", "/2"):
                assert (await client.ask(path)).body == path.encode()
            await client.stream.send_all(GET.replace(b"/", b"/3", 1) + GET.replace(b"/", b"/4", 1))
            found = b""
            while found.count(b"\r\n\r\n/") < 2:
                found += await client.stream.receive_some()
            assert found.index(b"\r\n\r\n/3") < found.index(b"\r\n\r\n/4")
        assert (await server.ended(http=1)).handler_errors == 0


async def test_work_behind_the_response(tmp_path: Path) -> None:
    """An application may go on after its response (background tasks of Starlette): the connection
    does not wait for it. What it sends then is an error, and its own.
    """
    go_on = trio.Event()

    async def works(scope: Message, receive: Receive, send: Send) -> None:
        await reply(send, b"first")
        await go_on.wait()
        with pytest.raises(RuntimeError, match="after the response was complete"):
            await send({"type": "http.response.body", "body": b"more"})

    app = routes(works=works, index=index)
    async with served(tmp_path, app, heartbeat=OFF) as server:
        async with await Http.connect(server) as client:
            assert (await client.ask("/works")).body == b"first"
            assert (await client.ask("/")).body == b"fine"
            go_on.set()
        assert (await server.ended(http=1)).handler_errors == 0


@pytest.mark.parametrize(("size", "keeps"), [(1000, True), (60_000, True), (200_000, False)])
async def test_a_body_that_nobody_wants(tmp_path: Path, size: int, *, keeps: bool) -> None:
    """A body that the application does not ask for is thrown away if it is little; else the
    connection ends, and its client gets the response all the same.
    """
    async with served(tmp_path, index, heartbeat=OFF) as server:
        async with await Http.connect(server) as client:
            with trio.move_on_after(5):
                answer = await client.ask(method="POST", body=bytes(size))
                assert answer.body == b"fine"
            if keeps:
                assert (await client.ask()).body == b"fine"
            else:
                assert await client.rest() == b""
        await server.ended(http=1)


# It becomes a WebSocket.


@pytest.mark.parametrize("together", [False, True])
async def test_an_upgrade_on_a_kept_connection(tmp_path: Path, *, together: bool) -> None:
    """A connection that has served HTTP becomes a WebSocket when it asks for one, also when it asks
    at once, and sends its first message along; it is counted as one, and as accepted once.
    """
    upgrade = raw.request("/") + raw.frame(raw.TEXT, b"early")
    async with served(tmp_path, echo, heartbeat=OFF) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(GET + upgrade if together else GET)
            assert (await peer.head()).startswith(b"HTTP/1.1 200 OK")
            if not together:
                await peer.send(upgrade)
            assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
            assert await peer.frame() == (raw.TEXT, b"early")
            await peer.close()
        counts = await server.ended(client=1)
        assert (counts.accepted, counts.upgraded, counts.http_requests) == (1, 1, 1)


# The worker ends.


async def test_a_drain(tmp_path: Path) -> None:
    """A worker that drains closes connections between two requests at once. Running ones go on; at
    the window's end who waits for its client to leave is told that it did. A response that is
    complete after the worker has stopped accepting ends its connection.
    """
    finish = trio.Event()

    async def slow(scope: Message, receive: Receive, send: Send) -> None:
        await finish.wait()
        await reply(send, b"slow")

    app = routes(index=index, slow=slow, forever=forever)
    async with served(tmp_path, app, heartbeat=OFF) as server:
        async with (
            await Http.connect(server) as idle,
            await Http.connect(server) as working,
            await Http.connect(server) as streaming,
        ):
            assert (await idle.ask()).body == b"fine"
            await working.request("/slow")
            await streaming.request("/forever")
            assert b"begun" in await streaming.stream.receive_some()
            server.engine.accept(on=False)
            began = time.monotonic()
            server.engine.close_all(1012, "service restart", ClosedReason.DRAIN, 0.5)
            assert await idle.rest() == b""
            assert await streaming.rest() == b""
            assert time.monotonic() - began >= 0.5
            finish.set()
            answer = await working.answer()
            assert answer.body == b"slow"
            assert answer.get(b"connection") == b"close"
            assert await working.rest() == b""
        assert (await server.ended(http=3)).handler_errors == 0


async def test_the_end_of_a_worker(tmp_path: Path) -> None:
    """Who does not finish in time is cut off, and counted like everybody."""
    async with served(tmp_path, forever, heartbeat=OFF) as server:
        async with await Http.connect(server) as client:
            await client.request()
            assert b"begun" in await client.stream.receive_some()
            server.engine.abort_all(ClosedReason.DEADLINE)
            assert await client.rest() == b""
            await server.engine.wait_empty()
        await server.ended(http=1)
