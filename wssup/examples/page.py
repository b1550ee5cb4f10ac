"""A page that shows what a deploy does: each of its WebSockets counts, and says which worker and
generation serves it. A reload moves them to new workers, and they count on.

``wssup serve wssup.examples.page:app`` serves the WebSockets; the page is answered by every worker
on the next port (8766), from the lifespan. Open it, run ``wssup reload``, and watch.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

import wssup
from wssup.examples import onepage

_PAGE = Path(__file__).with_suffix(".html").read_text()
_WHERE = ("127.0.0.1", int(os.environ.get("PAGE_PORT", "8766")))


@wssup.resumable
async def app(request: wssup.Request) -> None:
    """Say who serves; then count on, each second and with each message that comes in. What has been
    counted is in ``ws.state``, which moves with the connection.
    """
    ws = await request.accept()
    worker = wssup.current_worker()
    hello = {"slot": worker.slot, "generation": worker.generation, "pid": worker.pid}
    await ws.send_message(json.dumps({**hello, "resumed": ws.resumed}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tick, ws)
        async for _ in ws:
            await _count(ws)
        nursery.cancel_scope.cancel()


async def _tick(ws: wssup.Connection) -> None:
    while True:
        await trio.sleep(1)
        await _count(ws)


async def _count(ws: wssup.Connection) -> None:
    ws.state["count"] = ws.state.get("count", 0) + 1
    await ws.send_message(str(ws.state["count"]))


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Serve the page beside the WebSockets."""
    async with onepage.serving(_PAGE, *_WHERE):
        yield
