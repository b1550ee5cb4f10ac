"""What an application does before its first connection and after its last one, on trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from wssup import logs
from wssup.application import Application, own_traceback, summary
from wssup.errors import ApplicationError

__all__ = ["running"]

_VERSION: Final = {"version": "3.0", "spec_version": "2.0"}


@asynccontextmanager
async def running(app: Application, state: dict[str, Any]) -> AsyncIterator[None]:
    """Hold an application's lifespan open: the context manager beside a handler, or the scope
    ``lifespan`` of an ASGI application.

    :param state: what an ASGI application puts something into for its other scopes.
    :raises ApplicationError: an ASGI application says that it cannot start, or did not end well.
    :raises Exception: what the lifespan raises, perhaps in a group.
    """
    if app.is_asgi:
        async with _asgi(app, state):
            yield
    elif app.lifespan is not None:
        async with app.lifespan():
            yield
    else:
        yield


@asynccontextmanager
async def _asgi(app: Application, state: dict[str, Any]) -> AsyncIterator[None]:
    lifespan = _Lifespan(app, state)
    async with trio.open_nursery() as nursery:
        await nursery.start(lifespan.run)
        lifespan.check("start")
        yield
        await lifespan.shut_down()
        nursery.cancel_scope.cancel()
    lifespan.check("end")


class _Lifespan:
    """One call of an ASGI application with the scope ``lifespan``."""

    def __init__(self, app: Application, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._received = 0
        self._leaving = trio.Event()
        self._over = trio.Event()
        self._status: trio.TaskStatus[None] | None = None
        self._failure: str | None = None
        self._log = logs.get()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Call it; it has started when it says so, or does not know lifespans."""
        self._status = task_status
        scope = {"type": "lifespan", "asgi": _VERSION.copy(), "state": self._state}
        try:
            await self._app.handler(scope, self._receive, self._send)
        except Exception as error:
            if self._failure is not None:
                return  # it has said so
            if self._status is None:
                raise
            self._log.info("no_lifespan", error=summary(error), exception=own_traceback(error))
        finally:
            self._over.set()
            self._started()

    def _started(self) -> None:
        if self._status is not None:
            status, self._status = self._status, None
            status.started()

    async def _receive(self) -> MutableMapping[str, Any]:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        await self._leaving.wait()
        if self._received == 2:
            return {"type": "lifespan.shutdown"}
        await trio.sleep_forever()
        raise AssertionError  # for the type checker

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        match message["type"]:
            case "lifespan.startup.complete":
                self._started()
            case "lifespan.startup.failed":
                self._failure = message.get("message") or "it does not say why"
                self._started()
            case "lifespan.shutdown.complete":
                self._over.set()
            case "lifespan.shutdown.failed":
                self._failure = message.get("message") or "it does not say why"
                self._over.set()
            case other:
                raise RuntimeError(f"{other!r} is no message of a lifespan")

    async def shut_down(self) -> None:
        """Tell it that the worker ends, and wait until it is ready for that."""
        self._leaving.set()
        await self._over.wait()

    def check(self, what: str) -> None:
        """Raise what it has told of a failure; frameworks tell a whole traceback."""
        if self._failure is not None:
            lines = self._failure.strip().splitlines()
            raise ApplicationError(
                f"its lifespan failed to {what}: {lines[-1] if lines else ''}",
                "see the traceback" if len(lines) > 1 else "",
                self._failure if len(lines) > 1 else "",
            )
