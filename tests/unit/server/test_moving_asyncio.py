"""Live handoff between two pumps on asyncio, with asyncio's ways of cancelling."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.client import ClientConnection

import wssup
from tests.harness.moving import ANY, VERSION, Plain, numbered
from tests.harness.on_asyncio import Serving, on_asyncio, serving
from tests.harness.waiting import until_on_asyncio as until
from wssup import ConnectionMoved
from wssup.messages import HandedOver, HandOver, Message, Swept, TakeOver, TookOver
from wssup.server.connection import Connection
from wssup.server.handoff.receiving import Receiver
from wssup.server.handoff.sending import Sender
from wssup.server.request import Request
from wssup.server.styles import TaskStyle


class Async(Plain):
    """Numbers its answers, with hooks that let others run."""

    async def on_receive(self, ws: Connection, data: str | bytes) -> None:
        await asyncio.sleep(0)
        ws.state["n"] += 1
        await ws.send_message(numbered(ws.state["n"], data))

    async def on_suspend(self, ws: Connection) -> None:
        await asyncio.sleep(0)
        super().on_suspend(ws)

    async def on_resume(self, ws: Connection) -> None:
        await asyncio.sleep(0)
        super().on_resume(ws)


@wssup.resumable
async def task(request: Request) -> None:
    """The same in a task."""
    async with await request.accept() as ws:
        if not ws.resumed:
            ws.state["n"] = 0
        async for data in ws:
            ws.state["n"] += 1
            await ws.send_message(numbered(ws.state["n"], data))


class Two(NamedTuple):
    """Two pumps that serve."""

    old: Serving
    new: Serving


@asynccontextmanager
async def two(tmp_path: Path, application: Any, **limits: Any) -> AsyncIterator[Two]:
    """Serve twice; a task-style handler is resumable."""
    if isinstance(application, type):
        application = application()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    async with (
        serving(tmp_path / "old", application, **limits) as old,
        serving(tmp_path / "new", application, **limits) as new,
    ):
        for server in (old, new):
            if isinstance(server.style, TaskStyle):
                server.style.resumable = True
        yield Two(old, new)


class Session:
    """A session between two pumps."""

    def __init__(self, source: Serving, target: Serving) -> None:
        self.said: list[Message] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        Receiver(target.pump.handoff, TakeOver(1, VERSION, ANY), theirs, self.said.append)
        self._sender = Sender(source.pump.handoff, HandOver(1, VERSION, 0), ours, self.said.append)
        source.pump.handoff.sessions.begin(self._sender)

    async def swept(self) -> Swept:
        """Wait until each connection was looked at."""
        return (await until(lambda: [x for x in self.said if isinstance(x, Swept)]))[0]

    async def recall(self) -> int:
        """End it; how many it has moved."""
        self._sender.end("recalled")
        taken = await until(lambda: [x for x in self.said if isinstance(x, TookOver)])
        (given,) = (x for x in self.said if isinstance(x, HandedOver))
        assert (given.moved, taken[0].failed) == (taken[0].taken, 0)
        return given.moved


async def move(source: Serving, target: Serving) -> int:
    """Move what can move now, and return how many they were."""
    session = Session(source, target)
    await session.swept()
    return await session.recall()


@asynccontextmanager
async def clients(server: Serving, count: int) -> AsyncIterator[list[ClientConnection]]:
    """So many clients."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(server.connect()) for _ in range(count)]


@pytest.mark.parametrize("application", [Plain, Async, task])
@on_asyncio
async def test_under_load(tmp_path: Path, application: Any) -> None:
    """All styles move to and fro under load, and every answer has the number that follows."""
    count, rounds, stop = 20, 0, False

    async def talk(client: ClientConnection) -> None:
        nonlocal rounds
        n = 0
        while not stop:
            n += 1
            await client.send("x")
            assert await client.recv() == f"{n} x"
            rounds += 1

    async with two(tmp_path, application) as both, clients(both.old, count) as everybody:
        talking = [asyncio.create_task(talk(client)) for client in everybody]
        here, there = both
        for _ in range(6):
            session = Session(here, there)
            await there.until(lambda c: c.active == count)
            assert await session.recall() == count
            before = rounds
            await until(lambda least=before + 3 * count: rounds >= least)  # type: ignore[misc]
            here, there = there, here
        stop = True
        await asyncio.gather(*talking)
        assert both.old.counts.moved_out == both.old.counts.moved_in == 3 * count
        assert (both.old.counts.active, both.new.counts.active) == (count, 0)
        assert both.old.counts.handler_errors == both.new.counts.handler_errors == 0


@on_asyncio
async def test_unread_messages(tmp_path: Path) -> None:
    """Messages that wait for a handler at work move with it, in order; who has the old object is
    told that it moved.
    """
    at_work, go_on = asyncio.Event(), asyncio.Event()
    received: list[Any] = []
    old: list[Connection] = []

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        if not ws.resumed:
            old.append(ws)
            at_work.set()
            await go_on.wait()
        while True:
            received.append(await ws.get_message())

    async with two(tmp_path, application) as both, clients(both.old, 1) as (client,):
        await at_work.wait()
        for n in range(100):
            await client.send(str(n))
        session = Session(both.old, both.new)
        assert (await session.swept()).busy == 1
        waiting = asyncio.create_task(old[0].ping())
        go_on.set()
        await until(lambda: len(received) >= 100)
        assert received == [str(n) for n in range(100)]
        with pytest.raises(ConnectionMoved):
            await waiting
        with pytest.raises(ConnectionMoved):
            await old[0].send_message("x")
        assert not old[0].send_nowait("x")
        assert await session.recall() == 1


@on_asyncio
async def test_said_at_the_end_of_a_handler(tmp_path: Path) -> None:
    """What a handler that is cancelled for the move says last arrives before what it says in the
    new worker, and to close does nothing.
    """

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        try:
            if ws.resumed:
                await ws.send_message("there")
            async for data in ws:
                await ws.send_message(data)
        finally:
            assert ws.send_nowait("first")
            await ws.send_message("last")
            await ws.aclose()

    async with two(tmp_path, application) as both, clients(both.old, 1) as (client,):
        await client.send("x")
        assert await client.recv() == "x"
        assert await move(both.old, both.new) == 1
        assert [await client.recv() for _ in range(3)] == ["first", "last", "there"]
        await client.send("y")
        assert await client.recv() == "y"


@on_asyncio
async def test_a_handler_with_a_timeout(tmp_path: Path) -> None:
    """A handler whose own timeout cancels its receive while it moves, over and over, loses nothing:
    both cancel the same task, and each ends where it belongs.
    """

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        while True:
            try:
                async with asyncio.timeout(0.001):
                    data = await ws.get_message()
            except TimeoutError:
                continue
            ws.state["n"] = ws.state.get("n", 0) + 1
            await ws.send_message(numbered(ws.state["n"], data))

    async with two(tmp_path, application) as both, clients(both.old, 10) as everybody:
        here, there = both
        for n in range(1, 20):
            session = Session(here, there)
            for client in everybody:
                await client.send("x")
            await there.until(lambda c: c.active == 10)
            assert await session.recall() == 10
            for client in everybody:
                assert await client.recv() == f"{n} x"
            here, there = there, here
