"""What every response has, and which requests get none."""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wssup.status.hosts import is_loopback, names_this_machine

__all__ = ["HEADERS", "Guard", "refusal"]

#: The page gets what it needs from here, and nothing from elsewhere; no other page may frame it.
#: Nothing is kept by anybody, as everything is about now.
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_RAW: Final = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


def refusal(status: int, code: str, message: str, **headers: str) -> JSONResponse:
    """A response that says what was wrong; its form is that of errors of the control protocol."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": {"code": code, "message": message}}, status, named)


class Guard:
    """Adds the headers, and refuses requests that a foreign page sends through somebody's browser.

    Such a page can have its own name resolve to 127.0.0.1 (DNS rebinding) and would then read what
    this machine alone should see; but the request says the page's name.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have it answered."""
        if scope["type"] != "http":
            # No lifespan is asked for, and no WebSocket is spoken.
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_RAW]
            await send(message)

        host = _foreign_host(scope)
        if host is None:
            await self._app(scope, receive, with_headers)
            return
        answer = refusal(
            421,
            "wrong_host",
            f"this address answers to localhost only, not to {host!r}: a proxy before it should"
            " send Host: localhost",
        )
        await answer(scope, receive, with_headers)


def _foreign_host(scope: Scope) -> str | None:
    """The host that the request is meant for, if it came over loopback and is not for here."""
    server = scope.get("server")
    # Of a unix socket the server is a path, or nothing, without a port.
    if not server or server[1] is None or not is_loopback(server[0]):
        return None
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1")
            if not names_this_machine(host):
                return host[:100]
    return None
