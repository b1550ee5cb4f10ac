"""What a worker has published last, as it ends: it is a process, and the test is its master and the
other worker.
"""

from __future__ import annotations

import socket
import time

import pytest

from tests.harness.worker_process import Run, Worker
from wssup.messages import Drain, Peers
from wssup.topics import packets as p

#: Messages, and bytes of each: more than sockets hold.
COUNT, SIZE = 40, 100_000

TRIO = f"""
import wssup

async def app(request):
    ws = await request.accept()
    await ws.get_message()
    for _ in range({COUNT}):
        wssup.publish("t", bytes({SIZE}))
    await ws.send_message("done")
    await ws.get_message()
"""

ASGI = f"""
import wssup

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({{"type": event["type"] + ".complete"}})
            if event["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({{"type": "websocket.accept"}})
    await receive()
    for _ in range({COUNT}):
        wssup.publish("t", bytes({SIZE}))
    await send({{"type": "websocket.send", "text": "done"}})
    await receive()
"""


def published(worker: Worker) -> socket.socket:
    """Have a worker publish, and end; the other worker's end of their link, not read from yet."""
    worker.ready()
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    hello = p.Greeting(p.PROTOCOL, 9, everything=True, history=False, keeper=False, number=0)
    mine.sendall(p.encode(hello) + p.encode(p.Complete()))
    with its:
        worker.tell(Peers([9]), its)
    with worker.client() as client:
        assert client.open().ask("who else is there?") == "done"
        worker.tell(Drain(1012, "restart", 0.0, 30.0))
        assert client.ending().code == 1012
    return mine


@pytest.mark.parametrize("style", ["trio", "uvicorn"])
def test_a_worker_that_ends_is_heard_to_its_end(run: Run, style: str) -> None:
    """What a worker has published before it ends comes to the others, also to one that was not
    reading just then.
    """
    worker = run(TRIO) if style == "trio" else run(ASGI, worker="uvicorn")
    feed, count = p.Feed(), 0
    with published(worker) as link:
        while data := link.recv(1 << 20):
            count += sum(isinstance(packet, p.Published) for packet in feed.feed(data))
    assert worker.ended() == 0
    assert count == COUNT
    assert "bus_not_brought_out" not in worker.events()


def test_a_worker_that_is_heard_slowly(run: Run) -> None:
    """Another worker that reads, however slowly, hears it to its end."""
    worker = run(TRIO)
    feed, count = p.Feed(), 0
    with published(worker) as link:
        while count < COUNT:
            # Longer than somebody is waited for who does not read.
            time.sleep(0.6)
            left = 700_000
            while left > 0:
                data = link.recv(left)
                assert data, "it did not wait"
                left -= len(data)
                count += sum(isinstance(packet, p.Published) for packet in feed.feed(data))
                if count == COUNT:
                    break
    assert worker.ended() == 0
    assert "bus_not_brought_out" not in worker.events()


def test_a_worker_that_nobody_hears_ends_all_the_same(run: Run) -> None:
    """Another worker that does not read keeps none from its end; what it loses is said, and
    counted.
    """
    worker = run(TRIO)
    with published(worker):
        assert worker.ended() == 0
        assert "bus_not_brought_out" in worker.events()
        view = worker.board.read(worker.row)
        assert view is not None
        assert view.counts.topics.bus_lost > 0
