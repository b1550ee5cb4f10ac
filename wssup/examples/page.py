"""A page that shows what a deploy does: each of its WebSockets counts, and says which worker and
generation serves it. A reload moves them to new workers, and they count on.

``wssup serve wssup.examples.page:app`` serves the WebSockets; the page is answered by every worker
on the next port (8766), from the lifespan. Open it, run ``wssup reload``, and watch.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

import wssup

#: Where the page is served. Every worker listens there itself, side by side (SO_REUSEPORT,
#: socket(7)).
PAGE = ("127.0.0.1", int(os.environ.get("PAGE_PORT", "8766")))
_HTML = Path(__file__).with_suffix(".html")
_HEAD_LIMIT = 8192
_log = logging.getLogger("page")
_PATIENCE = 5.0


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
    async with trio.open_nursery() as nursery:
        try:
            listener = _listen()
        except OSError as error:
            _log.warning("no page on %s:%d (%s); open %s", *PAGE, error.strerror, _HTML)
        else:
            if wssup.current_worker()[1:3] == (0, 1):
                _log.info("the page is on http://%s:%d/", *PAGE)
            nursery.start_soon(trio.serve_listeners, _answer, [listener])
        yield
        nursery.cancel_scope.cancel()


def _listen() -> trio.SocketListener:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(PAGE)
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


async def _answer(stream: trio.SocketStream) -> None:
    """One request, one answer: just enough HTTP/1.1 (RFC 9112) for a browser to fetch one page."""
    head = b""
    try:
        with trio.fail_after(_PATIENCE):
            while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                head += chunk
            found = head.startswith((b"GET / ", b"GET /?"))
            body = _HTML.read_bytes() if found else b"there is one page here: /\n"
            status = b"200 OK" if found else b"404 Not Found"
            kind = b"text/html; charset=utf-8" if found else b"text/plain"
            await stream.send_all(
                b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: "
                b"close\r\n\r\n%b" % (status, kind, len(body), body)
            )
    except (trio.TooSlowError, trio.BrokenResourceError):
        return
    finally:
        await trio.aclose_forcefully(stream)
