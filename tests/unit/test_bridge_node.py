"""The bridge between a worker of the bus and a server, and its process."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from tests.harness.bridging import Worker, boot
from tests.harness.processes import alive, title
from tests.harness.resp import RespServer
from tests.harness.waiting import until
from wssup import channel
from wssup.bridge import redis
from wssup.bridge.node import Node
from wssup.bridge.outbox import Letter
from wssup.bridge.packing import Parcel, pack, unpack
from wssup.bridge.watcher import Watcher
from wssup.config.topics import Topics
from wssup.messages import PROTOCOL, Bridge, Failed, Hello, Peers
from wssup.scoreboard import BridgeState, Scoreboard
from wssup.topics.message import Message

OURS, THEIRS = "aaaaaaaa", "bbbbbbbb"


class Pair:
    """A worker with serial number 1 and a bridge with number 2 of one instance."""

    def __init__(self, board: Scoreboard, **settings: Any) -> None:
        topics = Topics(**settings)
        self.board = board
        writer = board.bridge_writer()
        writer.begin(2)
        self.worker = Worker(1, OURS, topics)
        self.node = Node(OURS, 2, topics, writer)
        mine, its = socket.socketpair()
        self.worker.bus.link(2, mine)
        self.node.link(1, its)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.node.run)
                nursery.start_soon(self._work)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self.node.bus.close()
            self.worker.bus.close()

    async def _work(self) -> None:
        while True:
            self.worker.bus.beat(time.monotonic())
            for _ in range(20):
                self.worker.turns.turn(0)
                await trio.sleep(0.002)


@pytest.fixture
def board(tmp_path: Path) -> Any:
    """A scoreboard."""
    board = Scoreboard.create("bridge", tmp_path, 1, 1)
    yield board
    board.unlink()
    board.close()


async def test_the_bridge_carries_both_ways(board: Scoreboard) -> None:
    """A worker's message goes to the server as its publisher's; another instance's comes to the
    bus under the bridge's own number with its first source; our own does not come back.
    """
    async with RespServer().running() as server:
        pair = Pair(board, bus=f"redis://127.0.0.1:{server.port}")
        pair.worker.bus.subscribed("t", 3)
        async with pair.running():
            await until(lambda: server.named(b"SUBSCRIBE"))
            pair.worker.bus.publish("t", text=True, data="ø".encode(), exclude=7)
            pair.worker.bus.publish("u", text=False, data=b"\xff")
            await until(lambda: len(server.named(b"PUBLISH")) == 2)
            sent = [(c[1], unpack(c[2])) for c in server.named(b"PUBLISH")]
            assert [(name, p.source, p.sequence, p.text, p.data) for name, p in sent] == [
                (b"wssup:t", f"{OURS}.1", 1, True, "ø".encode()),
                (b"wssup:u", f"{OURS}.1", 2, False, b"\xff"),
            ]
            theirs = Parcel(f"{THEIRS}.9", 40, 0, 39, True, 0.0, b"hello")
            await server.publish(b"wssup:t", pack(theirs))
            remote: list[Message] = []
            await until(
                lambda: remote.extend(m for m in pair.worker.got if m.carrier == 2) or remote
            )
            (message,) = remote
            assert message[:4] == ("t", True, b"hello", 2)
            assert message[5:7] == (f"{THEIRS}.9", 40)
            await until(lambda: board.bridge().sent == 2 and board.bridge().received == 1)  # type: ignore[union-attr]
            view = board.bridge()
            assert view is not None
            assert (view.state, view.bus_received, view.lost) == (BridgeState.CONNECTED, 2, 0)


async def test_interest_comes_and_goes(board: Scoreboard) -> None:
    """The server is asked for what a worker has subscribers of, and no more when they are gone."""
    async with RespServer().running() as server:
        pair = Pair(board, bus=f"redis://127.0.0.1:{server.port}")
        async with pair.running():
            await until(lambda: board.bridge().connects)  # type: ignore[union-attr]
            pair.worker.bus.subscribed("t", 1)
            await until(lambda: server.named(b"SUBSCRIBE") == [[b"SUBSCRIBE", b"wssup:t"]])
            pair.worker.bus.subscribed("t", 0)
            await until(lambda: server.named(b"UNSUBSCRIBE") == [[b"UNSUBSCRIBE", b"wssup:t"]])


async def test_what_was_missed_is_asked_of_the_server(board: Scoreboard) -> None:
    """With `bus_history` a worker's question is answered from the server's streams, in pieces."""
    async with RespServer().running() as server:
        pair = Pair(board, bus=f"redis://127.0.0.1:{server.port}", bus_history=True)
        async with pair.running():
            await until(lambda: board.bridge().connects)  # type: ignore[union-attr]
            for number in range(100):
                pair.worker.publish("t", b"%d" % number + bytes(3000))
            await until(lambda: board.bridge().sent == 100)  # type: ignore[union-attr]
            answers: list[tuple[list[Message], bool]] = []

            def ask(topic: str, mark: int) -> None:
                pair.worker.bus.recover(
                    topic, {f"{OURS}.1": mark}, 1000, lambda *found: answers.append(found)
                )

            ask("t", 40)
            await until(lambda: answers)
            messages, complete = answers.pop()
            assert [m.sequence for m in messages] == list(range(41, 101))
            assert complete
            ask("other", 40)
            await until(lambda: answers)
            assert answers.pop() == ([], False)


async def test_a_full_queue_is_said_once(
    board: Scoreboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is away the bus goes on; what the queue has no room for is counted, and said
    once in each outage.
    """
    monkeypatch.setattr(redis, "_LONGEST", 0.05)
    server = RespServer()
    async with server.running():
        pass
    pair = Pair(board, bus=f"redis://127.0.0.1:{server.port}", queue_bytes=64 << 10)
    with structlog.testing.capture_logs() as logs:
        async with pair.running():
            for outage in range(1, 3):
                for _ in range(20):
                    pair.worker.publish("t", *[bytes(1000)] * 10)
                    await trio.sleep(0.01)
                await until(lambda n=outage: board.bridge().lost > n * 100)  # type: ignore[union-attr]
                full = [x for x in logs if x["event"] == "bridge_queue_full"]
                assert len(full) == outage
                async with server.running():
                    await until(lambda: not board.bridge().queue_bytes)  # type: ignore[union-attr]
                    await until(lambda: board.bridge().since_ns)  # type: ignore[union-attr]
                await until(lambda: not board.bridge().since_ns)  # type: ignore[union-attr]


async def test_the_watcher_turns_whatever_comes() -> None:
    """Descriptors that are ready and pieces of work are both served; one that is left by another
    in the same look is not told any more; work may make work.
    """
    watcher, heard, done = Watcher(), [], []
    ends = [socket.socketpair() for _ in range(2)]
    fds = [end.fileno() for end, _ in ends]

    def hear(index: int) -> None:
        heard.append(index)
        for fd in fds:
            watcher.leave(fd)

    for index, fd in enumerate(fds):
        watcher.attend(fd, select.EPOLLOUT, lambda _, index=index: hear(index))
        watcher.attend(fd, select.EPOLLIN, lambda _, index=index: hear(index))

    def more() -> None:
        done.append(len(done))
        if len(done) < 3:
            watcher.soon(more)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        watcher.soon(more)
        await until(lambda: len(done) == 3)
        for _, other in ends:
            other.send(b"x")
        await until(lambda: heard)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(heard) == 1
    watcher.leave(fds[0])
    watcher.close()
    for pair in ends:
        for end in pair:
            end.close()


# The process.


def order(board: Scoreboard, **changes: Any) -> Bridge:
    fields: dict[str, Any] = {
        "protocol": PROTOCOL,
        "instance": "test",
        "node": OURS,
        "serial": 2,
        "scoreboard": board.name,
        "settings": boot.settings(Topics(bus="redis://:secret@127.0.0.1:1")),
    }
    return Bridge(**fields | changes)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=30)
    return process.returncode, out.decode()


def test_the_process_obeys_its_channel_only(board: Scoreboard) -> None:
    """It says hello, bears its name, is not ended by signals that a terminal sends to everybody,
    and ends with its channel though there is no server; the password is nowhere.
    """
    process, master = boot.start()
    channel.send(master, order(board))
    hello = channel.receive(master)
    assert hello is not None
    assert hello.message == Hello(PROTOCOL, process.pid)
    assert title(process.pid) == "wssup: bridge test"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process.pid, number)
    watch = select.poll()
    watch.register(master, select.POLLHUP)
    assert not watch.poll(300)
    assert alive(process.pid)
    master.close()
    status, logged = ended(process)
    assert status == 0
    assert "secret" not in logged
    view = board.bridge()
    assert view is not None
    assert view.state is BridgeState.STOPPED


def test_what_a_bridge_could_not_bring_out_is_counted(board: Scoreboard) -> None:
    """A bridge that is replaced, while its workers live on and its server is away, counts what it
    had for the server as lost.
    """
    process, master = boot.start()
    channel.send(master, order(board))
    assert channel.receive(master) is not None
    worker = Worker(1, OURS, Topics())
    mine, its = socket.socketpair()
    with its:
        channel.send(master, Peers([1]), [its.fileno()])
    worker.bus.link(2, mine)
    deadline = time.monotonic() + 30
    worker.publish("t", *[b"text"] * 10)
    while (view := board.bridge()) is None or view.bus_received < 10:
        assert time.monotonic() < deadline
        worker.bus.beat(time.monotonic())
        worker.turns.turn(0.01)
    master.close()
    assert ended(process)[0] == 0
    worker.bus.close()
    view = board.bridge()
    assert view is not None
    assert (view.state, view.lost) == (BridgeState.STOPPED, 10)


async def test_numbers_that_are_owed_are_brought_out(board: Scoreboard) -> None:
    """A bridge that ends has told its server, if there is one, of all that it will never have."""
    async with RespServer().running() as server:
        bus = f"redis://127.0.0.1:{server.port}"
        pair = Pair(board, bus=bus, bus_history=True)
        async with pair.running():
            await until(lambda: pair.node._redis.connected)
            # Its workers have gone already.
            pair.node.bus.close()
            desk = pair.node._desk
            desk.owed.add(Letter(f"t{n}", f"{OURS}.1", n, b"") for n in range(1, 2001))
            # What it has refused it may take now.
            desk.refuse([f"t{n}" for n in range(1, 101)])
            parcel = Parcel(f"{OURS}.1", 2001, 0, 0, False, time.time(), b"")
            desk.post(Letter("t", f"{OURS}.1", 2001, pack(parcel)))
            await pair.node.bring_out()
        marks = [key for key in server.hashes if key.startswith(b"wssup:marks:")]
        assert len(marks) == 2001


async def test_what_a_server_refuses_is_said_once(board: Scoreboard) -> None:
    """However many kinds of commands it refuses, and in whatever order."""
    with structlog.testing.capture_logs() as logs:
        pair = Pair(board, bus="redis://127.0.0.1:1")
        async with pair.running():
            for number in range(100):
                pair.node.unsent(0, f"{'HSET' if number % 2 else 'XADD'}: OOM")
            for number in range(100):
                pair.node.unsent(0, f"{number}: what is this?")
    assert len([entry for entry in logs if entry["event"] == "bridge_refused"]) == 20


def test_a_channel_that_ends_at_once(board: Scoreboard) -> None:
    """A master that dies before it says anything leaves no bridge behind."""
    process, master = boot.start()
    master.close()
    assert ended(process) == (0, "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": PROTOCOL + 1}, "speaks protocol"),
        ({"scoreboard": "wssup.nobody.nothing"}, "nobody"),
    ],
    ids=["another protocol", "no scoreboard"],
)
def test_what_cannot_be_is_said(board: Scoreboard, changes: dict[str, Any], why: str) -> None:
    """A bridge that cannot work tells its master and the log why, and exits with 1."""
    process, master = boot.start()
    with master:
        channel.send(master, order(board, **changes))
        said = channel.receive(master)
        assert said is not None
        assert isinstance(said.message, Failed)
        assert why in said.message.message
        status, logged = ended(process)
    assert status == 1
    assert "bridge_failed" in logged
    assert "secret" not in logged


def test_a_missing_library_is_named(board: Scoreboard, tmp_path: Path) -> None:
    """Without the optional client the remedy is said."""
    (tmp_path / "coredis.py").write_text(
        "raise ModuleNotFoundError('No module named coredis', name='coredis')\n"
    )
    process, master = boot.start(tmp_path)
    with master:
        channel.send(master, order(board))
        said = channel.receive(master)
        assert said is not None
        assert isinstance(said.message, Failed)
        assert said.message.message.startswith("coredis is missing")
        assert "wssup[redis]" in said.message.message
        assert ended(process)[0] == 1


def test_a_bridge_dies_with_its_starter(board: Scoreboard) -> None:
    """The kernel ends it when the thread that started it is gone, however it went."""
    found: list[tuple[subprocess.Popen[bytes], socket.socket]] = []

    def begin() -> None:
        found.append(boot.start())
        channel.send(found[0][1], order(board))
        channel.receive(found[0][1])

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    process, master = found[0]
    with master:
        assert ended(process)[0] == -signal.SIGKILL
