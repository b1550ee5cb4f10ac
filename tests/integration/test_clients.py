"""Real clients on a real instance, with applications of both styles: trio-websocket's, and
websockets' for threads and for asyncio.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed as TrioClosed
from trio_websocket import open_websocket_url
from websockets.asyncio.client import connect as connect_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect, unix_connect

from tests.harness.instance import Instance

Start = Callable[..., Instance]
MIB = 1 << 20

EVENT = """\
class App:
    def on_request(self, request):
        if request.path == "/forbidden":
            request.reject_nowait(401, extra_headers=[(b"WWW-Authenticate", b"Basic")], body=b"no")
        elif "chat" in request.subprotocols:
            request.accept_nowait(subprotocol="chat", extra_headers=[(b"X-Served", b"yes")])

    def on_receive(self, ws, data):
        if data == "close":
            ws.close_nowait(4001, "as you wish")
        else:
            ws.send_nowait(data)

app = App()
"""
ASYNC = """\
import trio

class App:
    async def on_request(self, request):
        await trio.lowlevel.checkpoint()
        if request.path == "/forbidden":
            await request.reject(401, extra_headers=[(b"WWW-Authenticate", b"Basic")], body=b"no")
        elif "chat" in request.subprotocols:
            await request.accept(subprotocol="chat", extra_headers=[(b"X-Served", b"yes")])

    async def on_receive(self, ws, data):
        if data == "close":
            await ws.aclose(4001, "as you wish")
        else:
            await ws.send_message(data)

app = App()
"""
TASK = """\
async def app(request):
    if request.path == "/forbidden":
        await request.reject(401, extra_headers=[(b"WWW-Authenticate", b"Basic")], body=b"no")
        return
    if "chat" in request.proposed_subprotocols:
        ws = await request.accept(subprotocol="chat", extra_headers=[(b"X-Served", b"yes")])
    else:
        ws = await request.accept()
    async for message in ws:
        if message == "close":
            await ws.aclose(4001, "as you wish")
        else:
            await ws.send_message(message)
"""
STYLES = pytest.mark.parametrize(
    "application", [EVENT, ASYNC, TASK], ids=["event", "async", "task"]
)
MESSAGES = [
    "text",
    b"binary",
    "",
    b"",
    "\N{SNOWMAN}\0\N{GRINNING FACE}",
    bytes(range(256)),
    # Around the sizes at which the form of the length changes, and the largest there may be.
    *("x" * size for size in (125, 126, 127, 65_535, 65_536)),
    os.urandom(MIB),
    "\N{SNOWMAN}" * (MIB // 3),
]


def ended(instance: Instance, **reasons: int) -> None:
    """Wait until all have gone, in these ways."""
    status = instance.wait(
        lambda s: (
            s["connections"]["accepted"] >= sum(reasons.values()) and not s["connections"]["open"]
        ),
        "the end of the connections",
    )
    counts = status["connections"]
    kinds = (counts["closed_by_reason"], counts["handshake_failures_by_reason"])
    assert {name: n for kind in kinds for name, n in kind.items() if n} == reasons
    assert counts["handler_errors"] == 0


@STYLES
def test_websockets_in_threads(start: Start, application: str) -> None:
    """The blocking client of websockets: messages of all sizes, in fragments, several threads of
    one connection, pings, subprotocols, refusals, and closing from either side.
    """
    instance = start(application)
    instance.running()
    url = instance.url()
    with connect(url, max_size=None) as ws:
        for message in MESSAGES:
            ws.send(message)
            assert ws.recv() == message
        ws.send(["in", " ", "", "parts"])
        assert ws.recv() == "in parts"
        ws.send(iter([b"x" * 100_000] * 10))
        assert ws.recv() == b"x" * 1_000_000
        pongs = [ws.ping(), ws.ping(b"payload")]
        assert all(pong.wait(20) for pong in pongs)
        senders = [
            threading.Thread(target=lambda n=n: [ws.send(f"{n} {i}") for i in range(50)])
            for n in range(4)
        ]
        for thread in senders:
            thread.start()
        got = [str(ws.recv()).split() for _ in range(200)]
        for thread in senders:
            thread.join()
        for number in range(4):
            assert [int(i) for n, i in got if int(n) == number] == list(range(50))
        ws.close(3000, "done")
    assert (ws.close_code, ws.close_reason) == (3000, "done")
    with connect(url, subprotocols=["news", "chat"], compression=None) as ws:
        assert ws.subprotocol == "chat"
        assert ws.response is not None
        assert ws.response.headers["X-Served"] == "yes"
        ws.send("close")
        with pytest.raises(ConnectionClosed):
            ws.recv()
        assert (ws.close_code, ws.close_reason) == (4001, "as you wish")
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url}forbidden")
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["WWW-Authenticate"] == "Basic"
    assert refused.value.response.body == b"no"
    ended(instance, client=1, server=1, rejected=1)


def test_websockets_over_a_unix_socket(start: Start, tmp_path: Path) -> None:
    """The blocking client on a unix socket, beside TCP."""
    path = tmp_path / "socket"
    instance = start(EVENT, bind=["127.0.0.1:0", f"unix:{path}"])
    instance.running()
    with unix_connect(str(path), "ws://test/") as near, connect(instance.url()) as far:
        for ws in (near, far):
            ws.send("hello")
            assert ws.recv() == "hello"
    ended(instance, client=2)


@STYLES
def test_websockets_on_asyncio(start: Start, application: str) -> None:
    """A hundred clients of websockets on asyncio at once: pipelined messages in order, pings,
    fragments from an async source, and clients that are just cut off.
    """
    instance = start(application)
    instance.running()
    url = instance.url()

    async def parts(number: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a generator
        for part in range(3):
            await asyncio.sleep(0)
            yield f"{number}/{part} "

    async def talk(number: int) -> None:
        async with connect_asyncio(url, proxy=None) as ws:
            for index in range(20):
                await ws.send(f"{number} {index}")
            pong = await ws.ping()
            await ws.send(parts(number))
            assert [await ws.recv() for _ in range(20)] == [f"{number} {i}" for i in range(20)]
            assert await pong < 60
            assert await ws.recv() == f"{number}/0 {number}/1 {number}/2 "
            if number % 10 == 0:
                ws.transport.abort()

    async def everybody() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(talk(number) for number in range(100)))

    asyncio.run(everybody())
    ended(instance, client=90, lost=10)


@STYLES
async def test_trio_websocket(start: Start, application: str) -> None:
    """trio-websocket's client: messages of all sizes, pings, subprotocols, and closing from either
    side, with many connections at once.
    """
    instance = start(application)
    instance.running()
    url = instance.url()

    async def talk(number: int) -> None:
        async with open_websocket_url(url, message_queue_size=30) as ws:
            for index in range(20):
                await ws.send_message(f"{number} {index}")
            await ws.ping()
            assert [await ws.get_message() for _ in range(20)] == [
                f"{number} {index}" for index in range(20)
            ]

    with trio.fail_after(60):
        async with open_websocket_url(url, max_message_size=MIB) as ws:
            for message in MESSAGES:
                await ws.send_message(message)
                assert await ws.get_message() == message
            await ws.aclose(3000, "done")
            assert ws.closed is not None
            assert (ws.closed.code, ws.closed.reason) == (3000, "done")
        async with open_websocket_url(url, subprotocols=["chat"]) as ws:
            assert ws.subprotocol == "chat"
            assert (b"x-served", b"yes") in ws.handshake_headers
            await ws.send_message("close")
            with pytest.raises(TrioClosed) as closed:
                await ws.get_message()
            assert closed.value.reason is not None
            assert (closed.value.reason.code, closed.value.reason.reason) == (4001, "as you wish")
            # The library leaves the socket open when the other side closed first.
            await ws._stream.aclose()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(talk, number)
    await trio.to_thread.run_sync(lambda: ended(instance, client=51, server=1))
