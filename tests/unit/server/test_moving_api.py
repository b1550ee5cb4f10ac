"""What code in the old worker meets at a connection that moves or has moved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from trio_websocket import ConnectionClosed

import wssup
from tests.harness import raw
from tests.harness.moving import Plain, Two, begin, move, two
from tests.harness.waiting import until
from tests.unit.server.peer import BINARY, OFF, PING, Peer, everything_read, small_buffer
from wssup import ConnectionMoved
from wssup.server.connection import Connection
from wssup.server.request import Request


class Scene(NamedTuple):
    """A connection of the old worker in the test's hands."""

    both: Two
    here: Connection
    peer: Peer


@wssup.resumable
async def echo(request: Request) -> None:
    """Resumable, and does not mind who else talks with its connection."""
    ws = await request.accept()
    async for data in ws:
        await ws.send_message(data)


@asynccontextmanager
async def scene(
    tmp_path: Path, application: object = echo, buffer: int = 0, **settings: object
) -> AsyncIterator[Scene]:
    """One connection."""
    async with (
        two(tmp_path, application, heartbeat=OFF, **settings) as both,
        await Peer.open(both.old, buffer=buffer) as peer,
    ):
        await everything_read()
        (here,) = both.old.engine._pump.connections.values()
        yield Scene(both, here, peer)


async def use(ws: Connection, how: str) -> None:
    match how:
        case "send":
            await ws.send_message("x")
        case "send bytes":
            await ws.send_message(b"x")
        case "receive":
            await ws.get_message()
        case "ping":
            await ws.ping()
        case _:
            await ws.pong()


def code_of(ws: Connection) -> int | None:
    """The code that a connection was closed with."""
    return None if ws.closed is None else ws.closed.code


USES = ["send", "send bytes", "receive", "ping", "pong"]


@pytest.mark.parametrize("style", ["task", "event"])
async def test_after_the_move(tmp_path: Path, style: str) -> None:
    """Sending, receiving and pinging raise ConnectionMoved, which is a ConnectionClosed;
    send_nowait is false; the connection is closed with 1012; to close it does nothing; what it was
    is still known.
    """
    async with scene(tmp_path, echo if style == "task" else Plain()) as (both, ws, peer):
        remote, path = str(ws.remote), ws.path
        assert await move(both.old, both.new) == 1
        for how in USES:
            with pytest.raises(ConnectionMoved) as caught:
                await use(ws, how)
            assert isinstance(caught.value, ConnectionClosed)
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1012
        with pytest.raises(ConnectionMoved):
            assert ws.local
        assert [data async for data in ws] == []
        assert (ws.send_nowait("x"), ws.send_nowait(b"x")) == (False, False)
        assert (ws.is_closed, code_of(ws)) == (True, 1012)
        assert (str(ws.remote), ws.path) == (remote, path)
        ws.close_nowait()
        await ws.aclose()
        async with ws:
            pass
        assert (await peer.ask("x"))[-1] == "x"
        assert both.active() == (0, 1)


@pytest.mark.parametrize("count", [1, 5, 40])
async def test_messages_of_a_moved_connection(tmp_path: Path, count: int) -> None:
    """Messages that moved unread are the new worker's: who still has the old object does not get
    them as well.
    """
    at_work, go_on = trio.Event(), trio.Event()
    received: list[Any] = []

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        if not ws.resumed:
            at_work.set()
            await go_on.wait()
        async for data in ws:
            received.append(data)  # noqa: PERF401 - one by one

    async with scene(tmp_path, application) as (both, ws, peer):
        await at_work.wait()
        await peer.say(*(str(n) for n in range(count)))
        await everything_read()
        session = begin(both.old, both.new)
        await session.swept()
        go_on.set()
        await session.source.engine.wait_empty()
        with pytest.raises(ConnectionMoved):
            await ws.get_message()
        await everything_read()
        assert received == [str(n) for n in range(count)]
        await session.recall()


@pytest.mark.parametrize("how", ["ping", "send", "receive"])
async def test_who_waits(tmp_path: Path, how: str) -> None:
    """A task of somebody else that waits in a send, a ping or a receive of a connection that moves
    gets ConnectionMoved; a send that raises has sent nothing.
    """
    ended: list[str] = []

    async def wait() -> None:
        with pytest.raises(ConnectionMoved):
            await use(ws, how)
        ended.append(how)

    async with scene(tmp_path, buffer=4096, outbound_bytes=2 << 20) as (both, ws, peer):
        if how == "send":
            small_buffer(ws)
            assert ws.send_nowait(bytes(4 << 20))
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await everything_read()
            assert not ended
            assert await move(both.old, both.new) == 1
        assert ended == [how] * 3
        await peer.say("next")
        if how == "send":
            assert await peer.frame() == (BINARY, bytes(4 << 20))
        for _ in range(3 if how == "ping" else 0):
            assert (await peer.frame())[0] == PING
        assert await peer.frame() == (raw.TEXT, b"next")


# Closing while it moves.


async def closes_in_finally(ws: Connection) -> None:
    try:
        await ws.get_message()
    finally:
        await ws.aclose()


async def closes_shielded(ws: Connection) -> None:
    try:
        await ws.get_message()
    finally:
        with trio.CancelScope(shield=True):
            await ws.aclose(4000, "bye")


async def closes_at_once(ws: Connection) -> None:
    try:
        await ws.get_message()
    finally:
        ws.close_nowait(4000, "bye")


async def closes_with_it(ws: Connection) -> None:
    async with ws:
        await ws.get_message()


async def closes_twice(ws: Connection) -> None:
    async with trio.open_nursery() as nursery, ws, ws:
        nursery.start_soon(closes_in_finally, ws)
        await ws.get_message()


@pytest.mark.parametrize(
    "receive",
    [closes_in_finally, closes_shielded, closes_at_once, closes_with_it, closes_twice],
    ids=lambda function: function.__name__,
)
async def test_a_handler_that_closes(tmp_path: Path, receive: Callable[..., Any]) -> None:
    """A handler that is cancelled for a move and closes its connection on the way out does not
    close it: in the new worker it goes on, and can be closed there.
    """
    runs = 0

    @wssup.resumable
    async def application(request: Request) -> None:
        nonlocal runs
        runs += 1
        await receive(await request.accept())

    async with scene(tmp_path, application) as (both, ws, peer):
        for here, there in ((both.old, both.new), (both.new, both.old)):
            assert await move(here, there) == 1
            await everything_read()
        assert runs == 3
        assert code_of(ws) == 1012
        await peer.say("enough")
        # One receive is left in a handler that has two.
        if receive is closes_twice:
            await peer.say("enough")
        assert await peer.code() in {1000, 4000}
        await peer.send(raw.frame(raw.CLOSE, b"\x03\xe8"))
        await both.old.until(lambda c: not c.active)
        assert both.old.counts.closed_by_reason["server"] == 1
        assert both.old.counts.handler_errors == both.new.counts.handler_errors == 0


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_hook_that_closes(tmp_path: Path, kind: str) -> None:
    """on_suspend that closes its connection does not close it."""

    class Closes(Plain):
        def on_suspend(self, ws: Connection) -> None:
            ws.close_nowait(4000, "bye")

    class ClosesAsync(Plain):
        async def on_suspend(self, ws: Connection) -> None:
            await ws.aclose(4000, "bye")
            async with ws:
                assert not ws.is_closed

    application = Closes() if kind == "plain" else ClosesAsync()
    async with scene(tmp_path, application) as (both, _, peer):
        assert await move(both.old, both.new) == 1
        assert await peer.ask("x") == "1 x"


async def test_tasks_of_a_handler(tmp_path: Path) -> None:
    """Tasks that a handler has started are cancelled with it; what is shielded is finished first,
    and can still send.
    """
    done: list[str] = []

    async def ticks(ws: Connection) -> None:
        try:
            await trio.sleep_forever()
        finally:
            done.append("cancelled")

    async def saves(ws: Connection, saving: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            await saving.wait()
            for n in range(10):
                await trio.lowlevel.checkpoint()
                await ws.send_message(f"saved {n}")
            ws.state["saved"] = True

    saving = trio.Event()

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        async with trio.open_nursery() as nursery:
            if not ws.resumed:
                nursery.start_soon(ticks, ws)
                nursery.start_soon(saves, ws, saving)
            async for _ in ws:
                await ws.send_message(str(ws.state))

    async with scene(tmp_path, application) as (both, _, peer):
        session = begin(both.old, both.new)
        await until(lambda: done)
        assert both.moved() == (0, 0)
        saving.set()
        assert (await session.swept()).moved == 1
        for n in range(10):
            assert await peer.frame() == (raw.TEXT, b"saved %d" % n)
        assert await peer.ask("?") == "{'saved': True}"
        await session.recall()


async def test_what_a_new_worker_says_of_a_request(tmp_path: Path) -> None:
    """A resumed request says so before it is accepted, is accepted once, and is not answered again:
    the client hears nothing of it.
    """
    seen: list[bool] = []

    @wssup.resumable
    async def application(request: Request) -> None:
        seen.append(request.resumed)
        ws = await request.accept(extra_headers=[(b"x-a", b"b")])
        with pytest.raises(RuntimeError):
            await request.accept()
        with pytest.raises(RuntimeError):
            await request.reject(403)
        async for data in ws:
            await ws.send_message(data)

    async with scene(tmp_path, application) as (both, _, peer):
        assert await move(both.old, both.new) == 1
        assert await peer.ask("x") == "x"
    assert seen == [False, True]


async def test_a_resumed_request_that_is_rejected(tmp_path: Path) -> None:
    """Closes its connection with 1008."""

    @wssup.resumable
    async def application(request: Request) -> None:
        if request.resumed:
            await request.reject(403)
            return
        await (await request.accept()).get_message()

    async with scene(tmp_path, application) as (both, _, peer):
        assert await move(both.old, both.new) == 1
        assert await peer.code() == 1008


async def test_who_never_receives_stays(tmp_path: Path) -> None:
    """A handler that only sends is not interrupted: its connection stays, is told of as busy, and
    goes on when the session is over.
    """

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        n = 0
        while True:
            await ws.send_message(str(n))
            n += 1
            await trio.sleep(0.001)

    async with scene(tmp_path, application) as (both, _, peer):
        session = begin(both.old, both.new)
        swept = await session.swept()
        assert (swept.moved, swept.busy, swept.kept) == (0, 1, 0)
        for n in range(20):
            assert await peer.frame() == (raw.TEXT, b"%d" % n)
        await session.recall()
        for n in range(20, 40):
            assert await peer.frame() == (raw.TEXT, b"%d" % n)
        assert both.active() == (1, 0)


async def test_who_is_not_resumable_is_not_asked_to_be(tmp_path: Path) -> None:
    """Only handlers that say so are resumable; objects with hooks always are."""

    async def plain(request: Request) -> None:
        await request.accept()

    for application, expected in ((plain, False), (echo, True), (Plain(), True)):
        async with two(tmp_path, application) as both:
            assert both.old.engine.is_resumable is expected
