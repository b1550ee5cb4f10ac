"""Both ends of a connection in a test's hands: the server's, the client's, and bare frames."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio
from trio_websocket import WebSocketRequest

from tests.harness import raw
from tests.harness.served import Served, served
from wssup.server.connection import Connection

#: RFC 6455 section 5.5.
PING, PONG = 9, 10


class Both(NamedTuple):
    """The server's end of a connection, the client's, and the server."""

    here: Connection
    there: Any
    server: Served


Dial = Callable[[Served], Awaitable[Any]]


async def with_a_bare_socket(server: Served) -> trio.SocketStream:
    """A client that answers nothing by itself."""
    stream, answer = await server.send(raw.request())
    assert answer.startswith(b"HTTP/1.1 101 ")
    return stream


@asynccontextmanager
async def both(
    tmp_path: Path, dial: Dial = Served.connect, **limits: object
) -> AsyncIterator[Both]:
    """One connection, whose handler does nothing: the test does it instead."""
    accepted, connections = trio.open_memory_channel[Connection](1)

    async def handler(request: WebSocketRequest) -> None:
        await accepted.send(await request.accept())
        await trio.sleep_forever()

    async with served(tmp_path, handler, **limits) as server:
        there = await dial(server)
        try:
            yield Both(await connections.receive(), there, server)
        finally:
            stream = getattr(there, "_stream", there)
            await trio.aclose_forcefully(stream)


async def frame(stream: trio.SocketStream) -> tuple[int, bytes]:
    """The next frame from the server, which is a short one."""
    head = await exactly(stream, 2)
    return head[0] & 0x0F, await exactly(stream, head[1])


async def exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        assert more, "the server ended the connection"
        data += more
    return data


def reset(stream: trio.SocketStream) -> None:
    """Have the next close be a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
