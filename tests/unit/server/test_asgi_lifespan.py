"""The lifespan of an ASGI application on trio."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.harness.http_client import Message, Receive, Send
from wssup.application import Application, of
from wssup.errors import ApplicationError
from wssup.server.lifespan import running


class App:
    """Does as it is told, and keeps a log.

    :param started: what it says when it has started; ``ended``: when it has ended.
    """

    def __init__(
        self,
        started: Message | None = None,
        ended: Message | None = None,
        error: Exception | None = None,
    ) -> None:
        self.started = started or {"type": "lifespan.startup.complete"}
        self.ended = ended or {"type": "lifespan.shutdown.complete"}
        self.error = error
        self.log: list[str] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        assert scope["asgi"]["version"] == "3.0"
        self.log.append((await receive())["type"])
        scope["state"]["database"] = "there"
        await trio.lowlevel.checkpoint()
        await send(self.started)
        if self.error is not None:
            raise self.error
        self.log.append((await receive())["type"])
        await send(self.ended)
        self.log.append("returned")


async def hold(app: Any, log: list[str]) -> dict[str, Any]:
    """Run an application for a moment; what it has put into the state."""
    state: dict[str, Any] = {}
    application: Application = of("m:app", app)
    with trio.fail_after(15):
        async with running(application, state):
            log.append("serving")
            await trio.testing.wait_all_tasks_blocked()
    return state


async def test_start_and_end() -> None:
    """An application is started before anything is served, and told when all is over."""
    app = App()
    assert await hold(app, app.log) == {"database": "there"}
    assert app.log[:3] == ["lifespan.startup", "serving", "lifespan.shutdown"]


@pytest.mark.parametrize("error", [None, RuntimeError("the same again")])
async def test_a_failed_start(error: Exception | None) -> None:
    """An application that cannot start says why, in a line or in a whole traceback; nothing is
    served. That it raises, too, is not told again.
    """
    text = "Traceback (most recent call last):\n  File x\nKeyError: 'DATABASE'"
    app = App({"type": "lifespan.startup.failed", "message": text}, error=error)
    if error is None:
        app.ended = {"type": "lifespan.shutdown.complete"}
    with pytest.raises((ApplicationError, ExceptionGroup)) as caught:
        await hold(app, app.log)
    told = caught.value
    while isinstance(told, ExceptionGroup):
        (told,) = told.exceptions
    assert isinstance(told, ApplicationError)
    assert told.message == "its lifespan failed to start: KeyError: 'DATABASE'"
    assert told.traceback == text
    assert app.log == ["lifespan.startup"]


async def test_a_failed_end() -> None:
    """An application that could not end well says so."""
    app = App(ended={"type": "lifespan.shutdown.failed", "message": "not saved"})
    with pytest.raises(ApplicationError, match="its lifespan failed to end: not saved"):
        await hold(app, app.log)


async def no_lifespan(scope: Message, receive: Receive, send: Send) -> None:
    assert scope["type"] in {"http", "websocket"}


async def returns(scope: Message, receive: Receive, send: Send) -> None: ...


async def returns_late(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("app", [no_lifespan, returns, returns_late])
async def test_applications_without_one(app: Any) -> None:
    """Who does not know lifespans, and raises or returns, is served all the same."""
    log: list[str] = []
    await hold(app, log)
    assert log == ["serving"]


async def test_a_lifespan_that_fails_while_it_serves() -> None:
    """What it raises after its start ends the worker, as it would be without what it was for."""
    app = App(error=OSError("the database is gone"))
    with pytest.raises(ExceptionGroup) as caught:
        await hold(app, app.log)
    assert caught.group_contains(OSError, match="the database is gone")
