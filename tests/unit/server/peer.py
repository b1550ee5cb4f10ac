"""A client on a bare socket in the test's own loop, for what no library would do, and somebody who
stands by and must not notice.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import trio
import trio.testing

from tests.harness import raw
from tests.harness.served import Served
from tests.harness.waiting import until
from wssup.config.settings import Heartbeat
from wssup.server.connection import Connection

BINARY, PING, PONG = 2, 9, 10
#: No pings: for tests of something else that take their time.
OFF = Heartbeat(ping_interval=0)
#: Seconds that a bystander may wait for an echo: it usually takes a thousandth of it.
DELAY = 5.0


def close_frame(code: int = 1000) -> bytes:
    """A close frame from a client."""
    return raw.frame(raw.CLOSE, struct.pack("!H", code))


def fragment(opcode: int, payload: bytes = b"", *, last: bool = False) -> bytes:
    """One frame of a message that comes in several (RFC 6455 section 5.4)."""
    data = raw.frame(opcode, payload)
    return data if last else bytes([data[0] & 0x7F]) + data[1:]


class Peer:
    """One connection.

    :ivar socket: on which bytes can be sent without waiting, too: it does not block.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._buffer = bytearray()

    @classmethod
    async def connect(cls, server: Served, *, buffer: int = 0, source: str = "") -> Self:
        """Connect, and say nothing yet.

        :param buffer: the size of the receive buffer, which otherwise grows to megabytes.
        :param source: the address to connect from.
        """
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        if source:
            sock.bind((source, 0))
        peer = cls(sock)
        await peer._stream.socket.connect(server.address)
        return peer

    @classmethod
    async def open(cls, server: Served, path: str = "/", *, buffer: int = 0) -> Self:
        """Connect and do the opening handshake."""
        peer = await cls.connect(server, buffer=buffer)
        await peer.send(raw.request(path))
        head = await peer.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drop()

    def drop(self) -> None:
        """Leave without a word."""
        self.socket.close()
        self._stream.socket.close()

    def reset(self) -> None:
        """Leave with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.drop()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await self._stream.send_all(data)

    async def say(self, *texts: str) -> None:
        """Send text messages, all in one piece."""
        await self.send(b"".join(raw.frame(raw.TEXT, text.encode()) for text in texts))

    async def ask(self, text: str) -> str:
        """Say something and hear the answer."""
        await self.say(text)
        opcode, payload = await self.frame()
        assert opcode == raw.TEXT, (opcode, payload)
        return payload.decode()

    def push(self, data: bytes) -> int:
        """Send without waiting; how many bytes were taken."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    async def head(self) -> bytes:
        """The head of the answer; what there is of it if the connection ends."""
        while b"\r\n\r\n" not in self._buffer and await self._more():
            pass
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        return head

    async def frame(self) -> tuple[int, bytes]:
        """The next frame; opcode -1 at the end of the connection, -2 if it was reset."""
        while (found := self._parse()) is None:
            try:
                if not await self._more():
                    assert not self._buffer, "the connection ended within a frame"
                    return -1, b""
            except trio.BrokenResourceError:
                return -2, b""
        return found

    async def frames(self) -> list[tuple[int, bytes]]:
        """All frames until the connection ends, and how it did."""
        found = [await self.frame()]
        while found[-1][0] >= 0:
            found.append(await self.frame())
        return found

    async def code(self) -> int:
        """Wait for the server's close frame, whatever comes before it."""
        while True:
            opcode, payload = await self.frame()
            assert opcode >= 0, "the connection ended without a close frame"
            if opcode == raw.CLOSE:
                return int.from_bytes(payload[:2], "big")

    async def close(self) -> None:
        """Close as one should."""
        await self.send(close_frame())
        assert await self.code() == 1000
        assert (await self.frame())[0] == -1
        self.drop()

    async def _more(self) -> bool:
        data = await self._stream.receive_some(1 << 16)
        self._buffer += data
        return bool(data)

    def _parse(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1], 2
        assert length < 0x80, "a masked frame from the server"
        if length > 125:
            start += 2 if length == 126 else 8
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return None
        found = buffer[0] & 0x0F, bytes(buffer[start : start + length])
        del buffer[: start + length]
        return found


@asynccontextmanager
async def opened(server: Served, count: int, path: str = "/") -> AsyncIterator[list[Peer]]:
    """So many open connections, which end without a word."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await Peer.connect(server)) for _ in range(count)]
        # All requests first: the server works on them at the same time.
        for peer in peers:
            await peer.send(raw.request(path))
        for peer in peers:
            assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
        yield peers


async def flood(
    peer: Peer, data: bytes, most: int, look: Callable[[], object] = lambda: None
) -> int:
    """Send ``data`` again and again until the server takes no more for a while, or so many bytes;
    returns how many were sent, of the last one perhaps a part.

    :param look: called after each piece.
    """
    sent = idle = 0
    while sent < most and idle < 50:
        taken = peer.push(data[sent % len(data) :])
        sent += taken
        idle = 0 if taken else idle + 1
        # The kernel may need a moment; the server has as many turns as this loop.
        await (trio.lowlevel.checkpoint() if taken else trio.sleep(0.002))
        look()
    return sent


async def fill(peer: Peer, data: bytes) -> int:
    """The same, for a server that must stop to read at some time."""
    most = 64 << 20
    sent = await flood(peer, data, most)
    assert sent < most, "nothing stops the server from reading"
    return sent


async def everything_read() -> None:
    """Wait until the server has looked at all that was sent: in one loop, that is when nobody has
    anything to do.
    """
    await trio.testing.wait_all_tasks_blocked()


def sent_at(ping: bytes) -> float:
    """When the server sent a ping, by ``time.monotonic()``: its payload says so."""
    return float(struct.unpack("!d", ping)[0])


@asynccontextmanager
async def bystander(server: Served, *, echoes: bool = True) -> AsyncIterator[Peer]:
    """Somebody who talks with the server meanwhile, and must be answered soon.

    :param echoes: whether the application does; else pings are what is answered.
    """
    rounds = 0
    asks, hears = (raw.TEXT, raw.TEXT) if echoes else (PING, PONG)

    async def talk() -> None:
        nonlocal rounds
        while True:
            words = b"still there %d?" % rounds
            with trio.fail_after(DELAY):
                await peer.send(raw.frame(asks, words))
                while (frame := await peer.frame())[0] == PING:
                    pass  # on a busy machine it was silent for too long; it speaks soon
                assert frame == (hears, words)
            rounds += 1
            await trio.sleep(0.002)

    async with await Peer.open(server, "/bystander") as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            yield peer
            before = rounds
            await until(lambda: rounds > before + 1)
            nursery.cancel_scope.cancel()
        # An answer may be on its way.
        await peer.send(close_frame())
        await peer.frames()


def queued(server: Served) -> int:
    """Bytes that wait to be sent to clients, as the scoreboard has it."""
    server.engine.flush()
    view = server.board.read(server.row)
    assert view is not None
    return view.send_queue_bytes


def small_buffer(ws: Connection) -> None:
    """Give the server's end of a connection a small send buffer; its own grows to megabytes, and
    the kernel tells of room in it only when a third is free.
    """
    with socket.socket(fileno=os.dup(ws.fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


@contextmanager
def grown() -> Iterator[Callable[[], int]]:
    """How many bytes this process holds more than before, its clients included."""
    gc.collect()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
