"""wssup's worker class in a real gunicorn."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.harness import processes
from tests.harness.clients import aside, ask, connected, crowd, prober
from tests.harness.gunicorn import Gunicorn
from tests.harness.ports import free_port

Start = Callable[..., Gunicorn]

HOOKS = """\
import os

graceful_timeout = 10
raw_env = ["WSSUP_DRAIN_WINDOW=0.5s"]
forwarded_allow_ips = "127.0.0.1"


def note(text):
    with open("hooks", "a") as file:
        file.write(text + "\\n")


def post_fork(server, worker):
    note("post_fork")

def post_worker_init(worker):
    note("post_worker_init")

def pre_request(worker, req):
    note(f"pre_request {req.method} {req.path} {dict(req.headers)['HOST']}")

def post_request(worker, req, environ, resp):
    note(f"post_request {req.path}")

def worker_int(worker):
    note("worker_int")

def worker_abort(worker):
    note(f"worker_abort {worker.pid}")

def worker_exit(server, worker):
    note("worker_exit")
"""


NO_DATABASE = """\
from contextlib import asynccontextmanager

async def app(request): ...

@asynccontextmanager
async def lifespan():
    raise OSError("no database")
    yield
"""


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Start]:
    """Start gunicorns; whatever they still run is killed at the end of the test."""
    started: list[Gunicorn] = []

    def starting(*arguments: str, config: str = "", **how: object) -> Gunicorn:
        if config:
            (tmp_path / "gunicorn.conf.py").write_text(config)
        started.append(Gunicorn(tmp_path, *arguments, **how))  # type: ignore[arg-type]
        return started[-1]

    yield starting
    for each in started:
        each.end()
        print(each.logged()[-6000:])  # noqa: T201 - pytest shows it when the test failed


async def closing(url: str, message: str = "") -> int:
    """Say something, and wait for the end: the code of the close."""
    async with connected(url) as ws:
        if message:
            await ws.send_message(message)
        try:
            while True:
                await ws.get_message()
        except ConnectionClosed as closed:
            return closed.reason.code if closed.reason else 1006


async def test_a_reload_and_an_end(gunicorn: Start, tmp_path: Path) -> None:
    """HUP brings new code without a failed handshake; clients of the old workers are told 1012. A
    client that does not answer is cut off before the arbiter would kill. Requests and workers
    begin and end with gunicorn's hooks, which see what was asked for. With TERM it ends as it
    should, within graceful_timeout.
    """
    served = gunicorn(config=HOOKS)
    url = served.url()
    first = served.ready()
    assert (await ask(url, "who")).endswith("original")
    assert (await _head(url, "/forbidden")).startswith(b"HTTP/1.1 403")
    async with crowd(url, 20) as people, prober(url, 1) as probing:
        source = tmp_path / "application.py"
        source.write_text(source.read_text().replace('"original"', '"changed"'))
        deaf = await trio.open_tcp_stream(*_host_port(url))
        await deaf.send_all(_handshake("/deaf"))
        assert (await deaf.receive_some(99)).startswith(b"HTTP/1.1 101")
        served.signal(signal.SIGHUP)
        await people.wait(lambda: not people.live, "all to be told")
        await aside(processes.until, lambda: not first & served.workers(), 30, "the old to end")
        await probing.rounds(2)
        await deaf.aclose()
    assert people.codes == {1012: 20}
    assert not probing.failures
    assert probing.answers[-1].endswith("changed")
    second = served.ready()
    served.signal(signal.SIGTERM)
    assert await aside(served.exited) == 0
    assert served.notes("end") == first | second
    assert "out of memory" not in served.logged()
    hooks = (tmp_path / "hooks").read_text().splitlines()
    for hook in ("post_fork", "post_worker_init", "worker_exit"):
        assert hooks.count(hook) == 4, hook
    asked = [line for line in hooks if line.startswith("pre_request")]
    ended = [line for line in hooks if line.startswith("post_request")]
    assert "pre_request GET /forbidden localhost" in asked
    assert "post_request /forbidden" in ended
    assert len(asked) == len(ended)


async def test_requests_are_counted(gunicorn: Start) -> None:
    """After max_requests handshakes a worker makes room for another one; who is connected to it is
    told. Limits and the heartbeat are set with wssup's own settings. Each worker has a listener of
    its own with reuse_port, and what waits there when it ends is still served.
    """
    served = gunicorn(
        *("--max-requests", "6", "--max-requests-jitter", "0", "--reuse-port"),
        *("--env", "WSSUP_LIMITS_MESSAGE_BYTES=100", "--env", "WSSUP_DRAIN_WINDOW=0.5s"),
        workers=1,
        bind=f"127.0.0.1:{free_port()}",
    )
    url = served.url()
    (first,) = served.ready(1)
    assert await closing(url, "x" * 101) == 1009
    async with crowd(url, 3) as people:
        assert await ask(url, "who") == f"{first} original"
        # Its handshake begins the drain, in which it may be the first.
        assert await _answer(url, "who") in {f"{first} original", None}
        await people.wait(lambda: not people.live, "the worker to end")
    assert people.codes == {1012: 3}
    await aside(processes.until, lambda: first not in served.workers(), 30, "it to end")
    (second,) = served.ready(1)
    assert await ask(url, "who") == f"{second} original"
    assert "Autorestarting worker" in served.logged()
    os.kill(second, signal.SIGSTOP)
    waiting = [await trio.open_tcp_stream(*_host_port(url)) for _ in range(60)]
    for stream in waiting:
        await stream.send_all(_handshake("/"))
    os.kill(second, signal.SIGTERM)
    os.kill(second, signal.SIGCONT)
    for stream in waiting:
        async with stream:
            with trio.fail_after(20):
                assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101")


async def test_a_worker_that_hangs(gunicorn: Start, tmp_path: Path) -> None:
    """A worker whose loop does not turn for timeout is ended by the arbiter and says in the log
    where it stood; another one serves meanwhile. When gunicorn is to stop fast, clients are told
    1001 at once.
    """
    served = gunicorn("--timeout", "6", config=HOOKS)
    url = served.url()
    served.ready()
    hung = 0
    async with connected(url) as ws:
        await ws.send_message("who")
        hung = int(str(await ws.get_message()).split()[0])
        await ws.send_message("hang")
        with pytest.raises(ConnectionClosed):
            await ws.get_message()
    await aside(served.wait_logged, "WORKER TIMEOUT")
    processes.until(lambda: hung not in served.workers(), 20, "it to end")
    served.ready()
    assert f"worker_abort {hung}" in (tmp_path / "hooks").read_text()
    assert "time.sleep(1000)" in served.logged() or 'application.py", line' in served.logged()
    assert (await ask(url, "who")).endswith("original")
    async with trio.open_nursery() as nursery:
        codes: list[int] = []

        async def client() -> None:
            codes.append(await closing(url, "hello"))

        nursery.start_soon(client)
        nursery.start_soon(client)
        await ask(url)
        served.signal(signal.SIGQUIT)
    assert codes == [1001, 1001]
    assert await aside(served.exited) == 0
    assert "worker_int" in (tmp_path / "hooks").read_text()


async def test_the_arbiter_dies(gunicorn: Start) -> None:
    """Workers whose arbiter was killed let go of its addresses, tell their clients, and end."""
    served = gunicorn(
        *("--env", "WSSUP_DRAIN_WINDOW=0.2s", "--preload"), app="application:make('preloaded')"
    )
    url = served.url()
    workers = served.ready()
    assert (await ask(url, "who")).endswith("preloaded")
    async with crowd(url, 4) as people:
        os.kill(served.pid, signal.SIGKILL)
        await people.wait(lambda: not people.live, "all to be told")
    assert people.codes == {1012: 4}
    for pid in workers:
        processes.until(lambda pid=pid: not processes.alive(pid), 20, "the workers to end")
        processes.reap(pid)
    host, port = _host_port(url)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((host, port))


@pytest.mark.parametrize("app", ["events", "async_events"])
async def test_objects_with_hooks(gunicorn: Start, tmp_path: Path, app: str) -> None:
    """An event-style application is served, counted and told of, too: its hooks are called besides
    gunicorn's, whether they are async or not, and who is turned away is told of as well.
    """
    served = gunicorn(config=HOOKS + "max_requests = 4\n", app=f"application:{app}")
    url = served.url()
    served.ready()
    assert (await _head(url, "/forbidden")).startswith(b"HTTP/1.1 403")
    assert await ask(url, "hello") == "hello"
    hooks = tmp_path / "hooks"
    for line in ("post_request /forbidden\n", "post_request /\n"):
        await aside(processes.until, lambda line=line: line in hooks.read_text(), 10, line)
    assert "pre_request GET / " in hooks.read_text()
    assert "pre_request GET /forbidden " in hooks.read_text()
    assert bool(served.notes("gone1000")) is (app == "async_events")
    answers = [await _answer(url, "who") for _ in range(8)]
    assert len({*answers} - {None}) >= 2
    # Of four handshakes the last one begins the drain of its worker, in which it may be the first.
    assert answers.count(None) <= 2


async def _answer(url: str, message: str) -> str | None:
    """What it answers; None if the connection was drained before it did."""
    async with connected(url) as ws:
        try:
            await ws.send_message(message)
            answer = await ws.get_message()
            await ws.aclose()
        except ConnectionClosed as closed:
            if closed.reason is None or closed.reason.code != 1012:
                raise
            return None
    return str(answer)


STARLETTE = """\
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute


@asynccontextmanager
async def lifespan(app):
    Path("begun").touch()
    yield {"word": "hello"}
    Path("ended").touch()


async def page(request):
    where = f"{request.client.host} {request.url.scheme}"
    return PlainTextResponse(f"{request.state.word} {where} {request.query_params['q']}")


async def talk(ws):
    await ws.accept()
    await ws.send_text(f"{ws.state.word} {ws.client.host} {ws.url.scheme}")
    await ws.close()


application = Starlette(
    routes=[Route("/page", page), WebSocketRoute("/", talk)], lifespan=lifespan
)
"""


async def test_asgi_applications(gunicorn: Start, tmp_path: Path) -> None:
    """An ASGI application has its lifespan, HTTP and WebSockets on one port; a trusted proxy
    (forwarded_allow_ips) says who its clients are; requests of HTTP are requests, too.
    """
    (tmp_path / "application.py").write_text(STARLETTE)
    served = gunicorn(config=HOOKS, app="application", workers=1)
    host, port = _host_port(served.url())
    await aside(processes.until, (tmp_path / "begun").exists, 60, "it to begin")
    proxied = b"X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n"
    async with await trio.open_tcp_stream(host, port) as stream:
        for query in (b"one", b"two"):
            await stream.send_all(b"GET /page?q=%b HTTP/1.1\r\nHost: h\r\n" % query + proxied)
            answer = b""
            while not answer.endswith(query):
                answer += await stream.receive_some(4096)
            assert answer.endswith(b"hello 192.0.2.7 https " + query)
        await stream.send_all(_handshake("/").removesuffix(b"\r\n") + proxied)
        answer = b""
        while b"hello" not in answer:
            answer += await stream.receive_some(4096)
        assert b"hello 192.0.2.7 wss" in answer
    served.signal(signal.SIGTERM)
    assert await aside(served.exited) == 0
    assert (tmp_path / "ended").exists()
    hooks = (tmp_path / "hooks").read_text().splitlines()
    asked = [line.removesuffix(" h").removesuffix(" localhost") for line in hooks]
    assert asked.count("pre_request GET /page") == 2
    assert asked.count("post_request /page") == 2
    assert asked.count("post_request /") == 1


@pytest.mark.parametrize(
    ("source", "arguments", "status", "said"),
    [
        ("import nothing_of_that_name", [], 4, "No module named 'nothing_of_that_name'"),
        ("app = 7", [], 4, "application:app is int"),
        (NO_DATABASE, [], 3, "no database"),
        ("async def app(request): ...", ["--certfile", "c", "--keyfile", "c"], 3, "TLS"),
        ("async def app(request): ...", ["--env", "WSSUP_WORKES=1"], 3, "did you mean"),
    ],
)
def test_what_ends_gunicorn(
    gunicorn: Start, tmp_path: Path, *, source: str, arguments: list[str], status: int, said: str
) -> None:
    """What no restart can mend ends gunicorn, and the log says why."""
    (tmp_path / "c").touch()
    (tmp_path / "application.py").write_text(source)
    served = gunicorn(*arguments, workers=1)
    assert served.exited() == status
    assert said in served.logged()


def _handshake(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def _head(url: str, path: str) -> bytes:
    async with await trio.open_tcp_stream(*_host_port(url)) as stream:
        await stream.send_all(_handshake(path))
        return bytes(await stream.receive_some(4096))


def _host_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("ws://").rstrip("/").partition(":")
    return host, int(port)
