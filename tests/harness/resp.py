"""A server that speaks enough of Redis' protocol (RESP3) for a bridge, on trio, inside a test.

`make test` has Python and nothing else. What only a real server can show is in tests/e2e.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.harness.ports import free_port

OK = b"+OK\r\n"


def bulk(value: bytes | int) -> bytes:
    """A string as RESP."""
    data = value if isinstance(value, bytes) else b"%d" % value
    return b"$%d\r\n%s\r\n" % (len(data), data)


def array(kind: bytes, *items: bytes) -> bytes:
    """An array (``*``), a push (``>``) or a map (``%``) of what is RESP already."""
    count = len(items) // 2 if kind == b"%" else len(items)
    return kind + b"%d\r\n" % count + b"".join(items)


def error(text: str) -> bytes:
    """An error as RESP."""
    return b"-%s\r\n" % text.encode()


class RespServer:
    """The server.

    :ivar refuse: asked for each command; what it returns is the answer instead of the true one.
    :ivar mute: nothing is answered.
    :ivar pubsub_bytes: what may wait for a client that is subscribed; one for which there is more
        is closed, as client-output-buffer-limit has it.
    :ivar heard: all commands so far, with their arguments.
    """

    def __init__(self, password: str = "") -> None:
        self.password = password
        self.refuse: Callable[[list[bytes]], bytes | None] = lambda _: None
        self.mute = False
        self.pubsub_bytes = 32 << 20
        self.heard: list[list[bytes]] = []
        self.streams: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self.slots: list[tuple[int, int, int]] = []
        # One that the kernel gives to nobody meanwhile: who looks for us would find another server.
        self.port = free_port()
        self._clients: dict[trio.SocketStream, tuple[set[bytes], set[bytes]]] = {}
        self._sending: dict[trio.SocketStream, trio.Lock] = {}
        self._listeners: list[trio.SocketListener] = []
        self._scope = trio.CancelScope()
        self._ids = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RespServer]:
        """Listen, on the same port each time, until the end of the block."""
        self._listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(trio.serve_listeners, self._serve, self._listeners)
            yield self
            nursery.cancel_scope.cancel()

    def named(self, name: bytes) -> list[list[bytes]]:
        """The commands of that name so far."""
        return [command for command in self.heard if command[0].upper() == name]

    async def drop(self) -> None:
        """Close all connections."""
        for stream in list(self._clients):
            await stream.aclose()

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._clients[stream] = (set(), set())
        self._sending[stream] = trio.Lock()
        buffer = bytearray()
        try:
            while data := await stream.receive_some():
                buffer += data
                answers = b""
                while (command := _cut(buffer)) is not None:
                    self.heard.append(command)
                    answers += await self._answer(stream, command)
                if len(answers) > self.pubsub_bytes and any(self._clients[stream]):
                    break
                await self._send(stream, answers)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            del self._clients[stream], self._sending[stream]

    async def _answer(  # noqa: C901, PLR0912 - a table of commands
        self, stream: trio.SocketStream, command: list[bytes]
    ) -> bytes:
        refused = self.refuse(command)
        if refused is not None:
            return refused
        name, *arguments = command
        channels, patterns = self._clients[stream]
        match name.upper(), arguments:
            case b"HELLO", [_, *auth]:
                if self.password and auth[2:] != [self.password.encode()]:
                    return error("WRONGPASS invalid username-password pair or user is disabled.")
                facts: list[Any] = [
                    b"server",
                    b"redis",
                    b"version",
                    b"7.0.0",
                    b"proto",
                    3,
                    b"id",
                    1,
                ]
                return array(b"%", *[b":3\r\n" if x == 3 else bulk(x) for x in facts])
            case b"PING", _:
                return b"+PONG\r\n"
            case ((b"SUBSCRIBE" | b"SSUBSCRIBE"), _):
                channels.update(arguments)
                return confirm(name, arguments)
            case ((b"UNSUBSCRIBE" | b"SUNSUBSCRIBE"), _):
                channels.difference_update(arguments)
                return confirm(name, arguments)
            case b"PSUBSCRIBE", _:
                patterns.update(arguments)
                return confirm(name, arguments)
            case ((b"PUBLISH" | b"SPUBLISH"), [channel, data]):
                kind = b"smessage" if name.upper() == b"SPUBLISH" else b"message"
                return b":%d\r\n" % await self.publish(channel, data, kind)
            case b"XADD", [key, *_, data]:
                self._ids += 1
                self.streams.setdefault(key, []).append((b"%d-0" % self._ids, data))
                return bulk(b"%d-0" % self._ids)
            case b"XREVRANGE", [key, newest, _, _, count]:
                return self._range(key, newest, int(count))
            case b"HSET", [key, *pairs]:
                self.hashes.setdefault(key, {}).update(zip(pairs[::2], pairs[1::2], strict=True))
                return b":1\r\n"
            case b"HGETALL", [key]:
                found = self.hashes.get(key, {})
                return array(b"%", *[bulk(x) for pair in found.items() for x in pair])
            case b"CLUSTER", [b"SLOTS"]:
                return array(b"*", *[_slots(*span) for span in self.slots])
        return OK

    def _range(self, key: bytes, newest: bytes, count: int) -> bytes:
        entries = self.streams.get(key, [])[::-1]
        if newest != b"+":
            entries = [e for e in entries if _place(e[0]) <= _place(newest)]
        return array(
            b"*",
            *[
                array(b"*", bulk(name), array(b"*", bulk(b"m"), bulk(data)))
                for name, data in entries[:count]
            ],
        )

    async def publish(self, channel: bytes, data: bytes, kind: bytes = b"message") -> int:
        """Push a message to those who are subscribed; returns how many are."""
        count = 0
        for stream, (channels, patterns) in list(self._clients.items()):
            pushed = b""
            if channel in channels:
                pushed += array(b">", bulk(kind), bulk(channel), bulk(data))
            for pattern in patterns:
                if channel.startswith(pattern.removesuffix(b"*")):
                    pushed += array(b">", *map(bulk, (b"pmessage", pattern, channel, data)))
            if pushed:
                count += 1
                await self._send(stream, pushed)
        return count

    async def _send(self, stream: trio.SocketStream, data: bytes) -> None:
        if data and not self.mute and stream in self._sending:
            async with self._sending[stream]:
                await stream.send_all(data)


def confirm(name: bytes, channels: list[bytes]) -> bytes:
    """What a server says of channels that are subscribed to, or no longer."""
    return b"".join(
        array(b">", bulk(name.lower()), bulk(channel), b":1\r\n") for channel in channels
    )


def _slots(begin: int, end: int, port: int) -> bytes:
    place = array(b"*", bulk(b"127.0.0.1"), b":%d\r\n" % port, bulk(b"id %d" % port))
    return array(b"*", b":%d\r\n" % begin, b":%d\r\n" % end, place)


def _cut(buffer: bytearray) -> list[bytes] | None:
    """The first command of a buffer, taken out of it; None if it is not whole."""
    lines = bytes(buffer)
    at = lines.find(b"\r\n")
    if at < 0:
        return None
    found = []
    count, at = int(lines[1:at]), at + 2
    for _ in range(count):
        end = lines.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(lines[at + 1 : end])
        if len(lines) < end + 2 + size + 2:
            return None
        found.append(lines[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    del buffer[:at]
    return found


def _place(name: bytes) -> tuple[int, int]:
    """An entry's name, to be compared; one that begins with ``(`` is no name before Redis 6.2."""
    at, _, number = name.partition(b"-")
    return int(at), int(number)
