"""An engine in the test's own process, on real sockets, with the scoreboard row it counts in."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, connect_websocket_url

from tests.harness.waiting import until
from wssup import application
from wssup.config.settings import Heartbeat, Limits
from wssup.config.topics import Topics
from wssup.scoreboard import Counts, Scoreboard
from wssup.server.accepting import Accepting
from wssup.server.admission import Admission
from wssup.server.connection import Connection
from wssup.server.engine import Engine
from wssup.server.request import Request
from wssup.server.topics.api import set_hub
from wssup.server.topics.hub import Hub

#: Seconds for everything in a test: ten times what a busy machine needs.
PATIENCE = 20.0


async def echo(request: Request) -> None:
    """The smallest application, task style."""
    ws = await request.accept()
    while True:
        await ws.send_message(await ws.get_message())


class Echo:
    """The smallest application, event style."""

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        ws.send_nowait(data)


@dataclass
class Served:
    """An engine that runs."""

    engine: Engine
    board: Scoreboard
    row: int
    address: tuple[str, int]
    nursery: trio.Nursery
    accepting: Accepting
    #: Those that `connect` made; what the test leaves open is closed with the engine.
    clients: list[WebSocketConnection] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ws://{self.address[0]}:{self.address[1]}/"

    @property
    def counts(self) -> Counts:
        self.engine.flush()
        view = self.board.read(self.row)
        assert view is not None
        assert not view.stale
        return view.counts

    async def until(self, fact: Callable[[Counts], object]) -> Counts:
        """Wait for the counts to say so; see served() for the deadline."""
        await until(lambda: fact(self.counts), PATIENCE)
        return self.counts

    async def connect(self, path: str = "") -> WebSocketConnection:
        ws = await connect_websocket_url(self.nursery, self.url + path)
        self.clients.append(ws)
        return ws

    async def open(self) -> trio.SocketStream:
        """A connection on which nothing was said yet."""
        return await trio.open_tcp_stream(*self.address)

    async def send(self, data: bytes) -> tuple[trio.SocketStream, bytes]:
        """Connect, send, and read the first answer (empty at end of file)."""
        stream = await self.open()
        await stream.send_all(data)
        return stream, bytes(await stream.receive_some(10_000))

    async def works(self) -> None:
        """The engine serves somebody else as ever."""
        async with await self.connect() as ws:
            await ws.send_message("still there?")
            assert await ws.get_message() == "still there?"

    async def ended(self, **reasons: int) -> Counts:
        """Wait until nothing is open, and compare how everything ended."""
        counts = await self.until(lambda c: c.accepted and not c.open)
        found = {
            name: count
            for kinds in (
                counts.closed_by_reason,
                counts.handshake_failures_by_reason,
                counts.refused_by_reason,
            )
            for name, count in kinds.items()
            if count
        }
        if counts.http_closed:
            found["http"] = counts.http_closed
        assert found == reasons, found
        assert counts.active == 0
        assert self.engine.count == 0
        await self.engine.wait_empty()
        return counts


@asynccontextmanager
async def served(
    tmp_path: Path,
    handler: object = echo,
    *,
    heartbeat: Heartbeat | None = None,
    keep_headers: tuple[str, ...] | None = None,
    topics: Topics | None = None,
    admission: Admission | None = None,
    **limits: object,
) -> AsyncIterator[Served]:
    """Serve a handler or an object with hooks; ``limits`` as in the table of settings."""
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, 1, 1)
    board.unlink()
    row = board.allocate(1, 0, 1)
    writer = board.writer(row)
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    listener.setblocking(False)
    address = listener.getsockname()
    accepting = Accepting(
        admission=admission or Admission(1000), accepted=writer.accepted, gauge=writer.accepting
    )
    engine = Engine(
        application.of("test:app", handler),
        limits=Limits(**limits),  # type: ignore[arg-type]
        heartbeat=heartbeat or Heartbeat(),
        row=writer,
        accepting=accepting,
        keep_headers=keep_headers,
        topics=Hub(topics or Topics(), serial=1, message_bytes=Limits(**limits).message_bytes),  # type: ignore[arg-type]
    )
    set_hub(engine.topics)
    clients: list[WebSocketConnection] = []
    try:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                await nursery.start(accepting.run)
                await nursery.start(engine.run)
                accepting.add((0, "a"), listener.detach())
                accepting.switch(on=True)
                engine.accept(on=True)
                yield Served(engine, board, row, address, nursery, accepting, clients)
                nursery.cancel_scope.cancel()
    finally:
        for client in clients:
            stream = client._stream
            assert isinstance(stream, trio.SocketStream)
            stream.socket.close()
        accepting.close_listeners()
        board.close()


async def code_of(ws: WebSocketConnection) -> tuple[int, str | None]:
    """Wait for the end of a client's connection; the close code and reason it was given."""
    async with ws:
        try:
            while True:
                await ws.get_message()
        except ConnectionClosed as closed:
            code, reason = (closed.reason.code, closed.reason.reason) if closed.reason else (0, "")
        # The library's client leaves closing to the server, which may be slower than the test.
        await ws._stream.aclose()
        return code, reason


async def everything(stream: trio.SocketStream) -> bytes:
    """What comes until the server ends the connection; a reset is an end too."""
    found = bytearray()
    with contextlib.suppress(trio.BrokenResourceError):
        while chunk := await stream.receive_some():
            found += chunk
    await stream.aclose()
    return bytes(found)


def entries(text: str) -> list[dict[str, Any]]:
    """Log lines in JSON."""
    return [json.loads(line) for line in text.splitlines()]
