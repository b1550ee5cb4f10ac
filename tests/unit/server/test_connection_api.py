"""What a connection has beyond trio-websocket's, and the edges of that."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, Endpoint, wrap_client_stream

from tests.harness import raw
from tests.harness.ends import both, exactly, frame, with_a_bare_socket
from tests.harness.served import code_of, everything, served
from tests.harness.waiting import until
from tests.unit.server.peer import everything_read
from wssup.server.connection import Connection
from wssup.server.request import Request

# Receiving.


async def test_iterating(tmp_path: Path) -> None:
    """`async for` gives the messages in order, and ends when the client closes."""
    async with both(tmp_path) as (here, there, _):
        for message in ("a", b"b", ""):
            await there.send_message(message)
        await there.aclose()
        assert [message async for message in here] == ["a", b"b", ""]
        assert [message async for message in here] == []


async def test_iterating_in_parts(tmp_path: Path) -> None:
    """A loop that is left early can be followed by another one, which goes on where it was, and
    leaves nothing behind that Python or trio would complain of.
    """
    async with both(tmp_path) as (here, there, _):
        for number in range(4):
            await there.send_message(str(number))
        got = []
        for _ in range(2):
            async for message in here:
                got.append(message)
                if len(got) % 2 == 0:
                    break
            gc.collect()
        assert got == list("0123")


# What a connection keeps.


async def test_state(tmp_path: Path) -> None:
    """`state` is a dict of each connection's own, which stays after its end; so are `id`, `path`
    and `remote`. `local` is known as long as it is open.
    """
    async with both(tmp_path) as (here, there, server):
        assert here.state == {}
        here.state["name"] = "me"
        before = (here.id, here.path, here.handshake_headers, str(here))
        assert isinstance(there.local, Endpoint)
        url = there.local.url
        await there.aclose()
        await server.until(lambda c: not c.open)
        assert here.state == {"name": "me"}
        assert (here.id, here.path, here.handshake_headers, str(here)) == before
        assert isinstance(here.remote, Endpoint)
        assert here.remote.url == url
        with pytest.raises(ConnectionClosed):
            _ = here.local


async def test_ids(tmp_path: Path) -> None:
    """No two connections have the same id, also when they do not live at the same time."""
    seen: list[int] = []

    class Application:
        def on_connect(self, ws: Connection) -> None:
            assert ws.state == {}
            ws.state["id"] = ws.id
            seen.append(ws.id)

        def on_disconnect(self, ws: Connection, code: int) -> None:
            assert code == 1006
            assert ws.state["id"] == ws.id
            seen.append(ws.id)

    async with served(tmp_path, Application()) as server:
        for count in (20, 40):
            streams = [await with_a_bare_socket(server) for _ in range(20)]
            for stream in streams:
                await stream.aclose()
            await server.until(lambda c, count=count: c.closed == count)
        await server.ended(lost=40)
        assert len(seen) == 80
        assert len(set(seen)) == 40


async def test_weak_references(tmp_path: Path) -> None:
    """Connections can stand in sets and weak sets, and are freed with the last reference to them
    once they have ended, without the garbage collector.
    """
    there: weakref.WeakSet[Connection] = weakref.WeakSet()

    class Application:
        def on_connect(self, ws: Connection) -> None:
            there.add(ws)
            ws.send_nowait(f"{ws.id}")

        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            assert ws in there
            for other in there:
                other.send_nowait(data)

    async with served(tmp_path, Application()) as server:
        clients = [await server.connect() for _ in range(3)]
        assert len({await ws.get_message() for ws in clients}) == 3
        await clients[0].send_message("all")
        assert [await ws.get_message() for ws in clients] == ["all"] * 3
        assert len(there) == 3
        gc.disable()
        try:
            for ws in clients:
                await ws.aclose()
            await server.ended(client=3)
            assert len(there) == 0
        finally:
            gc.enable()


# Sending and closing without waiting.


class Text(str):
    """A kind of str, as enumerations and templates have them."""

    __slots__ = ()


class Data(bytes):
    """A kind of bytes."""

    __slots__ = ()


async def test_what_can_be_sent(tmp_path: Path) -> None:
    """A str and what is derived from it goes as text, everything like bytes as binary; anything
    else raises ValueError and sends nothing.
    """
    async with both(tmp_path) as (here, there, _):
        messages = [
            "t",
            Text("text"),
            b"b",
            Data(b"data"),
            bytearray(b"array"),
            memoryview(b"view"),
        ]
        for message in messages:
            assert here.send_nowait(message) is True  # type: ignore[arg-type]
            await here.send_message(message)  # type: ignore[arg-type]
        for other in (None, 5, ["x"], object()):
            with pytest.raises(ValueError, match="str or bytes"):
                here.send_nowait(other)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="surrogates"):
            here.send_nowait("\ud800")
        for message in messages:
            expected = str(message) if isinstance(message, str) else bytes(message)
            for _ in range(2):
                got = await there.get_message()
                assert (type(got), got) == (type(expected), expected)


async def test_send_nowait_after_the_end(tmp_path: Path) -> None:
    """send_nowait() says false when the connection is being closed, is closed, or breaks just now;
    it does not raise.
    """
    async with both(tmp_path, with_a_bare_socket) as (here, there, server):
        here.close_nowait()
        assert here.send_nowait("x") is False
        await there.aclose()
        await server.until(lambda c: not c.open)
        assert here.send_nowait("x") is False
    async with both(tmp_path, with_a_bare_socket) as (here, there, server):
        break_now(there)
        assert here.is_closed is False
        assert here.send_nowait("x") is False
        assert here.is_closed is True
        await server.until(lambda c: not c.open)


async def test_send_nowait_to_a_client_that_does_not_read(tmp_path: Path) -> None:
    """send_nowait() says false when the outbound queue is full, and true again when the client has
    read; what it said true of arrives whole and in order.
    """
    async with both(tmp_path, with_a_bare_socket, outbound_bytes=10_000) as (here, there, _):
        sent = 0
        while here.send_nowait(b"%9d" % sent + bytes(9_991)):
            sent += 1
        assert here.send_nowait("x") is False
        assert not here.is_closed
        for number in range(sent):
            assert await exactly(there, 4) == b"\x82\x7e" + struct.pack("!H", 10_000)
            assert await exactly(there, 10_000) == b"%9d" % number + bytes(9_991)
        await until(lambda: here.send_nowait("again"))
        assert await frame(there) == (raw.TEXT, b"again")


async def test_close_nowait(tmp_path: Path) -> None:
    """close_nowait() begins the close with code and reason, and is idempotent. A code that nobody
    may send raises ValueError, and the connection lives on.
    """
    async with both(tmp_path) as (here, there, server):
        for code in (0, 999, 1004, 1006, 1015, 2999, 5000):
            with pytest.raises(ValueError, match=str(code)):
                here.close_nowait(code)
            with pytest.raises(ValueError, match=str(code)):
                await here.aclose(code)
        assert here.is_closed is False
        here.close_nowait(4001, "first")
        here.close_nowait(4002, "second")
        assert here.is_closed is True
        assert here.closed is not None
        assert here.closed.code == 4001
        assert await code_of(there) == (4001, "first")
        await server.until(lambda c: not c.open)
        here.close_nowait()
        assert here.closed.code == 4001


async def test_a_long_reason(tmp_path: Path) -> None:
    """A reason longer than a frame holds is cut between two characters."""
    async with both(tmp_path) as (here, there, _):
        here.close_nowait(1000, "\N{SNOWMAN}" * 100)
        assert await code_of(there) == (1000, "\N{SNOWMAN}" * 41)


async def test_a_cancelled_aclose(tmp_path: Path) -> None:
    """aclose() that is cancelled cuts the connection off instead of waiting on."""
    async with both(tmp_path, with_a_bare_socket, close_timeout=1000) as (here, there, server):
        with trio.move_on_after(0.01) as scope:
            await here.aclose(1001)
        assert scope.cancelled_caught
        await server.until(lambda c: not c.open)
        assert here.closed is not None
        assert here.closed.code == 1001
        assert await everything(there) == b"\x88\x02\x03\xe9"


# Calls of a task that meet the end of the connection before the pump does.


def break_now(stream: trio.SocketStream) -> None:
    """Reset a client's connection, without letting the server look."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@pytest.mark.parametrize("method", ["ping", "pong", "send_message", "aclose", "get_message"])
async def test_a_call_on_a_connection_that_has_just_broken(tmp_path: Path, method: str) -> None:
    """Whoever finds out first that the client is gone, each method raises ConnectionClosed or
    returns, once; the task's next wait has nothing to do with it.
    """
    async with both(tmp_path, with_a_bare_socket) as (here, there, server):
        break_now(there)
        call: Callable[..., Awaitable[Any]] = getattr(here, method)
        with (
            contextlib.nullcontext()
            if method in {"aclose", "pong"}
            else pytest.raises(ConnectionClosed)
        ):
            await (call("x") if method == "send_message" else call())
        # The task's next wait.
        await server.until(lambda c: not c.open)
        await everything_read()


# Peers.


async def test_a_unix_socket(tmp_path: Path) -> None:
    """On a unix socket `local` is its path and `remote` says no more than the kind, for connection
    and request.
    """
    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.setblocking(False)
    seen: list[object] = []

    async def handler(request: Request) -> None:
        seen.extend((request.local, request.remote))
        ws = await request.accept()
        seen.extend((ws.local, ws.remote))
        await ws.send_message(await ws.get_message())
        with pytest.raises(ConnectionClosed):
            await ws.get_message()
        seen.append(ws.remote)

    async with served(tmp_path, handler) as server:
        server.accepting.add((1, "unix"), listener.detach())
        stream = await trio.open_unix_socket(path)
        async with await wrap_client_stream(server.nursery, stream, "test", "/") as ws:
            await ws.send_message("hello")
            assert await ws.get_message() == "hello"
        await server.ended(client=1)
    assert seen == [f"unix:{path}", "unix:"] * 2 + ["unix:"]
