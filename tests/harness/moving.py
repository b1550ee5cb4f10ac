"""Two engines in the test's own process, and sessions that move connections between them."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import trio
import trio.testing

import wssup
from tests.harness.served import Served, served
from tests.harness.waiting import until
from wssup.messages import HandedOver, HandOver, Message, Swept, TakeOver, TookOver
from wssup.server.connection import Connection
from wssup.server.request import Request

#: More resumes than any test has may fail.
ANY = 1 << 20
VERSION = 1

_numbers = itertools.count(1)
_M = TypeVar("_M", bound=Message)


class Two(NamedTuple):
    """Two engines that serve."""

    old: Served
    new: Served

    def moved(self) -> tuple[int, int]:
        """How many were counted out of the old one and into the new one."""
        return self.old.counts.moved_out, self.new.counts.moved_in

    def active(self) -> tuple[int, int]:
        """How many each has, as it counts them."""
        return self.old.counts.active, self.new.counts.active


@dataclass
class Session:
    """A session, and what its two workers have told the master.

    :ivar number: the master's number for it.
    """

    source: Served
    number: int
    said: list[Message] = field(default_factory=list)

    async def swept(self) -> Swept:
        """Wait until each connection was looked at."""
        return await self._told(Swept)

    async def handed_over(self) -> HandedOver:
        """Wait for the sender's end of the session."""
        return await self._told(HandedOver)

    async def took_over(self) -> TookOver:
        """Wait for the receiver's."""
        return await self._told(TookOver)

    async def over(self) -> tuple[HandedOver, TookOver]:
        """Wait for both ends."""
        return await self.handed_over(), await self.took_over()

    async def recall(self) -> tuple[HandedOver, TookOver]:
        """End it."""
        self.source.engine.recall(self.number)
        return await self.over()

    async def _told(self, kind: type[_M]) -> _M:
        found = await until(lambda: [each for each in self.said if isinstance(each, kind)])
        assert len(found) == 1, self.said
        return found[0]


def begin(
    source: Served,
    target: Served,
    *,
    quota: int = 0,
    failures: int = ANY,
    serial: int = 0,
    version: int = VERSION,
) -> Session:
    """Begin to move connections.

    :param serial: of the target, as far as topics go. Who is subscribed waits for one that the
        source does not know; 0: there are no topics.
    """
    session = Session(source, next(_numbers))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    take = TakeOver(session.number, version, failures)
    target.engine.take_over(take, theirs, session.said.append)
    give = HandOver(session.number, version, quota, receiver=serial)
    source.engine.hand_over(give, ours, session.said.append)
    return session


def begin_alone(source: Served, *, quota: int = 0) -> tuple[Session, socket.socket]:
    """Begin to move connections to whoever has the other end of the link."""
    session = Session(source, next(_numbers))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    give = HandOver(session.number, VERSION, quota)
    source.engine.hand_over(give, ours, session.said.append)
    return session, theirs


def await_alone(target: Served, *, failures: int = ANY) -> tuple[Session, socket.socket]:
    """Take connections from whoever has the other end of the link."""
    session = Session(target, next(_numbers))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    take = TakeOver(session.number, VERSION, failures)
    target.engine.take_over(take, ours, session.said.append)
    return session, theirs


async def move(source: Served, target: Served, *, quota: int = 0) -> int:
    """Move all connections that can move, end the session, and return how many they were."""
    # Who has an answer is ahead of the hook that gave it, which may still be on its way out.
    await trio.testing.wait_all_tasks_blocked()
    return await move_now(source, target, quota=quota)


async def move_now(source: Served, target: Served, *, quota: int = 0) -> int:
    """As `move`, of those that can move at this moment."""
    session = begin(source, target, quota=quota)
    await session.swept()
    if not quota:
        source.engine.recall(session.number)
    given, taken = await session.over()
    assert given.error == ("" if quota else "recalled")
    assert given.moved == taken.taken
    assert taken.failed == 0
    return given.moved


@asynccontextmanager
async def two(
    tmp_path: Path, old: object, new: object = None, **settings: object
) -> AsyncIterator[Two]:
    """Two engines; what ``served`` takes is for both.

    :param new: the application of the second one, if it is another.
    """
    for name in ("old", "new"):
        (tmp_path / name).mkdir(exist_ok=True)
    async with (
        served(tmp_path / "old", old, **settings) as source,  # type: ignore[arg-type]
        served(tmp_path / "new", new or old, **settings) as target,  # type: ignore[arg-type]
    ):
        yield Two(source, target)


class Plain:
    """Numbers its answers from ``ws.state``, with plain hooks.

    :ivar log: what was called, and for which path.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []

    def on_connect(self, ws: Connection) -> None:
        ws.state["n"] = 0
        self.log.append(("connect", ws.path))

    def on_receive(self, ws: Connection, data: str | bytes) -> Any:
        ws.state["n"] += 1
        assert ws.send_nowait(numbered(ws.state["n"], data))

    def on_suspend(self, ws: Connection) -> Any:
        self.log.append(("suspend", ws.path))

    def on_resume(self, ws: Connection) -> Any:
        assert ws.resumed
        self.log.append(("resume", ws.path))

    def on_disconnect(self, ws: Connection, code: int) -> Any:
        self.log.append((f"disconnect {code}", ws.path))

    def calls(self, what: str) -> int:
        """How often something was called."""
        return sum(called == what for called, _ in self.log)


class Async(Plain):
    """The same with hooks that let others run."""

    async def on_receive(self, ws: Connection, data: str | bytes) -> None:
        await trio.lowlevel.checkpoint()
        n = ws.state["n"] = ws.state["n"] + 1
        await ws.send_message(numbered(n, data))
        await trio.lowlevel.checkpoint()

    async def on_suspend(self, ws: Connection) -> None:
        await trio.lowlevel.checkpoint()
        super().on_suspend(ws)

    async def on_resume(self, ws: Connection) -> None:
        await trio.lowlevel.checkpoint()
        super().on_resume(ws)

    async def on_disconnect(self, ws: Connection, code: int) -> None:
        await trio.lowlevel.checkpoint()
        super().on_disconnect(ws, code)


@wssup.resumable
async def task(request: Request) -> None:
    """The same in a task per connection."""
    assert request.resumed is request.connection.resumed
    async with await request.accept() as ws:
        if not ws.resumed:
            ws.state["n"] = 0
        async for data in ws:
            ws.state["n"] += 1
            await ws.send_message(numbered(ws.state["n"], data))


@wssup.resumable
async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The same as an ASGI application."""
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    extension = scope["extensions"]["wssup"]
    state = extension["state"]
    if not extension["resumed"]:
        state["n"] = 0
    while (event := await receive())["type"] == "websocket.receive":
        state["n"] += 1
        data = event["text"] if "text" in event else event["bytes"]
        await send({"type": "websocket.send", _kind(data): numbered(state["n"], data)})
    assert event["type"] == "websocket.disconnect"


def _kind(data: str | bytes) -> str:
    return "text" if isinstance(data, str) else "bytes"


#: What makes an application of each style.
STYLES: list[Callable[[], object]] = [Plain, Async, lambda: task, lambda: asgi]
STYLE_NAMES = ["plain", "async", "task", "asgi"]


def numbered(n: int, data: str | bytes) -> str | bytes:
    """The n-th answer."""
    return f"{n} {data}" if isinstance(data, str) else b"%d " % n + data
