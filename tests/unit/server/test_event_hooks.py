"""The hooks of event-style applications: how they may be written, and what their faults cost."""

from __future__ import annotations

import functools
import time
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import CloseReason, ConnectionClosed

from tests.harness import raw
from tests.harness.ends import frame, with_a_bare_socket
from tests.harness.served import entries, everything, served
from wssup import logs
from wssup.scoreboard import ClosedReason
from wssup.server.connection import Connection
from wssup.server.request import Request

HOOKS = ("on_request", "on_connect", "on_receive", "on_disconnect")
BYE = raw.frame(raw.CLOSE, b"\x03\xe8")
HELLO = raw.frame(raw.TEXT, b"hello")
Log = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    """What was logged since the last look."""
    logs.configure("debug", "json")
    return lambda: entries(capsys.readouterr().err)


def echo_that(
    do: Callable[[], object], hook: str, kind: str, goodbyes: list[int] | None = None
) -> types.SimpleNamespace:
    """An echo one of whose hooks does something more for connections to /it."""

    def plain(subject: Any, *data: Any) -> None:
        if subject.path == "/it":
            do()
        if hook == "on_receive":
            subject.send_nowait(*data)

    async def asynchronous(subject: Any, *data: Any) -> None:
        await trio.lowlevel.checkpoint()
        plain(subject, *data)

    def goodbye(ws: Connection, _code: int) -> None:
        if goodbyes is not None:
            goodbyes.append(ws.id)

    hooks: dict[str, object] = {
        "on_receive": lambda ws, data: ws.send_nowait(data),
        "on_disconnect": goodbye,
    }
    return types.SimpleNamespace(**hooks | {hook: plain if kind == "plain" else asynchronous})


# Faults.


def raising(make: Callable[[], BaseException]) -> Callable[[], None]:
    def do() -> None:
        raise make()

    return do


ERRORS = {
    "ValueError: oh": lambda: ValueError("oh"),
    "SystemExit: 3": lambda: SystemExit(3),
    "ValueError: oh ": lambda: ExceptionGroup("two", [ValueError("oh")]),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("error", ERRORS)
async def test_a_hook_that_raises(
    tmp_path: Path, hook: str, kind: str, error: str, log: Log
) -> None:
    """Whatever a hook raises is logged once, with the hook's name and the application's own
    traceback, and ends its connection alone: status 500 before it is accepted, code 1011 then.
    on_disconnect is still called.
    """
    goodbyes: list[int] = []
    application = echo_that(raising(ERRORS[error]), hook, kind, goodbyes)
    async with served(tmp_path, application, close_timeout=0.1) as server:
        other = await with_a_bare_socket(server)
        stream = await server.open()
        await stream.send_all(raw.request("/it") + HELLO)
        if hook == "on_disconnect":
            await stream.send_all(BYE)
        answer = await everything(stream)
        assert answer.startswith(b"HTTP/1.1 " + (b"500 " if hook == "on_request" else b"101 "))
        if hook != "on_request":
            last = b"\x88\x02\x03\xe8" if hook == "on_disconnect" else b"\x03\xf3internal error"
            assert answer.endswith(last)
        await server.until(lambda c: c.open == 1)
        await other.send_all(HELLO)
        assert await frame(other) == (raw.TEXT, b"hello")
        await other.send_all(BYE)
        await everything(other)
        await server.engine.wait_empty()
        assert server.counts.handler_errors == 1
        assert len(goodbyes) == {"on_request": 1, "on_disconnect": 0}.get(hook, 2)
    (told,) = [line for line in log() if line["event"] == "handler_failed"]
    assert (told["level"], told["hook"]) == ("error", hook)
    assert told["error"] == error.strip()
    assert "raise make()" in told["exception"]
    assert "wssup/server" not in told["exception"]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_on_request_that_raises_after_accepting(tmp_path: Path, kind: str) -> None:
    """Then the client was let in, and is closed with 1011; on_connect is not called for it any
    more, on_disconnect is.
    """
    called: list[str] = []

    class Plain:
        def on_request(self, request: Request) -> None:
            request.accept_nowait()
            raise ValueError("oh")

        def on_connect(self, ws: Connection) -> None:
            called.append(f"connect {ws.id}")

        def on_disconnect(self, ws: Connection, code: int) -> None:
            called.append(f"disconnect {ws.path} {code}")

    class Async(Plain):
        async def on_request(self, request: Request) -> None:  # type: ignore[override]
            await request.accept()
            raise ValueError("oh")

    application = Plain() if kind == "plain" else Async()
    async with served(tmp_path, application, close_timeout=0.1) as server:
        stream, _ = await server.send(raw.request())
        await everything(stream)
        await server.ended(error=1)
    assert called == ["disconnect / 1011"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_closed_is_no_error(tmp_path: Path, hook: str, kind: str, log: Log) -> None:
    """ConnectionClosed, of another connection that a hook sends to, is not the hook's error. A
    client whose on_request ends with it is answered all the same.
    """
    closed = raising(lambda: ConnectionClosed(CloseReason(1006, None)))
    async with served(tmp_path, echo_that(closed, hook, kind), close_timeout=0.1) as server:
        stream = await server.open()
        await stream.send_all(raw.request("/it") + HELLO + BYE)
        with trio.fail_after(15):
            answer = await everything(stream)
        if hook == "on_request":
            assert answer.startswith(b"HTTP/1.1 403 ")
        else:
            assert answer.endswith(b"\x88\x02\x03\xe8")
        await server.until(lambda c: not c.open)
        await server.engine.wait_empty()
        assert server.counts.handler_errors == 0
    # A process that is taken away amid a hook takes that for one that blocks.
    told = [line for line in log() if line["event"] != "application_blocks"]
    assert {line["level"] for line in told} <= {"debug", "info"}


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_plain_hook_that_blocks(tmp_path: Path, hook: str, log: Log) -> None:
    """A plain hook that keeps the whole worker waiting is named in the log, with how long it took
    and what to do.
    """
    whole = echo_that(lambda: time.sleep(0.15), hook, "plain")
    application = types.SimpleNamespace(**{hook: getattr(whole, hook)})
    async with served(tmp_path, application) as server:
        stream = await server.open()
        await stream.send_all(raw.request("/it") + HELLO + BYE)
        await everything(stream)
        await server.ended(client=1)
    (told,) = [line for line in log() if line["event"] == "application_blocks"]
    assert (told["level"], told["hook"]) == ("warning", hook)
    assert told["seconds"] >= 0.1
    assert "async def" in told["hint"]


# The end of the worker.


async def test_abort_all(tmp_path: Path) -> None:  # noqa: C901 - a hook of each kind
    """When what is left is cut off, hooks are cancelled where they wait, nobody has to wait for
    them, and on_disconnect is begun exactly once for each connection that was accepted.
    """

    class Application:
        def __init__(self) -> None:
            self.connected: set[int] = set()
            self.goodbyes: Counter[int] = Counter()
            self.cancelled = 0

        async def _wait(self) -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                self.cancelled += 1
                raise

        async def on_request(self, request: Request) -> None:
            if request.path == "/pending":
                await self._wait()

        async def on_connect(self, ws: Connection) -> None:
            self.connected.add(ws.id)
            if ws.path == "/connecting":
                await self._wait()

        async def on_receive(self, ws: Connection, data: str) -> None:
            assert (ws.path, data) == ("/receiving", "hello")
            await self._wait()

        async def on_disconnect(self, ws: Connection, code: int) -> None:
            assert code == (1000 if ws.path == "/leaving" else 1006)
            self.goodbyes[ws.id] += 1
            if ws.path == "/leaving":
                await self._wait()
            await trio.lowlevel.checkpoint()

    paths = ["/", "/pending", "/connecting", "/receiving", "/leaving"] * 2
    for _ in range(8):
        application = Application()
        async with served(tmp_path, application) as server:
            streams = [await server.open() for _ in paths]
            for stream, path in zip(streams, paths, strict=True):
                await stream.send_all(raw.request(path))
                if path == "/receiving":
                    await stream.send_all(HELLO)
                elif path == "/leaving":
                    await stream.send_all(BYE)
            await server.until(
                lambda c, app=application: (
                    len(app.connected) == 8 and c.messages_in == 2 and len(app.goodbyes) == 2
                )
            )
            server.engine.abort_all(ClosedReason.DEADLINE)
            with trio.fail_after(15):
                await server.ended(deadline=6, draining=2, client=2)
            for stream in streams:
                await stream.aclose()
        assert application.cancelled == 8
        assert application.goodbyes == dict.fromkeys(application.connected, 1)


async def test_the_end_waits_for_goodbyes(tmp_path: Path) -> None:
    """A worker that drains is empty when the last on_disconnect has returned."""
    done = trio.Event()

    class Application:
        async def on_disconnect(self, ws: Connection, code: int) -> None:
            assert (ws.is_closed, code) == (True, 1012)
            await trio.sleep(0.05)
            done.set()

    async with served(tmp_path, Application()) as server:
        stream = await with_a_bare_socket(server)
        server.engine.close_all(1012, "", ClosedReason.DRAIN, 0)
        assert (await frame(stream))[0] == raw.CLOSE
        await stream.aclose()
        await server.engine.wait_empty()
        assert done.is_set()
        await server.ended(drain=1)


# What may be an application.


class Given:
    """Hooks of all ways to write them."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.on_receive = functools.partial(self._receive, "partial")

    async def _receive(self, how: str, ws: Connection, data: str) -> None:
        await trio.lowlevel.checkpoint()
        self.got.append(f"{how} {data}")
        ws.send_nowait("ok")

    class OnConnect:
        """An object that can be called."""

        async def __call__(self, ws: Connection) -> None:
            await trio.lowlevel.checkpoint()
            ws.send_nowait("connected")

    on_connect = OnConnect()

    @staticmethod
    def on_request(request: Request, *more: object, **others: object) -> None:
        request.connection.state["seen"] = (more, others)


async def test_ways_to_write_a_hook(tmp_path: Path) -> None:
    """Hooks may be static, partial, and objects that can be called, also async ones."""
    application = Given()
    with trio.fail_after(15):
        async with served(tmp_path, application) as server:
            ws = await server.connect()
            await ws.send_message("x")
            assert [await ws.get_message(), await ws.get_message()] == ["connected", "ok"]
            await ws.aclose()
            await server.ended(client=1)
    assert application.got == ["partial x"]


async def test_a_hook_that_is_decorated(tmp_path: Path) -> None:
    """A plain function that wraps an async one (functools.wraps) is as async as that."""

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: object) -> Any:
            return function(*arguments)

        return wrapper

    class Application:
        @logged
        async def on_receive(self, ws: Connection, data: str) -> None:
            await ws.send_message(data)

    with trio.fail_after(15):
        async with served(tmp_path, Application()) as server:
            ws = await server.connect()
            await ws.send_message("x")
            assert await ws.get_message() == "x"
            await ws.aclose()
