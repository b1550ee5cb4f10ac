"""Handlers that let go of their connections late, and what happens meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import trio

import wssup
from tests.harness.moving import begin, two
from tests.unit.server.peer import OFF, Peer, everything_read
from wssup.server.connection import Connection
from wssup.server.handoff import record as records
from wssup.server.request import Request


async def test_a_worker_that_stood_still(tmp_path: Path) -> None:
    """Handlers that have not let go of their connections by the time that they have for it get that
    time once more if it was their worker that stood still.
    """
    found: list[Connection] = []
    let_go = trio.Event()

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        found.append(ws)
        try:
            async for data in ws:
                await ws.send_message(data)
        finally:
            with trio.CancelScope(shield=True):
                await let_go.wait()

    async with two(tmp_path, application, heartbeat=OFF) as both, await Peer.open(both.old) as peer:
        assert await peer.ask("x") == "x"
        moving = both.old.engine._pump.handoff
        session = begin(both.old, both.new)
        await everything_read()
        held = []
        for _ in range(2):
            held.append(found[0] in moving._held)
            moving.overdue(found[0], time.monotonic(), 2.0)
        held.append(found[0] in moving._held)
        let_go.set()
        assert held == [True, True, False]
        assert await peer.ask("y") == "y"
        await session.recall()


@pytest.mark.parametrize("recalled", [False, True])
async def test_lost_in_the_last_moment(tmp_path: Path, recalled: bool) -> None:  # noqa: FBT001 - a case
    """What a thread has published for a connection that is to move is sent before it does, which
    may show that its client is gone: it is lost, and nobody else.
    """
    found: list[Connection] = []
    let_go = trio.Event()

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        ws.subscribe("t")
        found.append(ws)
        try:
            async for data in ws:
                await ws.send_message(data)
        finally:
            if ws is found[0]:
                with trio.CancelScope(shield=True):
                    await let_go.wait()
                publish = ws.wire.topics.publish
                thread = threading.Thread(target=publish, args=("t", "last"))
                thread.start()
                thread.join()

    async with two(tmp_path, application, heartbeat=OFF) as both, await Peer.open(both.old) as gone:
        assert await gone.ask("x") == "x"
        session = begin(both.old, both.new, version=records.TOPICS)
        await everything_read()
        moving = both.old.engine._pump.handoff
        assert found[0] in moving._held
        if recalled:
            moving.overdue(found[0], time.monotonic(), 0.0)
            assert found[0] in moving._recalled
            both.old.engine._pump.unwatch(found[0])
        gone.reset()
        let_go.set()
        await both.old.until(lambda c: c.closed_by_reason["lost"] == 1)
        async with await Peer.open(both.old) as other:
            assert await other.ask("y") == "y"
        await session.recall()
