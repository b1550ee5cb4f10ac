"""A whole instance with an ASGI application: its start, its reloads, its workers' deaths."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import pytest
from websockets.exceptions import ConnectionClosed

from tests.harness import processes
from tests.harness.asgi_sides import asked, got, opened
from tests.harness.instance import Instance
from tests.harness.oracle_run import reload
from tests.harness.oracle_sockets import counts
from tests.harness.raw import Raw

Start = Callable[..., Instance]

APP = """\
import os
from contextlib import asynccontextmanager

import anyio
import wssup
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

MARK = "original"


@asynccontextmanager
async def lifespan(app):
    # at the start
    yield {"mark": MARK}


async def index(request):
    worker = wssup.current_worker()
    return JSONResponse({"mark": request.state.mark, "generation": worker.generation})


async def slow(request):
    await anyio.sleep(1.0)
    return await index(request)


async def stream(request):
    async def parts():
        while True:
            yield "again "
            await anyio.sleep(0.01)
    return StreamingResponse(parts())


async def count(websocket):
    own = websocket.scope["extensions"]["wssup"]
    await websocket.accept()
    # when connected
    number = own["state"].setdefault("number", 0)
    async for text in websocket.iter_text():
        number = own["state"]["number"] = own["state"]["number"] + 1
        await websocket.send_text(f"{number} {MARK} {own['resumed']} {text}")


routes = [
    Route("/", index),
    Route("/slow", slow),
    Route("/stream", stream),
    WebSocketRoute("/count", count),
]
app = Starlette(routes=routes, lifespan=lifespan)


def make():
    return app
"""


class Crowd:
    """Clients that ask over HTTP without a pause.

    :ivar seen: how often which generation answered; ``failures`` what else came.
    """

    def __init__(self, address: str) -> None:
        self.seen: Counter[int] = Counter()
        self.failures: list[str] = []
        self.again = 0
        self._address = address
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work)
            for work in (self._anew, self._anew, self._kept, self._kept)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _anew(self) -> None:
        """On a connection of its own each time: none may be refused or cut off."""
        while not self._over.is_set():
            try:
                self.seen[asked(self._address, "/")["generation"]] += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(repr(error))

    def _kept(self) -> None:
        """On one connection, as long as it lasts: one that was closed between two requests is made
        again, as every client does, and the request sent again.
        """
        client = http.client.HTTPConnection(self._address, timeout=30)
        fresh = True
        while not self._over.is_set():
            try:
                client.request("GET", "/")
                answer = client.getresponse()
                body = answer.read()
            except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError) as error:
                if fresh:
                    self.failures.append(repr(error))
                self.again += 1
                client.close()
                fresh = True
                continue
            fresh = answer.will_close
            if answer.status != 200:
                self.failures.append(repr((answer.status, body)))
            time.sleep(0.001)
        client.close()


def _slow(address: str) -> tuple[list[tuple[int, bytes]], threading.Thread]:
    """Ask what takes a second; where the answer will be, and who waits for it."""
    found: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: found.append(got(address, "/slow")))
    thread.start()
    return found, thread


def test_http_through_reloads(start: Start) -> None:
    """Through reloads every request is answered, on new connections and on kept ones; what is
    asked afterwards the new code answers. A slow request is finished by the worker that has it.
    """
    instance = start(APP)
    instance.running()
    address = instance.address()
    with Crowd(address) as crowd:
        for number in (2, 3):
            slow, asking = _slow(address)
            instance.edit(f'"{"original" if number == 2 else "edit 2"}"', f'"edit {number}"')
            reload(instance)
            asking.join()
            assert slow[0][0] == 200
            assert asked(address, "/") == {"mark": f"edit {number}", "generation": number}
    assert crowd.failures == []
    assert set(crowd.seen) == {1, 2, 3}
    found = counts(instance)
    assert found.http_requests >= crowd.seen.total()
    assert found.http_errors == found.handler_errors == 0
    processes.until(lambda: counts(instance).open == 0, 20, "the last connection to end")
    found = counts(instance)
    assert found.accepted == found.http_closed + found.handshake_failures


def test_websockets_through_a_reload(start: Start) -> None:
    """With ``asgi_resumable`` a Starlette application's WebSockets go on in the new code with their
    state; when the setting is gone, they are asked to come again.
    """
    instance = start(APP, asgi_resumable=True)
    instance.running()
    with opened(instance.address(), "/count") as client:

        def ask(text: str) -> str | bytes:
            client.send(text)
            return client.recv(20)

        assert ask("a") == "1 original False a"
        instance.edit('"original"', '"new"')
        reload(instance)
        assert ask("b") == "2 new True b"
        assert ask("c") == "3 new True c"
        found = counts(instance)
        assert (found.moved_in, found.closed, found.handler_errors) == (1, 0, 0)
        instance.reconfigure(asgi_resumable=False)
        reload(instance)
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(20)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
    found = counts(instance)
    assert (found.moved_in, found.handler_errors) == (1, 0)
    assert found.closed_by_reason["drain"] == 1


def test_new_code_that_cannot_start(start: Start) -> None:
    """A reload to code whose lifespan fails, or that is no application any more, leaves the old
    code serving, and says why; so does one to code that fails when clients connect.
    """
    instance = start(APP, settle=60, asgi_resumable=True)
    instance.running()
    with Raw(instance.address()).open("/count") as client:
        for old, new, outcome, reason in (
            ("# at the start", 'raise KeyError("DATABASE")', "rolled_back", "KeyError: 'DATABASE'"),
            ("app = Starlette", "app = 5 or Starlette", "refused", "is int, not a handler"),
        ):
            instance.edit(old, new)
            assert reason in reload(instance, outcome)
            instance.edit(new, old)
            assert client.ask("x").split()[1:3] == ["original", "False"]
        assert asked(instance.address(), "/") == {"mark": "original", "generation": 1}
        instance.edit("# when connected", 'raise LookupError("new")')
        with _knocking(instance):
            assert "LookupError" in reload(instance, "rolled_back") + instance.logged()
        assert client.ask("x").split()[:3] == ["3", "original", "False"]
    assert counts(instance).moved_in == 0


@contextmanager
def _knocking(instance: Instance) -> Iterator[None]:
    """Clients come all the time."""
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            with Raw(instance.address()) as client:
                client.open("/count")
                time.sleep(0.01)

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("settings", "source", "reason"),
    [
        ({}, APP.replace("# at the start", 'raise KeyError("DATABASE")'), "KeyError: 'DATABASE'"),
        ({"factory": True}, APP, "cannot be called without arguments"),
        ({"interface": "task"}, APP, "cannot be called with one argument"),
        ({"root_path": "no/slash"}, APP, "root_path"),
    ],
    ids=["lifespan", "no factory", "no task", "root path"],
)
def test_a_first_start_that_fails(
    start: Start, settings: dict[str, object], source: str, reason: str
) -> None:
    """An application that cannot start, or is not what it is said to be, ends the instance with one
    clear reason.
    """
    instance = start(source, workers=1, failure_budget=1, backoff_min=0.01, **settings)
    assert instance.exited() in {1, 2}
    assert reason in instance.logged()


@pytest.mark.parametrize("preload", [True, False])
def test_a_factory_and_what_it_is_told(start: Start, *, preload: bool) -> None:
    """With ``factory`` the application is what the function returns, imported before the fork or
    after it; ``root_path`` stands before its paths.
    """
    source = (
        APP
        + """

async def where(request):
    return JSONResponse([request.scope["root_path"], request.scope["path"], str(request.url)])

routes.append(Route("/where", where))
app = Starlette(routes=routes, lifespan=lifespan)
"""
    )
    instance = start(
        source,
        app="application:make",
        factory=True,
        interface="asgi",
        root_path="/chat",
        preload=preload,
        workers=1,
    )
    instance.running()
    root, path, url = asked(instance.address(), "/where")
    assert (root, path) == ("/chat", "/chat/where")
    assert url.endswith("/chat/where")
    with opened(instance.address(), "/count") as client:
        client.send("x")
        assert client.recv(20) == "1 original False x"


def test_a_worker_that_is_killed(start: Start) -> None:
    """A worker that dies takes its own connections with it; each of them has exactly one end,
    whatever it was doing: nothing is open that is not.
    """
    limits = {"keep_alive_timeout": 60, "handshake_timeout": 60}
    instance = start(APP, workers=1, limits=limits)
    instance.running()
    address = instance.address()
    host, _, port = address.rpartition(":")
    clients = [socket.create_connection((host, int(port)), 20) for _ in range(6)]
    for client, path in zip(clients, ("/", "/", "/stream", "/stream", "/slow", ""), strict=True):
        if path:
            client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        if path in {"/", "/stream"}:
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    with Raw(address).open("/count") as websocket:
        assert websocket.ask("x")
        processes.until(lambda: counts(instance).open == 7, 20, "all to be accepted")
        (pid,) = instance.workers().values()
        os.kill(pid, signal.SIGKILL)
        assert websocket.rest() == b""
    for client in clients:
        client.close()
    processes.until(lambda: counts(instance).open == 0, 20, "the row to be folded")
    assert asked(address, "/")["generation"] == 1
    processes.until(lambda: counts(instance).open == 0, 20, "the last connection to end")
    found = counts(instance)
    assert found.closed_by_reason["worker_died"] == 1
    assert found.handshake_failures_by_reason["worker_died"] == 6
    assert found.accepted == found.http_closed + found.handshake_failures + found.closed


def test_a_stop_with_streams(start: Start) -> None:
    """A stop waits for requests as long as the window is, ends streams that never would, and exits
    with status 0.
    """
    instance = start(APP, workers=1, drain_window=0.5, drain_timeout=20)
    instance.running()
    address = instance.address()
    with Raw(address) as streaming:
        streaming.socket.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert streaming.head().startswith(b"HTTP/1.1 200 OK")
        slow, asking = _slow(address)
        processes.until(lambda: counts(instance).handler_runs == 2, 20, "both to be asked")
        began = time.monotonic()
        instance.signal(signal.SIGTERM)
        assert instance.exited() == 0
        assert time.monotonic() - began < 15
        asking.join()
        assert slow[0][0] == 200
        streaming.rest()
