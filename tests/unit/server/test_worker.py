"""What a worker does that its master asks for: it is a process, and its master is the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

from tests.harness import kernel, processes
from tests.harness.processes import state, until
from tests.harness.raw import ABNORMAL, request
from tests.harness.worker_process import PATIENCE, Run, listening
from wssup import channel
from wssup.messages import (
    Accept,
    Admit,
    Drain,
    Leaving,
    Listen,
    Ready,
    Unlisten,
)


def test_it_serves_holds_and_serves_again(run: Run) -> None:
    """A worker says its name and that it is ready, serves, and knows who it is; told to hold it
    keeps its connections and leaves new ones in the queue; told to accept again it takes those.
    """
    worker = run()
    worker.ready()
    with worker.client() as first:
        assert first.open().ask("who") == f"test 3 7 {worker.process.pid}"
        worker.tell(Accept(False))
        worker.until(lambda row: not row.accepting)
        with worker.client() as second:
            second.socket.sendall(request())
            for _ in range(10):
                assert first.ask("still") == "still"
            worker.until(lambda row: row.counts.accepted == 1)
            worker.tell(Accept(True))
            assert second.head().startswith(b"HTTP/1.1 101 ")
            assert second.ask("hello") == "hello"


def test_a_mate_that_goes_leaves_its_places(run: Run) -> None:
    """Where the slot's other worker has all places, clients wait; when that one is gone with all it
    had, they are taken, though nothing of this worker's own was closed.
    """
    worker = run()
    worker.ready()
    mate = worker.board.allocate(2, 3, 7)
    writer = worker.board.writer(mate)
    for _ in range(2):
        writer.accepted()
    worker.tell(Admit(2, 0.0))
    worker.until(lambda row: row.admits == 2)
    with worker.client() as waiting:
        waiting.socket.sendall(request())
        until(lambda: "connection_limit" in worker.events(), 60, "the limit")
        worker.board.fold(mate)
        assert waiting.head().startswith(b"HTTP/1.1 101 ")


def test_listeners_that_it_is_lent(run: Run) -> None:
    """A worker serves another slot's listener from when it is lent until it is taken back, and its
    own all the while; what came through it stays.
    """
    worker = run()
    worker.ready()
    with listening() as lent, worker.client(lent) as early:
        worker.tell(Listen(5, ["theirs"]), lent)
        assert early.open().ask("hello") == "hello"
        worker.tell(Unlisten(5, ["theirs"]))
        # Both ways lead through one worker: an answer on its own listener comes after the order.
        with worker.client() as own:
            assert own.open().ask("mine") == "mine"
        accepted = worker.board.snapshot().total.accepted
        with worker.client(lent) as late:
            late.socket.sendall(request())
            assert early.ask("still") == "still"
            with worker.client() as own:
                assert own.open().ask("mine") == "mine"
            assert worker.board.snapshot().total.accepted == accepted + 1
            lent.settimeout(PATIENCE)
            lent.accept()[0].close()


def test_drain(run: Run) -> None:
    """Told to drain, a worker closes its listeners and tells every client the code and reason of
    the order, then leaves with status 0; listeners that come later are closed.
    """
    worker = run()
    worker.ready()
    clients = [worker.client().open() for _ in range(5)]
    with listening() as lent:
        worker.tell(Drain(1001, "bye", 0.2, 10))
        worker.tell(Listen(5, ["theirs"]), lent)
        for client in clients:
            assert client.ending().code == 1001
            client.socket.close()
    assert worker.ended() == 0
    counts = worker.board.snapshot().total
    assert (counts.open, counts.closed_by_reason["stop"]) == (0, 5)
    with worker.client() as waiting:
        # The queue is ours again: nobody else accepts from it, and nothing was reset.
        worker.listener.settimeout(PATIENCE)
        worker.listener.accept()[0].close()
        waiting.socket.close()


def test_a_drain_that_waits(run: Run) -> None:
    """An order that waits leaves clients alone until only its window, and the time they have to
    answer, are left of the timeout.
    """
    worker = run()
    worker.ready()
    with worker.client() as client:
        client.open()
        began = time.monotonic()
        worker.tell(Drain(1012, "restart", 0.1, 6, wait=True))
        ending = client.ending()
        assert ending.code == 1012
        assert ending.at - began >= 5.3
    assert worker.ended() == 0


def test_a_drain_that_has_nobody_to_wait_for(run: Run) -> None:
    """A worker that waits for its clients leaves as soon as they have all gone by themselves."""
    worker = run()
    worker.ready()
    with worker.client() as client:
        client.open()
        worker.tell(Drain(1012, "restart", 500, 1000, wait=True))
        worker.until(lambda row: not row.accepting)
        assert client.ask("still") == "still"
        assert client.close().code == 1000
    assert worker.ended() == 0


def test_a_later_order_replaces_an_earlier_one(run: Run) -> None:
    """A worker that drains slowly is told to be quick, and is."""
    worker = run()
    worker.ready()
    with worker.client() as client:
        client.open()
        worker.tell(Drain(1012, "restart", 1000, 2000, wait=True))
        worker.until(lambda row: not row.accepting)
        worker.tell(Drain(1001, "stop", 0, 5))
        assert client.ending().code == 1001
    assert worker.ended() == 0


def test_an_order_that_was_replaced_is_over(run: Run) -> None:
    """Once a later order has come, the earlier one closes nobody any more."""
    worker = run()
    worker.ready()
    clients = [worker.client().open() for _ in range(4)]
    # Sent together, they are read together: the first has no time to close anybody.
    worker.process.send_signal(signal.SIGSTOP)
    until(lambda: state(worker.process.pid) == "T", PATIENCE, "the worker to stop")
    worker.tell(Drain(1012, "restart", 0.1, 1000))
    worker.tell(Drain(1001, "stop", 500, 1000, wait=True))
    worker.process.send_signal(signal.SIGCONT)
    window_ends = time.monotonic() + 0.5
    while time.monotonic() < window_ends:
        for client in clients:
            assert client.ask("still") == "still"
    worker.tell(Drain(1001, "stop", 0, 100))
    for client in clients:
        assert client.ending().code == 1001
        client.socket.close()
    assert worker.ended() == 0


def test_listeners_that_come_too_late_are_closed(run: Run) -> None:
    """A worker that drains keeps no listener it is sent, or that slot's queue would not end."""
    worker = run()
    worker.ready()
    with listening() as lent, worker.client() as client:
        client.open()
        name = os.readlink(f"/proc/self/fd/{lent.fileno()}")  # noqa: PTH115 - no path

        def held() -> bool:
            return name in kernel.holds(worker.process.pid)

        worker.tell(Listen(5, ["theirs"]), lent)
        until(held, PATIENCE, "the worker to have the listener")
        worker.tell(Drain(1012, "restart", 0.1, 1000, wait=True))
        until(lambda: not held(), PATIENCE, "the worker to close its listeners")
        for _ in range(5):
            worker.tell(Listen(5, ["theirs"]), lent)
        # What it answers to comes after what it was sent before.
        worker.tell(Ready(1.0))
        until(lambda: "unexpected_message" in worker.events(), PATIENCE, "the last message")
        assert not held()


def test_the_deadline_of_a_drain(run: Run) -> None:
    """Clients that answer nothing, and those that never finish their handshake, are cut off at the
    timeout, and counted as that.
    """
    worker = run()
    worker.ready()
    with worker.client() as deaf, worker.client() as half:
        deaf.open()
        half.socket.sendall(request()[:20])
        worker.until(lambda row: row.counts.open == 2)
        worker.tell(Drain(1012, "restart", 0, 0.3))
        assert worker.ended() == 0
    assert "drain_deadline" in worker.events()
    counts = worker.board.snapshot().total
    assert counts.open == 0
    assert counts.closed == counts.handshake_failures == 1
    assert counts.handshake_failures_by_reason["draining"] == 1


def test_a_signal_of_its_own(run: Run) -> None:
    """On SIGTERM a worker says that it leaves and drains by its settings, once."""
    worker = run(drain_window="100ms", drain_timeout="10s")
    worker.ready()
    with worker.client() as client:
        client.open()
        for _ in range(2):
            worker.process.send_signal(signal.SIGTERM)
        assert worker.hear() == Leaving("SIGTERM")
        assert client.ending().code == 1012
    assert worker.ended() == 0
    assert channel.receive(worker.end) is None


def test_the_master_dies(run: Run) -> None:
    """At end of file a worker closes its listeners before it tells its clients 1012, and leaves:
    whoever comes next can have the address at once.
    """
    worker = run(drain_window="500ms")
    worker.ready()
    with worker.client() as client:
        client.open()
        worker.end.close()
        name = worker.listener.getsockname()
        worker.listener.close()
        again: list[socket.socket] = []

        def free() -> bool:
            with contextlib.suppress(OSError):
                again.append(socket.create_server(name))
            return bool(again)

        processes.until(free, PATIENCE, "the address")
        with again[0]:
            assert worker.process.poll() is None, "it left before its clients were told"
            assert client.ending().code == 1012
        assert worker.ended() == 0


def test_a_message_that_is_none(run: Run) -> None:
    """A message that a worker knows but does not expect is logged, and it serves on."""
    worker = run()
    worker.ready()
    worker.tell(Ready(1.0))
    with worker.client() as client:
        assert client.open().ask("still") == "still"
    assert "unexpected_message" in set(worker.events())


def test_a_lost_message_ends_the_worker(run: Run) -> None:
    """After a datagram that is not understood, which may have been a loan, the worker drains."""
    worker = run()
    worker.ready()
    worker.end.send(b"\xc1")
    assert isinstance(worker.hear(), Leaving)
    assert worker.ended() == 0
    assert "message_lost" in set(worker.events())


def test_heartbeats(run: Run) -> None:
    """The row says again and again that the loop turns, and what traffic there was."""
    worker = run(stall_after="200ms")
    worker.ready()
    with worker.client() as client:
        client.open().ask("hello")
        view = worker.board.read(worker.row)
        assert view is not None
        seen = view.heartbeat_ns
        worker.until(lambda row: row.heartbeat_ns > seen and row.counts.messages_in == 1)
        assert worker.board.snapshot().total.messages_out == 1


def test_killed_it_leaves_its_clients_a_plain_end(run: Run) -> None:
    """Clients of a worker that is killed see their connection end; what it had counted stands."""
    worker = run()
    worker.ready()
    with worker.client() as client:
        client.open().ask("hello")
        worker.process.kill()
        assert client.ending().code == ABNORMAL
    counts = worker.board.fold(worker.row)
    assert (counts.accepted, counts.closed_by_reason["worker_died"]) == (1, 1)
