"""The engine on asyncio: the same applications, with asyncio's ways of cancelling and timing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from trio_websocket import ConnectionClosed
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed as ClientClosed

from tests.harness import raw
from tests.harness.on_asyncio import Serving, on_asyncio, serving
from tests.harness.waiting import until_on_asyncio
from wssup.config.settings import Heartbeat
from wssup.server.connection import Connection
from wssup.server.request import Request


class Plain:
    """An echo without a task."""

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        ws.send_nowait(data)


class Async:
    """An echo whose hooks are all async."""

    async def on_request(self, request: Request) -> None:
        await request.accept(subprotocol="echo" if request.subprotocols else None)

    async def on_connect(self, ws: Connection) -> None:
        ws.state["received"] = 0
        await asyncio.sleep(0.01)

    async def on_receive(self, ws: Connection, data: str | bytes) -> None:
        ws.state["received"] += 1
        await ws.send_message(data)

    async def on_disconnect(self, ws: Connection, code: int) -> None:
        await asyncio.sleep(0)
        assert (ws.state["received"], code) == (4, 3456)


async def task(request: Request) -> None:
    """An echo, task style."""
    async with await request.accept() as ws:
        async for message in ws:
            await ws.send_message(message)


@pytest.mark.parametrize("application", [Plain, Async, task])
@on_asyncio
async def test_an_echo(tmp_path: Path, application: object) -> None:
    """Applications of both styles, plain and async, serve a client as on trio: text, binary,
    fragments, pings, close codes, and the counts of them.
    """
    async with serving(tmp_path, application) as server:
        async with server.connect() as ws:
            for message in ("text", b"binary", "x" * 200_000):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["in ", "three ", "parts"])
            assert await ws.recv() == "in three parts"
            await (await ws.ping())
            await ws.close(3456, "enough")
        assert ws.close_code == 3456
        await server.idle()
        counts = server.counts
        assert (counts.messages_in, counts.messages_out) == (4, 4)
        assert counts.bytes_in == counts.bytes_out == 4 + 6 + 200_000 + 14
        assert (counts.closed_by_reason["client"], counts.handler_errors) == (1, 0)


@on_asyncio
async def test_many_at_once(tmp_path: Path) -> None:
    """Connections do not wait for each other; each has its messages in order."""

    async def talk(ws: ClientConnection, number: int) -> None:
        for index in range(20):
            await ws.send(f"{number} {index}")
        assert [await ws.recv() for _ in range(20)] == [f"{number} {i}" for i in range(20)]
        await ws.close()

    async with serving(tmp_path, task) as server:
        clients = [await server.connect(subprotocols=["echo"]) for _ in range(20)]
        await asyncio.gather(*(talk(ws, number) for number, ws in enumerate(clients)))
        await server.idle()
        assert server.counts.closed_by_reason["client"] == 20


@on_asyncio
async def test_receiving_inside_a_hook(tmp_path: Path) -> None:
    """Async hooks may wait for the next message themselves."""
    got: list[str | bytes] = []

    class Application:
        async def on_connect(self, ws: Connection) -> None:
            got.append(await ws.get_message())

        async def on_receive(self, ws: Connection, data: str) -> None:
            got.append(data)
            got.append(await asyncio.wait_for(ws.get_message(), 5))
            await ws.send_message("ok")

    async with (
        asyncio.timeout(5),
        serving(tmp_path, Application()) as server,
        server.connect() as ws,
    ):
        for number, message in enumerate(("token", "one", "two"), 1):
            await ws.send(message)
            await server.until(lambda c, n=number: c.messages_in == n)  # type: ignore[misc]
        assert await ws.recv() == "ok"
    assert got == ["token", "one", "two"]


@on_asyncio
async def test_a_hook_that_raises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an async hook raises ends its connection alone, with 1011."""

    class Application(Plain):
        async def on_connect(self, ws: Connection) -> None:
            if ws.path == "/?fail":
                await asyncio.sleep(0)
                raise ValueError("oh")

    async with serving(tmp_path, Application()) as server, server.connect() as other:
        with server.open() as client:
            client.socket.sendall(raw.request("/?fail"))
            await server.until(lambda c: c.handler_errors == 1)
            assert client.head().startswith(b"HTTP/1.1 101 ")
            assert client.frame() == (raw.CLOSE, b"\x03\xf3internal error")
        await other.send("fine")
        assert await other.recv() == "fine"
    assert "ValueError: oh" in "".join(capsys.readouterr())


# Cancellation.


@dataclass
class Held:
    """An application, task style, that gives its connections to the test."""

    accepted: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)

    async def __call__(self, request: Request) -> None:
        self.accepted.put_nowait(await request.accept())
        await asyncio.Event().wait()


@asynccontextmanager
async def held(tmp_path: Path, **limits: Any) -> AsyncIterator[tuple[Serving, Connection, raw.Raw]]:
    """A server, its end of a connection, and the client's."""
    application = Held()
    async with serving(tmp_path, application, **limits) as server:
        with server.open() as client:
            client.socket.sendall(raw.request())
            here = await application.accepted.get()
            assert client.head().startswith(b"HTTP/1.1 101 ")
            yield server, here, client


async def ticks(count: int = 3) -> None:
    """Let what is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


@on_asyncio
async def test_a_receive_that_is_cancelled_when_its_message_comes(tmp_path: Path) -> None:
    """A message that woke a task which was cancelled at the same moment is the next one again."""
    async with held(tmp_path) as (server, here, client):
        server.loop.victim = receiving = asyncio.create_task(here.get_message())
        await ticks()
        client.say("one")
        with pytest.raises(asyncio.CancelledError):
            await receiving
        client.say("two")
        assert [await here.get_message(), await here.get_message()] == ["one", "two"]


@on_asyncio
async def test_a_receive_that_is_cancelled_where_others_run(tmp_path: Path) -> None:
    """A receive of a message that is there can be cancelled at any moment: it has returned the
    message, or the next receive does.
    """
    async with held(tmp_path) as (server, here, client):
        for count in range(4):
            client.say(f"message {count}")
            await server.until(lambda c, count=count: c.messages_in == count + 1)
            receiving = asyncio.create_task(here.get_message())
            await ticks(count)
            receiving.cancel()
            (got,) = await asyncio.gather(receiving, return_exceptions=True)
            if isinstance(got, asyncio.CancelledError):
                got = await asyncio.wait_for(here.get_message(), 5)
            assert got == f"message {count}"


@on_asyncio
async def test_a_send_that_is_cancelled(tmp_path: Path) -> None:
    """A send that was cancelled has sent nothing, and one that has sent was not cancelled."""
    async with held(tmp_path) as (_, here, client):
        expected = []
        for count in range(4):
            sending = asyncio.create_task(here.send_message(str(count)))
            await ticks(count)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            if not sending.cancelled():
                expected.append(str(count))
        here.send_nowait("end")
        assert [client.frame()[1].decode() for _ in range(len(expected) + 1)] == [*expected, "end"]
        assert expected


@on_asyncio
async def test_others_run_while_one_sends(tmp_path: Path) -> None:
    """A task that sends on and on, to a client that takes everything, lets others run between."""
    async with held(tmp_path) as (_, here, client):
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for number in range(100):
            await here.send_message(str(number))
        assert turns >= 50
        counting.cancel()
        assert client.frame() == (raw.TEXT, b"0")


@pytest.mark.parametrize("first", [True, False])
@on_asyncio
async def test_one_of_two_receivers_is_cancelled(tmp_path: Path, *, first: bool) -> None:
    """When one of two tasks that wait for messages is cancelled just as one comes, the other gets
    it, and both are told of the end.
    """
    async with held(tmp_path) as (server, here, client):
        receivers = [asyncio.create_task(here.get_message()) for _ in range(2)]
        await ticks()
        client.say("one")
        victim, other = receivers if first else receivers[::-1]
        victim.cancel()
        # The message is delivered before the task can notice.
        server.pump.turn()
        assert await asyncio.wait_for(other, 5) == "one"
        assert victim.cancelled()
        receivers = [asyncio.create_task(here.get_message()) for _ in range(2)]
        await ticks()
        server.loop.victim = receivers[0]
        client.say("two")
        assert await asyncio.wait_for(receivers[1], 5) == "two"
        with pytest.raises(asyncio.CancelledError):
            await receivers[0]
        receivers = [asyncio.create_task(here.get_message()) for _ in range(2)]
        await ticks()
        client.socket.shutdown(socket.SHUT_WR)
        for receiving in receivers:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(receiving, 5)


@on_asyncio
async def test_a_cancelled_wait_for_the_end(tmp_path: Path) -> None:
    """aclose() that is cancelled cuts off; ping() that is cancelled is forgotten."""
    async with held(tmp_path, close_timeout=1000) as (server, here, client):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(here.ping(b"x"), 0.01)
        assert client.frame() == (9, b"x")
        client.socket.sendall(raw.frame(10, b"x"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(here.aclose(4000), 0.01)
        await server.until(lambda c: not c.open)
        assert client.frame() == (raw.CLOSE, b"\x0f\xa0")


@pytest.mark.parametrize("ticks_before", [0, 1, 2])
@on_asyncio
async def test_the_loop_is_cancelled(tmp_path: Path, ticks_before: int) -> None:
    """When the application's tasks are cancelled, also one that was not begun yet, none is missed
    at the end, and on_disconnect is called.
    """
    told: list[str] = []

    class Application:
        async def on_receive(self, ws: Connection, data: str) -> None:
            assert (ws.path, data) == ("/", "hello")
            await asyncio.Event().wait()

        def on_disconnect(self, ws: Connection, code: int) -> None:
            told.append(f"{ws.path} {code}")

    async with asyncio.timeout(5), serving(tmp_path, Application()) as server:
        with server.open() as client:
            client.socket.sendall(raw.request())
            await server.until(lambda c: c.active)
            client.say("hello")
            # The task is made now, and the loop has not run it.
            while not server.style.busy:
                server.pump.turn()
            await ticks(ticks_before)
            server.loop.cancel()
            await server.idle()
    assert told == ["/ 1006"]


@on_asyncio
async def test_the_loop_is_closed(tmp_path: Path) -> None:
    """A loop that was closed calls nothing any more, also when more work was due at once."""
    got: list[str] = []

    class Application:
        def on_receive(self, ws: Connection, data: str) -> None:
            ws.send_nowait(data)
            got.append(data)
            if len(got) == 1:
                asyncio.get_running_loop().call_soon(server.loop.close)

    async with serving(tmp_path, Application()) as server:
        with server.open() as client:
            many = raw.frame(raw.TEXT, b"hello") * 1000
            client.socket.sendall(raw.request() + many)
            await until_on_asyncio(lambda: got)
            # By then whatever was due when it was closed would have come.
            await ticks(100)
            assert len(got) < 500
        for connection in list(server.pump.connections.values()):
            server.pump.closing.lose(connection)
        server.pump.turn()


# Time.


@on_asyncio
async def test_the_timer(tmp_path: Path) -> None:
    """Deadlines are met: of a handshake that does not come, and of a client that does not answer
    the heartbeat; who answers lives on.
    """
    beat = Heartbeat(ping_interval=0.1, ping_timeout=0.2)
    async with serving(tmp_path, Plain(), heartbeat=beat, handshake_timeout=1.0) as server:
        async with server.connect(ping_interval=None) as alive:
            with server.open() as late, server.open() as silent:
                silent.socket.sendall(raw.request())
                counts = await server.until(lambda c: c.closed and c.handshake_failures)
                assert counts.handshake_failures_by_reason["timeout"] == 1
                assert counts.closed_by_reason["timeout"] == counts.ping_timeouts == 1
                assert late.rest() == b""
                assert silent.head().startswith(b"HTTP/1.1 101 ")
                assert silent.frame()[0] == 9
                assert silent.frame() == (raw.CLOSE, b"\x03\xf3keepalive ping timeout")
            pings = server.counts.pings_sent
            await server.until(lambda c: c.pings_sent >= pings + 2)
            await alive.send("alive")
            assert await alive.recv() == "alive"
        assert server.counts.closed_by_reason["timeout"] == 1
        with contextlib.suppress(ClientClosed):
            await alive.close()
