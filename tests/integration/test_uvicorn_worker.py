"""Workers of class uvicorn: HTTP, lifespan and WebSockets of asyncio applications, and all that a
worker must do besides.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed

from tests.harness import processes
from tests.harness.asgi_sides import asked, got, opened
from tests.harness.instance import Instance
from tests.harness.oracle_sockets import counts
from tests.harness.raw import TEXT, Raw, frame, request

Start = Callable[..., Instance]

#: Everything at once: HTTP in all its forms, WebSockets, a lifespan that leaves notes.
FASTAPI = """\
import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

MARK = "original"
journal = Path(__file__).with_name("journal")

def note(text):
    with journal.open("a") as file:
        file.write(f"{text}\\n")

@asynccontextmanager
async def lifespan(app):
    await asyncio.sleep(0)
    note("up")
    yield {"motto": "hello"}
    note("down")

app = FastAPI(lifespan=lifespan)

@app.get("/")
async def index(request: Request):
    return {"motto": request.state.motto, "pid": os.getpid(), "mark": MARK}

@app.get("/thread")
def thread():
    import threading
    return {"main": threading.current_thread() is threading.main_thread()}

@app.get("/stream")
async def stream():
    async def parts():
        for number in range(5):
            yield f"part {number}\\n"
            await asyncio.sleep(0)
    return StreamingResponse(parts())

@app.post("/sum")
async def total(request: Request):
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return {"size": size}

@app.get("/raise")
async def broken():
    raise ValueError("of its own")

@app.get("/slow")
async def slow(background: BackgroundTasks):
    note("slow begun")
    async def afterwards():
        await asyncio.sleep(0.3)
        note("background done")
    background.add_task(afterwards)
    await asyncio.sleep(0.5)
    return {"slow": True}

@app.get("/for-ever")
async def for_ever():
    async def parts():
        while True:
            yield "more"
            await asyncio.sleep(0.01)
    return StreamingResponse(parts())

@app.get("/block")
async def block():
    import time
    note(f"blocked {os.getpid()}")
    time.sleep(3600)

@app.websocket("/ws")
async def chat(ws: WebSocket):
    await ws.accept()
    own = ws.scope["extensions"]["wssup"]
    state = own["state"]
    try:
        while True:
            text = await ws.receive_text()
            state["said"] = state.get("said", 0) + 1
            if text == "who":
                text = f"{os.getpid()} {MARK} {state['said']} {own['resumed']}"
            elif text == "raise":
                raise ValueError("of its own")
            elif text.startswith("join "):
                own["subscribe"](text[5:])
                text = "joined"
            elif text.startswith("publish "):
                import wssup
                wssup.publish(text[8:], "news")
                continue
            await ws.send_text(text)
    except WebSocketDisconnect as end:
        note(f"left {end.code}")
"""


def _journal(instance: Instance) -> list[str]:
    path = instance.home / "journal"
    return path.read_text().splitlines() if path.exists() else []


def _blocked(instance: Instance) -> list[int]:
    """The workers whose loop a handler has blocked."""
    return [int(line.split()[1]) for line in _journal(instance) if line.startswith("blocked ")]


def test_http_and_websockets_on_one_port(start: Start) -> None:
    """A FastAPI application runs as it is: its lifespan's state, threads, streams both ways and
    errors; a connection that has spoken HTTP becomes a WebSocket, with what its client sent before
    the answer; every socket and message is counted; and the shutdown comes after the last one.
    """
    instance = start(FASTAPI, worker="uvicorn", workers=1)
    instance.running()
    address = instance.address()
    pid = instance.workers()[0]
    assert asked(address, "/") == {"motto": "hello", "pid": pid, "mark": "original"}
    assert asked(address, "/thread") == {"main": False}
    assert got(address, "/stream") == (200, b"".join(b"part %d\n" % n for n in range(5)))
    pieces = (b"x" * 10_000 for _ in range(100))
    assert got(address, "/sum", "POST", pieces) == (200, b'{"size":1000000}')
    assert got(address, "/raise")[0] == 500
    assert got(address, "/none")[0] == 404
    assert "of its own" in instance.wait_logged("handler_failed")[0]["error"]
    with Raw(address) as client:
        client.socket.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.head().startswith(b"HTTP/1.1 200")
        while b"0\r\n\r\n" not in client._buffer:
            assert client._more()
        client._buffer = b""
        client.socket.sendall(request("/ws") + frame(TEXT, b"early"))
        assert client.head().startswith(b"HTTP/1.1 101")
        assert client.frame() == (TEXT, b"early")
        assert client.ask("who").split()[0] == str(pid)
        assert counts(instance).active == 1
    with opened(address, "/ws") as ws:
        ws.send("hi")
        assert ws.recv() == "hi"
    processes.until(lambda: counts(instance).open == 0, 20, "all to be closed")
    processes.until(lambda: counts(instance).http_requests == 7, 20, "the requests")
    found = counts(instance)
    assert (found.accepted, found.http_closed, found.upgraded) == (8, 6, 2)
    assert (found.http_errors, found.handler_errors) == (1, 1)
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    assert _journal(instance) == ["up", "left 1006", "left 1000", "down"]


def test_a_stop_waits_for_requests_and_what_they_leave_behind(start: Start) -> None:
    """A request in flight is answered, a background task of it ends, idle kept-alive connections
    are closed at once, and WebSockets get 1001; the shutdown comes last.
    """
    instance = start(FASTAPI, worker="uvicorn", workers=1)
    instance.running()
    address = instance.address()
    with Raw(address) as idle, Raw(address) as busy, opened(address, "/ws") as ws:
        idle.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.head().startswith(b"HTTP/1.1 200")
        busy.socket.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        processes.until(lambda: "slow begun" in _journal(instance), 20, "the request")
        instance.signal(signal.SIGTERM)
        idle.rest()
        answer = busy.head()
        assert answer.startswith(b"HTTP/1.1 200")
        assert busy.rest() == b'{"slow":true}'
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert ws.close_code == 1001
    assert instance.exited() == 0
    noted = _journal(instance)
    assert noted[-1] == "down"
    assert set(noted) == {"up", "slow begun", "background done", "left 1001", "down"}


def test_a_reload_moves_its_websockets(start: Start) -> None:
    """With asgi_resumable a reload moves every WebSocket: its state, its topics and its client go
    on in the new code, while HTTP is answered all the time; nothing is closed.
    """
    instance = start(FASTAPI, worker="uvicorn", asgi_resumable=True, settle=0.1)
    instance.running()
    address = instance.address()
    with ExitStack() as stack:
        people = [stack.enter_context(opened(address, "/ws")) for _ in range(20)]
        for ws in people:
            ws.send("join room")
            assert ws.recv(20) == "joined"
        old = set(instance.workers().values())
        instance.edit('MARK = "original"', 'MARK = "new"')
        reload = instance.launch("reload")
        while reload.poll() is None:
            assert asked(address, "/")["motto"] == "hello"
        assert reload.returncode == 0, instance.logged()
        for ws in people:
            ws.send("who")
            pid, mark, said, resumed = ws.recv(20).split()
            assert (mark, said, resumed) == ("new", "2", "True")
            assert int(pid) not in old
        people[0].send("publish room")
        assert [ws.recv(20) for ws in people] == ["news"] * 20
        found = counts(instance)
        assert (found.moved_in, found.moved_out, found.closed_by_reason["drain"]) == (20, 20, 0)
    assert found.handler_errors == 0
    # Of the first generation each was told of the move, as of an end.
    assert _journal(instance).count("left 1012") == 20


def test_kept_alive_clients_go_along(start: Start) -> None:
    """While an old worker still waits for the new ones to settle, each answer closes a kept-alive
    connection, so that its client goes to the new code; one that asks for nothing is closed when
    the worker drains.
    """
    instance = start(FASTAPI, worker="uvicorn", workers=1, settle=5)
    instance.running()
    address = instance.address()
    instance.edit('MARK = "original"', 'MARK = "new"')
    with Raw(address) as busy, Raw(address) as idle:
        for client in (busy, idle):
            assert _kept(client) == ("original", True)
        reload = instance.launch("reload")
        old = instance.workers()[0]
        processes.until(lambda: not _kept(busy)[1], 60, "an answer that closes")
        assert processes.alive(old)
        busy.rest()
        assert idle.rest() == b""
    assert reload.wait(60) == 0
    assert asked(address, "/")["mark"] == "new"


def _kept(client: Raw) -> tuple[str, bool]:
    """Ask; who answered, and whether the connection is kept."""
    client.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = client.head().lower()
    length = int(head.partition(b"content-length: ")[2].split()[0])
    while len(client._buffer) < length:
        assert client._more()
    body, client._buffer = client._buffer[:length], client._buffer[length:]
    return json.loads(body)["mark"], b"connection: close" not in head


def test_without_asgi_resumable_clients_are_told_to_come_again(start: Start) -> None:
    """A reload closes the WebSockets of an application that did not opt in with 1012."""
    instance = start(FASTAPI, worker="uvicorn", workers=1, settle=0.1)
    instance.running()
    with opened(instance.address(), "/ws") as ws:
        assert instance.run("reload").returncode == 0
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert ws.close_code == 1012
    assert counts(instance).moved_in == 0


def test_a_start_up_that_fails_is_told(start: Start) -> None:
    """A reload to code whose start-up raises, or that is no ASGI application, is refused with the
    reason, and the old code serves on; a first start with it ends with that reason.
    """
    instance = start(FASTAPI, worker="uvicorn", workers=1, failure_budget=1, settle=0.1)
    instance.running()
    instance.edit('    note("up")', '    raise RuntimeError("no database")')
    done = instance.run("reload")
    assert done.returncode == 1
    assert "no database" in done.stdout + done.stderr
    assert asked(instance.address(), "/")["mark"] == "original"
    instance.source.write_text("async def app(request):\n    pass\n")
    done = instance.run("reload")
    assert done.returncode == 1
    assert "no ASGI application" in done.stdout + done.stderr
    assert asked(instance.address(), "/")["mark"] == "original"


def test_a_worker_that_blocks_or_dies_costs_its_own(start: Start) -> None:
    """A handler that blocks the loop stalls its worker: another takes its new connections, and it
    is ended after hang_after; a killed one comes back; and the counts stay true.
    """
    instance = start(FASTAPI, worker="uvicorn", stall_after=0.5, hang_after=4)
    instance.running()
    address = instance.address()
    first = instance.workers()
    with Raw(address) as client:
        client.socket.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
        # On a busy machine the other one may stall for a moment, too.
        processes.until(lambda: _blocked(instance), 20, "a blocked worker")
        (pid,) = _blocked(instance)
        blocked = next(slot for slot in first if first[slot] == pid)
        instance.wait(lambda s: s["slots"][blocked]["lent_to"] is not None, "a loan")
        for _ in range(10):
            assert asked(address, "/")["pid"] != pid
        instance.wait(
            lambda _: instance.workers().get(blocked, first[blocked]) != first[blocked],
            "another worker",
        )
        assert client.rest() == b""
    instance.running()
    with opened(address, "/ws") as ws:
        ws.send("who")
        pid = int(ws.recv(20).split()[0])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
    instance.wait(lambda _: pid not in instance.workers().values(), "another one")
    instance.running()
    assert asked(address, "/")["motto"] == "hello"
    processes.until(lambda: counts(instance).open == 0, 20, "all to be closed")
    assert counts(instance).active == 0


def test_what_does_not_end_is_cut_off(start: Start) -> None:
    """At the end of drain_timeout requests and WebSockets that go on are cut off, and the worker
    ends; without preload it has imported the application itself.
    """
    instance = start(
        FASTAPI,
        worker="uvicorn",
        workers=1,
        preload=False,
        drain_window=0.2,
        drain_timeout=5,
        limits={"close_timeout": 60},
    )
    instance.running()
    address = instance.address()
    with Raw(address) as request_for_ever, Raw(address) as deaf:
        request_for_ever.socket.sendall(b"GET /for-ever HTTP/1.1\r\nHost: x\r\n\r\n")
        assert request_for_ever.head().startswith(b"HTTP/1.1 200")
        deaf.open("/ws")
        instance.signal(signal.SIGTERM)
        request_for_ever.rest()
        deaf.rest()
    assert instance.exited() == 0
    (deadline,) = instance.events("drain_deadline")
    assert deadline["left"] == 2
    assert _journal(instance)[-1] == "down"


def test_single_connections_are_listed_and_closed(start: Start) -> None:
    """The commands about single connections answer as they do for trio workers."""
    instance = start(FASTAPI, worker="uvicorn", workers=1)
    instance.running()
    with opened(instance.address(), "/ws") as ws:
        ws.send("join room")
        assert ws.recv(20) == "joined"
        answer = instance.ask("connections", order="oldest", limit=10)["result"]
        (listed,) = answer["connections"]
        assert (listed["path"], listed["state"], listed["topics"]) == ("/ws", "open", 1)
        closed = instance.run("close", str(listed["id"]), "--code", "4000")
        assert closed.returncode == 0, closed.stderr
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert ws.close_code == 4000
    assert instance.run("publish", "room", "hello").returncode == 0


def test_a_killed_master_leaves_nobody_behind(start: Start) -> None:
    """When the master is killed its workers close their listeners, then tell their clients 1012,
    answer the requests that they have, run the shutdown, and end.
    """
    instance = start(FASTAPI, worker="uvicorn", workers=1)
    instance.running()
    address = instance.address()
    worker = instance.workers()[0]
    with opened(address, "/ws") as ws, Raw(address) as slow:
        slow.socket.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        processes.until(lambda: "slow begun" in _journal(instance), 20, "the request")
        instance.signal(signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert ws.close_code == 1012
        assert slow.head().startswith(b"HTTP/1.1 200")
    processes.until(lambda: not processes.alive(worker), 20, "the worker's end")
    assert _journal(instance)[-1] == "down"
