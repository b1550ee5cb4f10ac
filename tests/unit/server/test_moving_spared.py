"""A worker that is to end closes who stays behind, and spares those that may still move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import wssup
from tests.harness.moving import STYLE_NAMES, STYLES, begin, begin_alone, numbered, two
from tests.harness.served import Served
from tests.unit.server.peer import OFF, Peer, everything_read, opened
from wssup.scoreboard import ClosedReason
from wssup.server.request import Request

each_style = pytest.mark.parametrize("make", STYLES, ids=STYLE_NAMES)


async def _shed(side: Served, window: float = 0.0) -> None:
    """What a worker does when it is to end: see `BaseWorker._let_go`."""
    with trio.fail_after(15):
        await side.engine.wait_swept()
    assert side.engine.moves(follows=False)
    side.engine.close_all(1012, "service restart", ClosedReason.DRAIN, window, spares=True)


@each_style
async def test_who_comes_back_from_another_session(
    tmp_path: Path, make: Callable[[], object]
) -> None:
    """A receiver ends with connections on their way to it; they come back as their worker looks
    whom it has to close, and move in the session that takes everybody.
    """
    count = 20
    async with two(tmp_path, make(), heartbeat=OFF) as both, opened(both.old, count) as peers:
        await everything_read()
        lost, end = begin_alone(both.old, quota=count // 2)
        with end:
            await trio.lowlevel.wait_readable(end)
            session = begin(both.old, both.new)
            await both.new.until(lambda c: c.moved_in == count // 2)
        await _shed(both.old)
        assert (await lost.handed_over()).error == "receiver_lost"
        await both.old.until(lambda c: not c.active)
        assert both.moved() == (count, count)
        for peer in peers:
            assert await peer.ask("x") == "1 x"
        await session.recall()


async def test_who_does_not_let_go_at_once(tmp_path: Path) -> None:
    """A handler that takes long to end when it is cancelled, once: its connection is listened to
    meanwhile, is not closed, and moves when it has ended.
    """
    patient, go_on = False, trio.Event()

    @wssup.resumable
    async def application(request: Request) -> None:
        nonlocal patient
        ws = await request.accept()
        try:
            async for data in ws:
                await ws.send_message(numbered(1, data))
        finally:
            if not patient:
                patient = True
                with trio.CancelScope(shield=True):
                    await go_on.wait()

    async with (
        two(tmp_path, application, heartbeat=OFF) as both,
        await Peer.open(both.old) as peer,
    ):
        await everything_read()
        session = begin(both.old, both.new)
        assert (await session.swept()).kept == 1
        await _shed(both.old)
        await peer.say("x")
        go_on.set()
        await both.new.until(lambda c: c.moved_in == 1)
        assert await peer.frame() == (1, b"1 x")
        assert await peer.ask("y") == "1 y"
        await session.recall()


async def test_who_opens_while_others_are_closed(tmp_path: Path) -> None:
    """Who is accepted after a worker has shed those that stay behind moves, too."""
    go_on, at_work = trio.Event(), trio.Event()

    @wssup.resumable
    async def application(request: Request) -> None:
        if request.path == "/slow":
            await go_on.wait()
        ws = await request.accept()
        if request.path == "/slow" and not ws.resumed:
            await at_work.wait()
        async for data in ws:
            await ws.send_message(numbered(1, data))

    async with two(tmp_path, application, heartbeat=OFF) as both, trio.open_nursery() as nursery:
        found: list[Peer] = []

        async def connect() -> None:
            found.append(await Peer.open(both.old, "/slow"))

        nursery.start_soon(connect)
        await both.old.until(lambda c: c.handler_runs == 1)
        session = begin(both.old, both.new)
        await _shed(both.old)
        go_on.set()
        await both.old.until(lambda c: c.active)
        (ws,) = both.old.engine._pump.connections.values()
        assert ws.leave is None, "it is to be closed"
        at_work.set()
        await both.new.until(lambda c: c.moved_in == 1)
        await both.old.until(lambda c: not c.active)
        async with found[0] as peer:
            assert await peer.ask("x") == "1 x"
        await session.recall()
