"""What the observer answers: the routes, each a few lines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from wssup.observer.events import Stream
from wssup.observer.guard import Guard, refusal
from wssup.observer.health import not_alive, not_ready
from wssup.observer.metrics import Metrics
from wssup.observer.publish import Publishing
from wssup.observer.state import State

__all__ = ["application"]

_ASSETS: Final = Path(__file__).parent / "assets"
_PAGE: Final = "dashboard.html"
_KINDS: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}


def application(state: State, publishing: Publishing) -> ASGIApp:
    """The observer as an ASGI application."""
    shown = _Shown(state)
    routes = [
        Route("/", shown.page),
        Route("/assets/{name}", shown.asset),
        Route("/status", shown.status),
        Route("/workers/{slot:int}", shown.slot),
        Route("/metrics", shown.metrics),
        Route("/healthz", shown.healthz),
        Route("/readyz", shown.readyz),
        Route("/events", shown.events),
        Route("/publish/{topic:path}", publishing.answer, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse})
    # To where would be the client's word.
    app.router.redirect_slashes = False
    return Guard(app)


class _Shown:
    """All that is only read. Handlers are coroutines, or Starlette would use threads for them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._stream = Stream(state)
        self._metrics = Metrics(state.board)
        self._assets = {
            path.name: (path.read_bytes(), _KINDS[path.suffix])
            for path in sorted(_ASSETS.glob("*"))
            if path.suffix in _KINDS
        }

    async def page(self, _request: Request) -> Response:
        return self._asset(_PAGE)

    async def asset(self, request: Request) -> Response:
        return self._asset(request.path_params["name"])

    async def status(self, _request: Request) -> Response:
        return _json(self._state.document())

    async def slot(self, request: Request) -> Response:
        number = request.path_params["slot"]
        found = self._state.slot(number)
        if found is None:
            return refusal(404, "no_slot", f"there is no slot {number}")
        return _json(found)

    async def metrics(self, request: Request) -> Response:
        facts = self._state.facts
        own = {"event_streams": self._stream.listeners}
        body, kind = self._metrics.scrape(facts, request.headers.get("accept", ""), own=own)
        return Response(body, media_type=kind)

    async def healthz(self, _request: Request) -> Response:
        silent = time.monotonic() - self._state.heard_at
        return _verdict(not_alive(self._state.facts, self._state.board.state, silent))

    async def readyz(self, _request: Request) -> Response:
        return _verdict(not_ready(self._state.facts, self._state.snapshot()))

    async def events(self, request: Request) -> Response:
        return self._stream.answer(request)

    def _asset(self, name: str) -> Response:
        if name not in self._assets:
            return refusal(404, "not_found", f"there is no {name[:100]!r}")
        content, kind = self._assets[name]
        return Response(content, media_type=kind)


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


def _verdict(why: str) -> Response:
    return PlainTextResponse(f"{why or 'ok'}\n", 503 if why else 200)


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = error.detail.lower().replace(" ", "_")
    headers = {name.replace("-", "_"): v for name, v in (error.headers or {}).items()}
    return refusal(error.status_code, code, error.detail, **headers)
