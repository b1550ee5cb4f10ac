"""A worker that drains as its connections move: it is a process, and the test is its master and the
worker that takes them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.harness.raw import Raw, endings
from tests.harness.worker_process import PATIENCE, Run, Worker
from wssup.messages import Drain, HandOver, Peers
from wssup.server.handoff import record as records
from wssup.server.handoff.answers import Answer, AnswerKind, pack_answer
from wssup.server.handoff.link import Incoming
from wssup.topics import packets as p

APP = """
import wssup

@wssup.resumable
async def app(request):
    ws = await request.accept()
    async for message in ws:
        if message == "subscribe":
            ws.subscribe("t")
        await ws.send_message(message)
"""


def give(worker: Worker, number: int, *, quota: int = 0, receiver: int = 0) -> socket.socket:
    """Have it hand connections over, everybody or so many; the receiver's end."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    mine.settimeout(PATIENCE)
    with its:
        worker.tell(HandOver(number, records.TOPICS, quota, receiver=receiver), its)
    return mine


def take(end: socket.socket, count: int, kind: AnswerKind = AnswerKind.TAKEN) -> None:
    """Take so many connections, at least, and end them; or say something else."""
    incoming, found = Incoming(end), []
    while len(found) < count:
        # The timeout of the socket; `Incoming` itself does not wait.
        assert end.recv(1, socket.MSG_PEEK)
        arrived = incoming.read()
        assert arrived is not None
        found += arrived
        for _, descriptor in arrived:
            os.close(descriptor)
        end.send(pack_answer(Answer(kind, len(arrived))))


def open_clients(worker: Worker, count: int, word: str = "x") -> list[Raw]:
    clients = [worker.client().open() for _ in range(count)]
    for client in clients:
        assert client.ask(word) == word
    return clients


def test_a_session_that_follows(run: Run) -> None:
    """A receiver is lost as the worker drains: its connections are kept, and go to the next one."""
    worker = run(APP)
    worker.ready()
    clients = open_clients(worker, 5)
    give(worker, 1).close()
    worker.tell(Drain(1012, "restart", 0.0, 60.0, moves=True))
    for client in clients:
        assert client.ask("still") == "still"
    with give(worker, 2) as end:
        take(end, 5)
        assert worker.ended() == 0
    for client in clients:
        assert client.ending().code == 1006
        client.socket.close()
    counts = worker.board.snapshot().total
    assert counts.moved_out == 5
    assert counts.closed_by_reason["drain"] == 0


def test_no_use_in_another_one(run: Run) -> None:
    """A receiver is full: who is left is closed at once, as without a session, although the order
    says that connections move.
    """
    worker = run(APP)
    worker.ready()
    clients = open_clients(worker, 5)
    with give(worker, 1) as end:
        worker.tell(Drain(1012, "restart", 0.0, 300.0, moves=True))
        take(end, 1, AnswerKind.NO_ROOM)
        for client in clients:
            assert client.ending().code == 1012
            client.socket.close()
    assert worker.ended() == 0
    counts = worker.board.snapshot().total
    assert counts.closed_by_reason["drain"] == 5


def test_part_of_them_moves(run: Run) -> None:
    """A session that takes a part is no reason to spare the others."""
    worker = run(APP)
    worker.ready()
    clients = open_clients(worker, 5)
    with give(worker, 1, quota=2) as end:
        worker.tell(Drain(1012, "restart", 0.0, 300.0))
        take(end, 2)
        assert sorted(ending.code for ending in endings(clients)) == [1006] * 2 + [1012] * 3
    for client in clients:
        client.socket.close()
    assert worker.ended() == 0


def test_no_session_follows(run: Run) -> None:
    """Nobody comes to take them: they are closed when only the window is left."""
    worker = run(APP)
    worker.ready()
    clients = open_clients(worker, 2)
    began = time.monotonic()
    worker.tell(Drain(1012, "restart", 0.1, 4.0, moves=True))
    for client in clients:
        ending = client.ending()
        assert ending.code == 1012
        assert ending.at - began >= 3.4
        client.socket.close()
    assert worker.ended() == 0


@contextmanager
def busy_node(worker: Worker, serial: int) -> Iterator[None]:
    """A node of the bus that is alive, and says nothing of what it is asked."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    hello = p.Greeting(p.PROTOCOL, serial, everything=False, history=False, keeper=False, number=0)
    mine.sendall(p.encode(hello) + p.encode(p.Complete()))
    with its:
        worker.tell(Peers([serial]), its)
    over = threading.Event()

    def talk() -> None:
        with suppress(OSError):
            while not over.wait(0.2):
                mine.sendall(p.encode(p.Unmirror(999)))
                with suppress(BlockingIOError):
                    mine.recv(1 << 16, socket.MSG_DONTWAIT)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        yield
    finally:
        over.set()
        mine.shutdown(socket.SHUT_RDWR)
        talker.join()
        mine.close()


def test_who_is_subscribed_moves_in_time(run: Run) -> None:
    """A receiver that is alive, and does not get round to saying that it hears what is published:
    who is subscribed moves when half of the time is over, before the worker would have to close it.
    """
    worker = run(APP)
    worker.ready()
    clients = open_clients(worker, 2, "subscribe")
    with busy_node(worker, 9):
        with give(worker, 1, receiver=9) as end:
            worker.tell(Drain(1012, "restart", 0.0, 8.0, moves=True))
            take(end, 2)
        assert worker.ended() == 0
    for client in clients:
        assert client.ending().code == 1006
        client.socket.close()
    assert worker.events().count("bus_fence_timeout") == 1


def test_who_is_not_subscribed_misses_nothing(run: Run) -> None:
    """The same for connections that are subscribed to nothing: they do not wait, and nobody is
    warned of messages that they could miss.
    """
    worker = run(APP)
    worker.ready()
    clients = open_clients(worker, 2)
    with busy_node(worker, 9), give(worker, 1, receiver=9) as end:
        worker.tell(Drain(1012, "restart", 0.0, 300.0, moves=True))
        take(end, 2)
        assert worker.ended() == 0
    for client in clients:
        client.socket.close()
    assert "bus_fence_timeout" not in worker.events()
