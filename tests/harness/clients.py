"""Clients: many live connections that watch for their end, and a prober that connects without pause."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    connect_websocket_url,
    wrap_client_stream,
)

#: Seconds for one exchange of a prober: ten times what a busy machine needs.
PATIENCE = 20.0

P = ParamSpec("P")
T = TypeVar("T")


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call something that blocks in a thread, so that the clients live on meanwhile."""
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


async def connect(nursery: trio.Nursery, url: str) -> WebSocketConnection:
    """Connect to ``ws://…`` or to ``unix:/path``."""
    if not url.startswith("unix:"):
        return await connect_websocket_url(nursery, url)
    stream = await trio.open_unix_socket(url.removeprefix("unix:"))
    return await wrap_client_stream(nursery, stream, "localhost", "/")


async def ask(url: str, message: str = "hello") -> str:
    """Connect, say one thing, get the answer, close."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE):
            ws = await connect(nursery, url)
            async with ws:
                await ws.send_message(message)
                answer = await ws.get_message()
        nursery.cancel_scope.cancel()
    assert isinstance(answer, str)
    return answer


@dataclass
class Crowd:
    """Live connections.

    :ivar live: those that are open.
    :ivar closed: how often each connection's successive WebSockets were closed, by number of the client.
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

    async def stay(self, number: int, nursery: trio.Nursery) -> None:
        """Be one client: connect, stay, note the end; connect again if asked to."""
        while True:
            ws = await connect(nursery, self.url)
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
            nursery.start_soon(people.stay, number, nursery)
            if number % 50 == 49:
                await people.wait(lambda: len(people.live) > number - 50, "connections")
        await people.wait(lambda: len(people.live) == count, f"{count} connections")
        yield people
        nursery.cancel_scope.cancel()


@dataclass
class Prober:
    """Connects again and again; what went wrong is in ``failures``."""

    url: str
    message: str = "who"
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
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
                self.failures.append(repr(error))
                await trio.lowlevel.checkpoint()
            self._round.set()
            self._round = trio.Event()


@asynccontextmanager
async def prober(url: str, count: int = 2, message: str = "who") -> AsyncIterator[Prober]:
    """Probers beside the body."""
    probing = Prober(url, message)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(probing.probe)
        await probing.rounds(1)
        yield probing
        nursery.cancel_scope.cancel()
