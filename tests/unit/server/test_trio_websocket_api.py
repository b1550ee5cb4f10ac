"""What trio-websocket's documentation, examples and own tests promise of a server, held against
this one with trio-websocket's client: handshake, messages, closing.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    ConnectionRejected,
    Endpoint,
    WebSocketConnection,
    WebSocketRequest,
    connect_websocket_url,
    open_websocket_url,
    wrap_client_stream,
)

from tests.harness import raw
from tests.harness.ends import both, frame, reset, with_a_bare_socket
from tests.harness.served import Served, code_of, everything, served
from wssup.server.connection import Connection

# The handshake.


async def test_the_example_of_the_readme(tmp_path: Path) -> None:
    """The first server and client that trio-websocket shows work, whoever of them closes."""
    ended = trio.Event()

    async def echo_server(request: WebSocketRequest) -> None:
        ws = await request.accept()
        while True:
            try:
                message = await ws.get_message()
                await ws.send_message(message)
            except ConnectionClosed:
                break
        ended.set()

    async with served(tmp_path, echo_server) as server:
        async with open_websocket_url(server.url) as ws:
            for message in ("hello world!", b"\0\xff", "", b"", "\N{SNOWMAN}"):
                await ws.send_message(message)
                assert await ws.get_message() == message
        await ended.wait()
        await server.ended(client=1)


async def test_a_request(tmp_path: Path) -> None:
    """A request has the path as it was sent with its query, the headers as pairs with names in
    lower case, the proposed subprotocols in order, and both endpoints.
    """
    seen: list[WebSocketRequest] = []

    async def handler(request: WebSocketRequest) -> None:
        seen.append(request)
        assert request.path == "/caf%C3%A9/x?a=b&c"
        assert request.proposed_subprotocols == ("chat", "file")
        pairs = [pair for pair in request.headers if pair[0].startswith(b"x-")]
        assert pairs == [(b"x-one", b"My value"), (b"x-two", b"1"), (b"x-two", b"2")]
        assert isinstance(request.local, Endpoint)
        assert (str(request.local.address), request.local.port) == server.address
        assert request.local.url == server.url[:-1]
        assert isinstance(request.remote, Endpoint)
        assert str(request.remote.address) == "127.0.0.1"
        assert not request.remote.is_ssl
        ports.append(request.remote.port)
        await request.accept()

    ports: list[int] = []
    async with served(tmp_path, handler) as server:
        ws = await connect_websocket_url(
            server.nursery,
            server.url + "caf%C3%A9/x?a=b&c",
            subprotocols=["chat", "file"],
            extra_headers=[(b"X-One", b"My value"), (b"X-Two", b"1"), (b"x-two", b"2")],
        )
        assert isinstance(ws.local, Endpoint)
        assert ports == [ws.local.port]
        assert (await code_of(ws))[0] == 1000
        counts = await server.ended(server=1)
        assert (len(seen), counts.handler_errors) == (1, 0)


async def test_accepting_with_subprotocol_and_headers(tmp_path: Path) -> None:
    """The client gets the subprotocol that was chosen and the headers that were added."""

    async def handler(request: WebSocketRequest) -> None:
        headers = [(b"X-Test", b"My value"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d")]
        ws = await request.accept(subprotocol="file", extra_headers=headers)
        assert ws.subprotocol == "file"
        await ws.send_message(str(ws.subprotocol))
        await ws.get_message()

    async with served(tmp_path, handler) as server:
        url = server.url
        async with open_websocket_url(url, subprotocols=["chat", "file"]) as ws:
            assert ws.subprotocol == "file"
            assert [pair for pair in ws.handshake_headers if pair[0] != b"server"] == [
                (b"x-test", b"My value"),
                (b"set-cookie", b"a=b"),
                (b"set-cookie", b"c=d"),
            ]
            assert await ws.get_message() == "file"


async def rejection(server: Served) -> ConnectionRejected:
    """What the client raises; its socket, which the library leaves open, is closed."""
    async with await server.open() as stream:
        with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as caught:
            async with trio.open_nursery() as nursery:
                await wrap_client_stream(nursery, stream, "test", "/")
    (found,) = caught.value.exceptions
    while isinstance(found, BaseExceptionGroup):
        (found,) = found.exceptions
    assert isinstance(found, ConnectionRejected)
    return found


@pytest.mark.parametrize("body", [b"My body", b"x" * 100_000, None])
async def test_rejecting(tmp_path: Path, body: bytes | None) -> None:
    """The client raises ConnectionRejected with the status, the headers and the body given."""

    async def handler(request: WebSocketRequest) -> None:
        await request.reject(401, extra_headers=[(b"WWW-Authenticate", b"Basic")], body=body)

    async with served(tmp_path, handler) as server:
        told = await rejection(server)
        assert told.status_code == 401
        assert (b"www-authenticate", b"Basic") in (told.headers or ())
        assert (told.body or None) == body
        assert (await server.ended(rejected=1)).upgraded == 0


async def test_an_exception_before_accepting(tmp_path: Path) -> None:
    """A handler that raises before it answers does not leave the client waiting."""

    async def handler(request: WebSocketRequest) -> None:
        raise ValueError

    async with served(tmp_path, handler) as server:
        assert (await rejection(server)).status_code == 500
        await server.ended(error=1)


# A connection.


async def test_a_connection(tmp_path: Path) -> None:
    """A server's connection is trio-websocket's to isinstance(), and says the same of itself."""

    async def dial(server: Served) -> WebSocketConnection:
        return await connect_websocket_url(
            server.nursery, server.url + "a?b", extra_headers=[(b"X-Test", b"My value")]
        )

    async with both(tmp_path, dial) as (here, there, server):
        assert isinstance(here, WebSocketConnection)
        assert isinstance(here, trio.abc.AsyncResource)
        assert (here.is_server, here.is_client) == (True, False)
        assert here.path == there.path == "/a?b"
        assert here.subprotocol is None
        assert isinstance(here.handshake_headers, tuple)
        assert dict(here.handshake_headers)[b"x-test"] == b"My value"
        assert here.closed is None
        assert re.fullmatch(r"server-\d+", str(here))
        for mine, its in ((here.local, there.remote), (here.remote, there.local)):
            assert isinstance(mine, Endpoint)
            assert mine.url == its.url
        assert here.local.port == server.address[1]


async def test_client_closes(tmp_path: Path) -> None:
    """The client's code and reason are in `closed` and in the exception, as a CloseReason with its
    name.
    """
    async with both(tmp_path) as (here, there, server):
        await there.aclose(1001, "test reason")
        with pytest.raises(ConnectionClosed) as caught:
            await here.get_message()
        assert type(caught.value) is trio_websocket.ConnectionClosed
        assert caught.value.reason is here.closed
        assert type(here.closed) is CloseReason
        assert (here.closed.code, here.closed.reason) == (1001, "test reason")
        assert here.closed.name == "GOING_AWAY"
        assert (await server.until(lambda c: c.closed)).closed_by_reason["client"] == 1


async def test_server_closes(tmp_path: Path) -> None:
    """aclose() sends the code and reason, and returns when the client has answered."""
    async with both(tmp_path) as (here, there, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(code_of, there)
            await here.aclose(3000, "test reason")
        assert there.closed.code == 3000
        assert there.closed.reason == "test reason"
        assert here.closed is not None
        await server.until(lambda c: not c.open)


@pytest.mark.parametrize("error", [None, KeyError()])
async def test_default_close(tmp_path: Path, error: Exception | None) -> None:
    """Leaving `async with ws` closes with 1000 and no reason, also when the body raises."""

    async def leave(ws: Connection) -> None:
        async with ws as same:
            assert same is ws
            if error is not None:
                raise error

    async with both(tmp_path) as (here, there, server):
        server.nursery.start_soon(code_of, there)
        with pytest.raises(KeyError) if error else contextlib.nullcontext():
            await leave(here)
        assert repr(here.closed) == "CloseReason<code=1000, name=NORMAL_CLOSURE, reason=None>"
        assert (there.closed.code, there.closed.reason) == (1000, None)
        await server.until(lambda c: not c.open)


async def test_aclose_again(tmp_path: Path) -> None:
    """aclose() can be called by several tasks and again later; the first one's code holds."""
    async with both(tmp_path) as (here, there, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(code_of, there)
            nursery.start_soon(here.aclose, 4001)
            await trio.testing.wait_all_tasks_blocked(0.0)
            nursery.start_soon(here.aclose, 4002)
            nursery.start_soon(here.aclose, 4003)
        await here.aclose(4004)
        assert there.closed.code == 4001


async def test_messages_before_the_client_closed(tmp_path: Path) -> None:
    """What the client sent before it closed can still be read, then ConnectionClosed is raised."""
    async with both(tmp_path) as (here, there, server):
        for number in range(5):
            await there.send_message(str(number))
        await there.aclose()
        await server.until(lambda c: not c.open)
        assert here.closed is not None
        assert [await here.get_message() for _ in range(5)] == list("01234")
        for _ in range(2):
            with pytest.raises(ConnectionClosed):
                await here.get_message()


async def test_messages_before_the_server_closed(tmp_path: Path) -> None:
    """What was not read when the server closes is discarded."""
    async with both(tmp_path) as (here, there, server):
        await there.send_message("1")
        await there.send_message("2")
        await server.until(lambda c: c.messages_in == 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(code_of, there)
            await here.aclose()
        with pytest.raises(ConnectionClosed):
            await here.get_message()


@pytest.mark.parametrize("by", ["client", "server"])
async def test_everything_raises_once_closed(tmp_path: Path, by: str) -> None:
    """After either side closed, sending, receiving, ping and pong raise ConnectionClosed."""
    async with both(tmp_path) as (here, there, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(code_of, there)
            await (there if by == "client" else here).aclose(1001)
        await server.until(lambda c: not c.open)
        for call in (lambda: here.send_message("x"), here.get_message, here.ping, here.pong):
            with pytest.raises(ConnectionClosed) as caught:
                await call()
            assert caught.value.reason is here.closed


async def test_sending_while_the_close_is_under_way(tmp_path: Path) -> None:
    """From aclose() on nothing can be sent, and who waits for a message is told."""
    told = trio.Event()

    async def wait(ws: Connection) -> None:
        with pytest.raises(ConnectionClosed):
            await ws.get_message()
        told.set()

    async with both(tmp_path, with_a_bare_socket) as (here, there, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, here)
            await trio.testing.wait_all_tasks_blocked(0.0)
            nursery.start_soon(here.aclose)
            await told.wait()
            with pytest.raises(ConnectionClosed):
                await here.send_message("x")
            assert await frame(there) == (raw.CLOSE, b"\x03\xe8")
            await there.send_all(raw.frame(raw.CLOSE, b"\x03\xe8"))
        assert await everything(there) == b""


async def test_a_client_that_does_not_answer_a_close(tmp_path: Path) -> None:
    """aclose() returns after the timeout of the closing handshake although the client is silent."""
    async with both(tmp_path, with_a_bare_socket, close_timeout=0.1) as (here, there, server):
        await here.aclose()
        await server.until(lambda c: not c.open)
        await there.aclose()


async def test_the_server_ends_the_connection_first(tmp_path: Path) -> None:
    """A client's close ends the TCP connection at once, whatever the handler is doing."""
    async with both(tmp_path, with_a_bare_socket) as (here, there, _):
        await there.send_all(raw.frame(raw.CLOSE, b"\x03\xe9bye"))
        assert await everything(there) == b"\x88\x05\x03\xe9bye"
        assert here.closed is not None
        assert (here.closed.code, here.closed.reason) == (1001, "bye")


@pytest.mark.parametrize("rude", [False, True])
async def test_a_client_that_vanishes(tmp_path: Path, *, rude: bool) -> None:
    """When the TCP connection ends without a close frame, who receives is told 1006, and who sends
    on and on is told some time.
    """
    async with both(tmp_path, with_a_bare_socket) as (here, there, server):

        async def send() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await here.send_message("hello from the server")

        if rude:
            reset(there)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await there.aclose()
            with pytest.raises(ConnectionClosed):
                await here.get_message()
        assert here.closed is not None
        assert here.closed.code == 1006
        await server.until(lambda c: c.closed_by_reason["lost"] == 1)


@pytest.mark.parametrize("message", [None, 1, object(), ["a"]])
async def test_a_message_of_another_type(tmp_path: Path, message: Any) -> None:
    """What is neither str nor bytes raises ValueError, and the connection lives on."""
    async with both(tmp_path) as (here, there, _):
        with pytest.raises(ValueError, match="str or bytes"):
            await here.send_message(message)
        await here.send_message("fine")
        assert await there.get_message() == "fine"
