"""Clients: live connections that watch for their end, and a prober that connects without pause."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

#: Seconds for one exchange of a prober: ten times what a busy machine needs.
PATIENCE = 60.0
#: The close code of a drain (RFC 6455 section 7.4.1 and its registry).
SERVICE_RESTART = 1012
GOING_AWAY = 1001

P = ParamSpec("P")
T = TypeVar("T")


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call something that blocks in a thread, so that the clients live on meanwhile."""
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


class HandshakeLostError(Exception):
    """The connection ended before its handshake was answered."""


class _Watched(trio.abc.Stream):
    """A stream that tells when it is at its end: a client of trio-websocket waits for the answer
    to its handshake for ever where the connection has gone.
    """

    def __init__(self, stream: trio.abc.Stream, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self._ended()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._ended()
            raise
        if not data:
            self._ended()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[WebSocketConnection]:
    """A connection to ``ws://host:port/`` or ``unix:/path``; its socket is closed at the end.

    :raises HandshakeLostError: it was closed before its handshake was answered.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        stream = await trio.open_unix_socket(parts.path)
    else:
        assert parts.hostname is not None
        assert parts.port is not None
        stream = await trio.open_tcp_stream(parts.hostname, parts.port)
    opening = trio.CancelScope()
    watched = _Watched(stream, opening.cancel)
    async with stream, trio.open_nursery() as nursery:
        connection = None
        with opening:
            connection = await wrap_client_stream(
                nursery,
                watched,  # type: ignore[arg-type] # it uses no more than any stream has
                parts.netloc or "localhost",
                "/",
            )
        if connection is None:
            raise HandshakeLostError(url)
        yield connection
        nursery.cancel_scope.cancel()


async def ask(url: str, message: str = "hello") -> str:
    """Connect, say one thing, get the answer, close."""
    with trio.fail_after(PATIENCE):
        async with connected(url) as ws:
            await ws.send_message(message)
            answer = await ws.get_message()
            await ws.aclose()
    assert isinstance(answer, str)
    return answer


@dataclass
class Crowd:
    """Live connections.

    :ivar live: those that are open.
    :ivar closed: how often each client was closed, by its number.
    :ivar codes: close codes and how often.
    :ivar closed_at: when each close was seen (``trio.current_time()``).
    """

    url: str
    reconnect: bool = False
    live: dict[int, WebSocketConnection] = field(default_factory=dict)
    closed: Counter[int] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    closed_at: list[float] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    async def wait(self, fact: object, what: str, seconds: float = 60) -> None:
        """Wait until ``fact()`` holds."""
        assert callable(fact)
        with trio.move_on_after(seconds) as patience:
            while not fact():
                await self.changed.wait()
        assert not patience.cancelled_caught, f"waited {seconds:g} s for {what}; {self.codes}"

    async def stay(self, number: int) -> None:
        """Be one client: connect, stay, note the end; connect again if asked to."""
        while True:
            async with connected(self.url) as ws:
                self.live[number] = ws
                self._change()
                try:
                    while True:
                        await ws.get_message()
                except ConnectionClosed as closed:
                    del self.live[number]
                    self.closed[number] += 1
                    self.closed_at.append(trio.current_time())
                    self.codes[closed.reason.code if closed.reason else 0] += 1
                    self._change()
            if not self.reconnect:
                return

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


@asynccontextmanager
async def crowd(url: str, count: int, *, reconnect: bool = False) -> AsyncIterator[Crowd]:
    """``count`` live connections, all open before the body runs."""
    people = Crowd(url, reconnect)
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(people.stay, number)
            if number % 50 == 49:
                await people.wait(lambda least=number - 50: len(people.live) > least, "connections")
        await people.wait(lambda: len(people.live) == count, f"{count} connections")
        yield people
        nursery.cancel_scope.cancel()


@dataclass
class Prober:
    """Connects again and again.

    :ivar failures: what went wrong.
    :ivar restarted: how often it was told 1012 ("service restart") instead of an answer, which a
        drain may do that begins in the middle of a probe.
    :ivar stops: the service is stopped meanwhile, which tells 1001 ("going away") likewise.
    """

    url: str
    message: str = "who"
    stops: bool = False
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    restarted: int = 0
    _round: trio.Event = field(default_factory=trio.Event)

    async def rounds(self, count: int, seconds: float = 60) -> None:
        """Wait for so many more rounds."""
        with trio.fail_after(seconds):
            for _ in range(count):
                await self._round.wait()

    async def probe(self) -> None:
        """Probe for ever."""
        while True:
            try:
                self.answers.append(await ask(self.url, self.message))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed probe
                code = _close_code(error)
                if code == SERVICE_RESTART or (self.stops and code == GOING_AWAY):
                    self.restarted += 1
                else:
                    self.failures.append(repr(error))
                await trio.lowlevel.checkpoint()
            self._round.set()
            self._round = trio.Event()


def _close_code(error: BaseException) -> int | None:
    """The code of the close that ended an exchange, if that is what did."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    reason = error.reason if isinstance(error, ConnectionClosed) else None
    return reason.code if reason is not None else None


@asynccontextmanager
async def prober(
    url: str, count: int = 2, message: str = "who", *, stops: bool = False
) -> AsyncIterator[Prober]:
    """Probers beside the body."""
    probing = Prober(url, message, stops)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(probing.probe)
        await probing.rounds(1)
        yield probing
        nursery.cancel_scope.cancel()
