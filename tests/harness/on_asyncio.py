"""The engine on asyncio in the test's own process, on real sockets."""

from __future__ import annotations

import asyncio
import functools
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from tests.harness import raw
from tests.harness.waiting import until_on_asyncio
from wssup.application import style_of
from wssup.config.settings import Heartbeat, Limits
from wssup.config.topics import Topics
from wssup.scoreboard import ClosedReason, Counts, Scoreboard
from wssup.server.loops.asyncio import AsyncioLoop
from wssup.server.pump import Pump
from wssup.server.styles import EventStyle, TaskStyle
from wssup.server.topics.hub import Hub

#: Seconds for everything in a test: ten times what a busy machine needs.
PATIENCE = 20.0


def on_asyncio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on asyncio: by itself, pytest-trio would."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        asyncio.run(asyncio.wait_for(test(**fixtures), PATIENCE))

    return run


class SlyLoop(AsyncioLoop):
    """Cancels a task at the moment when it is woken."""

    victim: asyncio.Task[Any] | None = None

    def wake(self, waiter: asyncio.Future[Any], value: Any) -> bool:
        woken = super().wake(waiter, value)
        if self.victim is not None:
            self.victim.cancel()
            self.victim = None
        return woken


@dataclass
class Serving:
    """A pump that runs on asyncio."""

    pump: Pump
    loop: SlyLoop
    style: EventStyle | TaskStyle
    address: tuple[str, int]
    board: Scoreboard
    row: int
    #: What asyncio's handler of lost exceptions was told.
    problems: list[dict[str, Any]] = field(default_factory=list)

    @property
    def counts(self) -> Counts:
        self.pump.flush_counters()
        view = self.board.read(self.row)
        assert view is not None
        return view.counts

    async def until(self, fact: Callable[[Counts], object]) -> Counts:
        await until_on_asyncio(lambda: fact(self.counts), PATIENCE)
        return self.counts

    async def idle(self) -> None:
        """Wait until no connection is left and no task of the application."""
        await until_on_asyncio(lambda: not (self.pump.connections or self.style.busy), PATIENCE)

    def connect(self, **options: Any) -> connect:
        return connect(f"ws://{self.address[0]}:{self.address[1]}/", proxy=None, **options)

    def open(self) -> raw.Raw:
        """A bare client. It blocks, so it may only ask for what is there."""
        return raw.Raw(f"{self.address[0]}:{self.address[1]}", PATIENCE)


@asynccontextmanager
async def serving(
    tmp_path: Path, application: object, *, heartbeat: Heartbeat | None = None, **limits: Any
) -> AsyncIterator[Serving]:
    """Serve on the running loop, as an engine does, with an accept loop of its own."""
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, 1, 1)
    board.unlink()
    row = board.allocate(1, 0, 1)
    writer = board.writer(row)
    handler, interface = style_of("test:app", application)
    style = EventStyle(handler) if interface == "event" else TaskStyle(handler)
    loop = SlyLoop()
    pump = Pump(
        style,
        loop,
        limits=Limits(**limits),
        beat=heartbeat or Heartbeat(),
        keep_headers=None,
        row=writer,
        serial=1,
        closed_one=lambda: None,
        topics=Hub(Topics()),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)

    def accept() -> None:
        client, address = listener.accept()
        client.setblocking(False)
        writer.accepted()
        pump.opening.adopt(client.detach(), address)

    running = asyncio.get_running_loop()
    running.add_reader(listener, accept)
    server = Serving(pump, loop, style, listener.getsockname(), board, row)
    running.set_exception_handler(lambda _, problem: server.problems.append(problem))
    try:
        yield server
    finally:
        running.remove_reader(listener)
        listener.close()
        for connection in list(pump.connections.values()):
            pump.closing.lose(connection, ClosedReason.DEADLINE)
        loop.cancel()
        await server.idle()
        loop.close()
        pump.close_descriptors()
        board.close()
    assert server.problems == []
