"""One page beside the WebSockets: as much HTTP as an example needs so that a browser can try it.

Every worker listens for it itself, side by side (SO_REUSEPORT, socket(7)), from the lifespan.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

import wssup

__all__ = ["policy", "serving"]

_HEAD_LIMIT: Final = 8192
#: Seconds that a browser has for one request, and for taking the answer.
_PATIENCE: Final = 5.0
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_HOST = re.compile(rb"\r\nhost:[ \t]*([a-z0-9.-]{1,253})(?::\d{1,5})?[ \t]*\r\n", re.IGNORECASE)
_log = logging.getLogger("page")


@asynccontextmanager
async def serving(page: str, host: str, port: int) -> AsyncIterator[None]:
    """Serve the page at ``/`` while the body runs; without it if the port is taken.

    :param page: HTML with its scripts and styles inside.
    """
    async with trio.open_nursery() as nursery:
        try:
            listener = _listen(host, port)
        except OSError as error:
            _log.warning("no page on %s:%d (%s)", host, port, error.strerror)
        else:
            if wssup.current_worker()[1:3] == (0, 1):
                _log.info("the page is on http://%s:%d/", host, port)
            nursery.start_soon(trio.serve_listeners, partial(_answer, page), [listener])
        yield
        nursery.cancel_scope.cancel()


def policy(page: str, host: str) -> str:
    """What the page may do (Content-Security-Policy): run the scripts and styles that stand in it,
    known by their hashes, and open WebSockets to the host that it came from; nothing else.

    :param host: a name or an IPv4 address; empty: it may connect to none.
    """
    none = "'none'"
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[kind].append(f"'sha256-{digest}'")
    rules = {
        "default-src": none,
        "script-src": " ".join(allowed["script"]) or none,
        "style-src": " ".join(allowed["style"]) or none,
        "img-src": "data:",
        "connect-src": f"ws://{host}:* wss://{host}:*" if host else none,
        "base-uri": none,
        "form-action": none,
        "frame-ancestors": none,
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _listen(host: str, port: int) -> trio.SocketListener:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


async def _answer(page: str, stream: trio.SocketStream) -> None:
    """One request, one answer (RFC 9112)."""
    head = b""
    try:
        with trio.fail_after(_PATIENCE):
            while b"\r\n\r\n" not in head:
                chunk = await stream.receive_some()
                if not chunk or len(head) > _HEAD_LIMIT:
                    return
                head += chunk
            await stream.send_all(_response(page, head))
    except (trio.TooSlowError, trio.BrokenResourceError):
        return
    finally:
        await trio.aclose_forcefully(stream)


def _response(page: str, head: bytes) -> bytes:
    if head.startswith((b"GET / ", b"GET /?")):
        status, kind, body = "200 OK", "text/html; charset=utf-8", page.encode()
    else:
        status, kind, body = "404 Not Found", "text/plain", b"there is one page here: /\n"
    host = _HOST.search(head)
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        f"Content-Security-Policy: {policy(page, host[1].decode() if host else '')}",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
