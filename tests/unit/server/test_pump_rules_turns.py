"""What a turn leaves behind, and what needs none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.harness import raw
from tests.harness.served import Echo, served
from tests.unit.server.peer import (
    OFF,
    Peer,
    close_frame,
    everything_read,
    opened,
)
from wssup.scoreboard import ClosedReason
from wssup.server.connection import Connection
from wssup.server.pump import FRAMES
from wssup.server.request import Request


async def test_a_ping_to_who_is_gone(tmp_path: Path) -> None:
    """A ping that finds the connection broken raises, and the task that sent it lives on."""
    lived: list[str] = []

    async def handler(request: Request) -> None:
        ws = await request.accept()
        await ws.get_message()
        peer.reset()
        # The pump has not had a turn: the write is what finds out.
        with pytest.raises(ConnectionClosed):
            await ws.ping()
        await trio.sleep(0.01)
        lived.append("slept")
        with pytest.raises(ConnectionClosed):
            await ws.ping()
        await trio.lowlevel.checkpoint()
        lived.append("to the end")

    async with served(tmp_path, handler) as server:
        async with await Peer.open(server) as peer:
            await peer.say("reset")
            await server.ended(lost=1)
        assert lived == ["slept", "to the end"]


async def test_nothing_is_left_lying_after_a_stall(tmp_path: Path) -> None:
    """When a timer and a connection's data come together after the worker stood still, all of that
    data is worked off, not only what one turn takes.
    """
    received = 0

    class App:
        def on_receive(self, _ws: Connection, _data: str | bytes) -> None:
            nonlocal received
            received += 1

    async def stall(until: float) -> None:
        await trio.sleep_until(until)
        time.sleep(0.4)

    async def talk(until: float) -> None:
        await trio.sleep_until(until)
        peer.push(raw.frame(raw.TEXT, b"") * 150)

    async with (
        served(tmp_path, App(), heartbeat=OFF, handshake_timeout=0.25) as server,
        await Peer.open(server) as peer,
    ):
        # Whether the timer or the client comes first within one pass of the loop is chance.
        for done in range(1, 9):
            async with await Peer.connect(server):
                await server.until(lambda c, n=done: c.accepted == n + 1)
                now = trio.current_time()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stall, now + 0.01)
                    nursery.start_soon(talk, now + 0.02)
                await server.until(lambda c, n=done: c.handshake_failures == n)
                await everything_read()
                assert received == 150 * done


async def test_a_lone_message_takes_one_turn(tmp_path: Path) -> None:
    """A message that comes alone is served and counted in one turn: no look at the sockets follows
    it that finds nothing, and nobody else writes its counters down.
    """
    async with (
        served(tmp_path, Echo(), heartbeat=OFF) as server,
        await Peer.open(server) as peer,
    ):
        await peer.ask("are the turns of the handshake over?")
        pump = server.engine._pump
        whole, turns = pump.turn, 0

        def counted() -> bool:
            nonlocal turns
            turns += 1
            return whole()

        pump.turn = counted  # type: ignore[method-assign]
        for _ in range(20):
            await peer.ask("hello")
        view = server.board.read(server.row)
        assert view is not None
        assert view.counts.messages_in == 21
        # A timer that rings meanwhile takes one, too.
        assert 20 <= turns < 30


async def test_what_is_left_of_a_lone_socket_follows(tmp_path: Path) -> None:
    """One socket is no burst; what one turn leaves of its messages is worked off all the same,
    though epoll has nothing more to say of it.
    """
    async with (
        served(tmp_path, Echo(), heartbeat=OFF) as server,
        await Peer.open(server) as peer,
    ):
        peer.push(raw.frame(raw.TEXT, b"x") * (FRAMES * 3 + 1))
        for _ in range(FRAMES * 3 + 1):
            assert await peer.frame() == (raw.TEXT, b"x")


async def test_a_reset_at_the_deadline_of_a_handshake(tmp_path: Path) -> None:
    """Who is gone when it is told that it was too slow never was a WebSocket, and is not counted as
    one.
    """
    rounds = 12

    async def stall(until: float) -> None:
        await trio.sleep_until(until)
        # Over the deadline, but not so long that everything is looked at first.
        time.sleep(0.07)

    async def leave(peer: Peer, until: float) -> None:
        await trio.sleep_until(until)
        peer.reset()

    async with served(tmp_path, handshake_timeout=0.1) as server:
        for done in range(1, rounds + 1):
            peer = await Peer.connect(server)
            now = trio.current_time()
            peer.push(b"GET / HT")
            await everything_read()
            # Whether the timer or the client comes first within one pass of the loop is chance.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stall, now + 0.09)
                nursery.start_soon(leave, peer, now + 0.1)
            counts = await server.until(lambda c, n=done: c.accepted == n and not c.open)
            assert (counts.handshake_failures, counts.closed, counts.active) == (done, 0, 0)


@pytest.mark.parametrize("window", [0.0, 0.1])
async def test_a_drain_of_who_has_closed_while_not_read_from(tmp_path: Path, window: float) -> None:
    """Of a connection whose application does not read, what has come behind its full queue is
    looked at when it is closed: the client's own close frame ends it at once.
    """
    done = trio.Event()

    async def handler(request: Request) -> None:
        await request.accept()
        await done.wait()

    async with served(
        tmp_path, handler, heartbeat=OFF, inbound_messages=2, close_timeout=100
    ) as server:
        async with await Peer.open(server) as peer:
            await peer.send(raw.frame(raw.TEXT, b"x") * 2 + close_frame())
            await server.until(lambda c: c.messages_in == 2)
            await everything_read()
            server.engine.close_all(1012, "restart", ClosedReason.DRAIN, window)
            assert await peer.code() == 1012
            with trio.fail_after(15):
                assert await peer.frame() == (-1, b"")
        done.set()
        await server.ended(drain=1)


async def test_200_idle_connections_cost_nothing(tmp_path: Path) -> None:
    """With heartbeats off nothing runs for connections that say nothing: no task, no timer, no
    turn.
    """

    class Steps(trio.abc.Instrument):
        def __init__(self) -> None:
            self.names: list[str] = []

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.names.append(task.name)

    async def handler(request: Request) -> None:
        await (await request.accept()).get_message()

    async with served(tmp_path, handler, heartbeat=OFF) as server, opened(server, 200):
        await server.until(lambda c: c.active == 200)
        await everything_read()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(1.0)
        trio.lowlevel.remove_instrument(steps)
        # This task wakes up.
        assert len(steps.names) <= 1


async def test_work_that_is_left_after_a_stall(tmp_path: Path) -> None:
    """What a process finds to do when it goes on after a stall is done to its end, although no
    socket says anything more: the timer's turns leave none of it behind.
    """

    class Works:
        """Answers after a chain of chores, longer than the turns that a timer has."""

        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            left = 20

            def chore() -> None:
                nonlocal left
                left -= 1
                if left:
                    ws.wire.chores.soon(chore)
                else:
                    ws.send_nowait(data)

            ws.wire.chores.soon(chore)

    async with (
        served(tmp_path, Works(), heartbeat=OFF) as server,
        await Peer.open(server) as peer,
    ):
        await everything_read()
        pump = server.engine._pump
        (connection,) = pump.connections.values()
        # A process that is stopped in epoll_wait(2) and goes on past the timeout is told of no
        # event (PEP 475): its timers come first, and find what has arrived.
        deadlines: Any = pump.schedule
        pump.schedule(connection, time.monotonic() - 1)
        peer._stream.socket._sock.send(raw.frame(raw.TEXT, b"hello"))
        deadlines.__self__._ring()
        with trio.fail_after(15):
            assert await peer.frame() == (raw.TEXT, b"hello")
