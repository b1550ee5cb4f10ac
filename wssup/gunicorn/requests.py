"""gunicorn is told of requests: it counts them (``max_requests``) and has hooks for them.

A request is a WebSocket handshake, or a request of HTTP. The application is wrapped, each style in
its own way; the engine knows nothing of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from trio_websocket import Endpoint

from wssup.application import Application
from wssup.server.connection import State

if TYPE_CHECKING:
    from wssup.gunicorn.worker import TrioWorker
    from wssup.server.connection import Connection
    from wssup.server.request import Request

__all__ = ["Asked", "watched"]

#: The hooks of an event-style application that are left as they are.
_OTHERS: Final = ("on_connect", "on_receive", "on_suspend", "on_resume")
Event = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as gunicorn's hooks know one.

    :ivar uri: the request target, as it was sent.
    :ivar headers: names in upper case.
    :ivar remote_addr: address and port of the client; empty on a unix socket.
    """

    method: str
    uri: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    remote_addr: tuple[str, int] | tuple[()]
    version: tuple[int, int] = (1, 1)


class Watch:
    """Tells gunicorn of requests that begin and end."""

    def __init__(self, worker: TrioWorker) -> None:
        self._worker = worker
        settings = worker.cfg.settings
        # gunicorn's own hooks do nothing worth the time of each handshake.
        self.pre, self.post = (
            settings[name].get() if settings[name].get() is not settings[name].default else None
            for name in ("pre_request", "post_request")
        )

    def begins(self, asked: Callable[[], Asked]) -> Asked | None:
        """A request came.

        :param asked: makes what hooks are given; called if there are any.
        """
        self._worker.handle_request()
        if self.pre is None and self.post is None:
            return None
        found = asked()
        if self.pre is not None:
            self.pre(self._worker, found)
        return found

    def ended(self, asked: Asked | None) -> None:
        """It was served: a WebSocket is closed. What was answered is not told."""
        if self.post is not None and asked is not None:
            self.post(self._worker, asked, {}, None)


def watched(application: Application, worker: TrioWorker) -> Application:
    """The application, which tells gunicorn of its requests from now on."""
    watch = Watch(worker)
    handler: Any = application.handler
    if application.is_event_style:
        handler = _Hooks(handler, watch)
    elif application.is_asgi:
        handler = _asgi(handler, watch)
    else:
        handler = _task(handler, watch)
    return msgspec.structs.replace(application, handler=handler)


def _task(
    handler: Callable[[Request], Awaitable[object]], watch: Watch
) -> Callable[[Request], Awaitable[None]]:
    async def watching(request: Request) -> None:
        asked = watch.begins(lambda: _of_request(request))
        try:
            await handler(request)
        finally:
            watch.ended(asked)

    return watching


def _asgi(app: Callable[..., Awaitable[None]], watch: Watch) -> Callable[..., Awaitable[None]]:
    async def watching(scope: Event, receive: Any, send: Any) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await app(scope, receive, send)
            return
        asked = watch.begins(lambda: _of_scope(scope))
        try:
            await app(scope, receive, send)
        finally:
            watch.ended(asked)

    return watching


class _Hooks:
    """An event-style application that tells gunicorn of its requests."""

    def __init__(self, application: object, watch: Watch) -> None:
        self._watch = watch
        self._asked: dict[int, Asked] = {}
        for name in _OTHERS:
            hook = getattr(application, name, None)
            if hook is not None:
                setattr(self, name, hook)
        self._request: Any = getattr(application, "on_request", None)
        self._disconnect: Any = getattr(application, "on_disconnect", None)
        if _is_async(self._request):
            self.on_request: Any = self._request_async
        else:
            self.on_request = self._request_plain
        if watch.post is not None:
            is_async = _is_async(self._disconnect)
            self.on_disconnect: Any = self._end_async if is_async else self._end_plain
        elif self._disconnect is not None:
            self.on_disconnect = self._disconnect

    def _begin(self, request: Request) -> None:
        asked = self._watch.begins(lambda: _of_request(request))
        if asked is not None and self._watch.post is not None:
            self._asked[request.connection.id] = asked

    def _request_plain(self, request: Request) -> None:
        self._begin(request)
        if self._request is not None:
            self._request(request)
        self._over(request)

    async def _request_async(self, request: Request) -> None:
        self._begin(request)
        try:
            await self._request(request)
        finally:
            self._over(request)

    def _over(self, request: Request) -> None:
        """One that was turned away ends with its answer."""
        if request.is_answered and request.connection.status is not State.OPEN:
            self._watch.ended(self._asked.pop(request.connection.id, None))

    def _end_plain(self, ws: Connection, code: int) -> None:
        try:
            if self._disconnect is not None:
                self._disconnect(ws, code)
        finally:
            self._watch.ended(self._asked.pop(ws.id, None))

    async def _end_async(self, ws: Connection, code: int) -> None:
        try:
            await self._disconnect(ws, code)
        finally:
            self._watch.ended(self._asked.pop(ws.id, None))


def _is_async(hook: Any) -> bool:
    return hook is not None and any(
        inspect.iscoroutinefunction(function)
        for function in (hook, inspect.unwrap(hook), getattr(hook, "__call__", None))  # noqa: B004
    )


def _of_request(request: Request) -> Asked:
    remote = request.remote
    return _asked(
        "GET",
        request.path,
        request.headers,
        (str(remote.address), remote.port) if isinstance(remote, Endpoint) else (),
    )


def _of_scope(scope: Event) -> Asked:
    query = scope["query_string"].decode("latin-1")
    target = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
    client = scope.get("client")
    return _asked(
        scope.get("method", "GET"),
        f"{target}?{query}" if query else target,
        scope["headers"],
        (client[0], client[1]) if client else (),
    )


def _asked(method: str, uri: str, headers: Any, remote: tuple[str, int] | tuple[()]) -> Asked:
    path, _, query = uri.partition("?")
    text = tuple(
        (name.decode("latin-1").upper(), value.decode("latin-1")) for name, value in headers
    )
    return Asked(method, uri, path, query, text, remote)
