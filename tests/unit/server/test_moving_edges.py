"""Moves that meet something else at the same moment: an end, a timeout, a refusal."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import wssup
from tests.harness import raw
from tests.harness.descriptors import no_descriptors_left
from tests.harness.moving import (
    STYLE_NAMES,
    STYLES,
    Async,
    Plain,
    begin,
    begin_alone,
    move,
    numbered,
    task,
    two,
)
from tests.harness.served import served
from tests.unit.server.peer import (
    OFF,
    PONG,
    Peer,
    close_frame,
    everything_read,
    fragment,
    opened,
    small_buffer,
)
from wssup.scoreboard import ClosedReason
from wssup.server.connection import Connection
from wssup.server.handoff.answers import Answer, AnswerKind, pack_answer
from wssup.server.request import Request

each_style = pytest.mark.parametrize("make", STYLES, ids=STYLE_NAMES)


async def test_a_client_that_closes_before_its_turn(tmp_path: Path) -> None:
    """What a client said before it closed is given to a hook that was at work, although the
    connection was to move: it does not any more.
    """
    received: list[str | bytes] = []
    go_on = trio.Event()

    class Slow:
        def on_connect(self, ws: Connection) -> None:
            small_buffer(ws)

        async def on_receive(self, ws: Connection, data: str | bytes) -> None:
            received.append(data)
            if data == "0":
                # Its close frame waits behind this.
                assert ws.send_nowait(bytes(4 << 20))
                await go_on.wait()

    settings = {"heartbeat": OFF, "outbound_bytes": 16 << 20, "close_timeout": 0.5}
    async with (
        two(tmp_path, Slow(), **settings) as both,
        await Peer.open(both.old, buffer=4096) as peer,
    ):
        await peer.say("0")
        await everything_read()
        session = begin(both.old, both.new)
        assert (await session.swept()).busy == 1
        await peer.say("1", "2", "3")
        await peer.send(close_frame())
        await everything_read()
        go_on.set()
        await both.old.engine.wait_empty()
        assert received == ["0", "1", "2", "3"]
        await session.recall()


@pytest.mark.parametrize("kind", [AnswerKind.STOP, AnswerKind.NO_ROOM])
async def test_work_that_ends_when_the_receiver_refuses(tmp_path: Path, kind: AnswerKind) -> None:
    """A hook at work ends at the moment when the receiver takes no more: what waits in its queue is
    not left there.
    """
    count = 20
    turn = 0

    class Slow(Plain):
        async def on_receive(self, ws: Connection, data: str | bytes) -> None:
            if data == "first":
                until = int(ws.path[1:])
                while turn < until:
                    await trio.lowlevel.checkpoint()
            super().on_receive(ws, data)

    async with served(tmp_path, Slow(), heartbeat=OFF) as old:
        quiet = await Peer.open(old)
        peers = [await Peer.open(old, f"/{n}") for n in range(count)]
        for peer in peers:
            await peer.say("first", "second", "third")
        await old.until(lambda c: c.messages_in == 3 * count)
        session, end = begin_alone(old)
        with end:
            await trio.lowlevel.wait_readable(end)
            end.send(pack_answer(Answer(kind, 1)))
            for _ in range(count):
                turn += 1
                await trio.lowlevel.checkpoint()
            given = await session.handed_over()
        assert given.moved == 0
        with trio.fail_after(15):
            for peer in peers:
                for n, word in enumerate(("first", "second", "third")):
                    assert await peer.frame() == (raw.TEXT, f"{n + 1} {word}".encode())
        for peer in (quiet, *peers):
            peer.drop()


async def test_a_shielded_receive(tmp_path: Path) -> None:
    """A handler that shields a receive cannot be cancelled in it. When the session ends without it
    the connection is listened to again.
    """

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        if not ws.resumed:
            with trio.CancelScope(shield=True):
                await ws.send_message(await ws.get_message())
        async for data in ws:
            await ws.send_message(data)

    async with two(tmp_path, application) as both, await Peer.open(both.old) as peer:
        await everything_read()
        session = begin(both.old, both.new)
        await everything_read()
        await peer.say("x")
        await everything_read()
        try:
            await session.recall()
            with trio.fail_after(15):
                assert await peer.frame() == (raw.TEXT, b"x")
                assert await peer.ask("y") == "y"
        finally:
            both.old.engine.abort_all(ClosedReason.DEADLINE)


async def test_a_recall_of_handlers_on_their_way_out(tmp_path: Path) -> None:
    """Handlers that take their time to end when they are cancelled, and close their connections on
    the way, while the session is recalled: nobody is closed, and what comes meanwhile is answered.
    """

    @wssup.resumable
    async def application(request: Request) -> None:
        async with await request.accept() as ws:
            try:
                while True:
                    data = await ws.get_message()
                    with trio.CancelScope(shield=True):
                        await trio.sleep(0.001)
                        ws.state["n"] = ws.state.get("n", 0) + 1
                        await ws.send_message(numbered(ws.state["n"], data))
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.01)
                    await ws.aclose()

    async with two(tmp_path, application, heartbeat=OFF) as both:
        async with opened(both.old, 20) as peers:
            await everything_read()
            asked = 0
            for turns in (2, 4, 8, 16, 32):
                session = begin(both.old, both.new)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                for peer in peers:
                    await peer.say("x", "y")
                asked += 2
                await session.recall()
                for peer in peers:
                    assert await peer.frame() == (raw.TEXT, b"%d x" % (asked - 1))
                    assert await peer.frame() == (raw.TEXT, b"%d y" % asked)
            assert sum(both.active()) == 20
        # A handler that shields its aclose() would wait for ever for an engine that is cancelled.
        for side in both:
            await side.engine.wait_empty()


@each_style
async def test_everybody_is_cut_off(tmp_path: Path, make: Callable[[], object]) -> None:
    """A worker at its deadline, with connections on their way to somebody who does not answer, cuts
    all off and becomes empty.
    """
    count = 20
    async with served(tmp_path, make(), heartbeat=OFF) as old, opened(old, count):
        await everything_read()
        with no_descriptors_left(gone=count):
            session, end = begin_alone(old)
            with end:
                await trio.lowlevel.wait_readable(end)
                await everything_read()
                old.engine.abort_all(ClosedReason.DEADLINE)
                with trio.fail_after(15):
                    await old.engine.wait_empty()
                assert (await session.handed_over()).moved == 0
            counts = old.counts
            assert (counts.active, counts.moved_out, counts.closed) == (0, 0, count)


@each_style
async def test_who_is_closing_stays(tmp_path: Path, make: Callable[[], object]) -> None:
    """A connection in its closing handshake does not move, is counted, and ends where it is."""
    async with two(tmp_path, make()) as both, opened(both.old, 2) as (peer, other):
        await everything_read()
        ws = next(iter(both.old.engine._pump.connections.values()))
        ws.close_nowait(4000)
        assert await move(both.old, both.new) == 1
        assert both.old.counts.handoff_refused_by_reason["closing"] == 1
        for _ in range(2):
            if both.old.counts.active:
                closing = peer if both.old.engine.count else other
                assert await closing.code() == 4000
                await closing.send(close_frame(4000))
                await both.old.until(lambda c: not c.active)
        assert await other.ask("x") == "1 x"


async def test_a_pong_for_the_old_worker(tmp_path: Path) -> None:
    """The pong of a ping that the application had sent in the old worker is nobody's, and does no
    harm in the new one.
    """
    async with two(tmp_path, task) as both, await Peer.open(both.old) as peer:
        await everything_read()
        (ws,) = both.old.engine._pump.connections.values()

        async def ping() -> None:
            with pytest.raises(wssup.ConnectionMoved):
                await ws.ping(b"old")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping)
            assert (await peer.frame())[1] == b"old"
            assert await move(both.old, both.new) == 1
        await peer.send(raw.frame(PONG, b"old"))
        assert await peer.ask("x") == "1 x"


async def test_fragments_of_both_workers_are_counted_together(tmp_path: Path) -> None:
    """The limit of fragments, and of a message's size, is not begun anew by a move."""
    async with (
        two(tmp_path, Plain(), fragments=10, message_bytes=1000) as both,
        opened(both.old, 3) as (many, large, fine),
    ):
        await many.send(fragment(raw.TEXT, b"x") + fragment(0, b"x") * 5)
        await large.send(fragment(raw.TEXT, b"x" * 600))
        await fine.send(fragment(raw.TEXT, b"x" * 600))
        await everything_read()
        assert await move(both.old, both.new) == 3
        await many.send(fragment(0, b"x") * 5)
        await large.send(fragment(0, b"x" * 600))
        await fine.send(fragment(0, b"x" * 400, last=True))
        assert await many.code() == 1009
        assert await large.code() == 1009
        assert await fine.frame() == (raw.TEXT, b"1 " + b"x" * 1000)


async def test_a_handler_with_a_timeout(tmp_path: Path) -> None:
    """A handler whose own timeout ends its receive again and again, also while it is held, loses
    and doubles nothing.
    """

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        while True:
            data = None
            with trio.move_on_after(0.0005):
                data = await ws.get_message()
            if data is not None:
                ws.state["n"] = ws.state.get("n", 0) + 1
                await ws.send_message(numbered(ws.state["n"], data))

    async with two(tmp_path, application) as both, opened(both.old, 10) as peers:
        here, there = both
        for n in range(1, 20):
            session = begin(here, there)
            for peer in peers:
                await peer.say("x", "y")
            await here.engine.wait_empty()
            await session.recall()
            for peer in peers:
                assert await peer.frame() == (raw.TEXT, b"%d x" % (2 * n - 1))
                assert await peer.frame() == (raw.TEXT, b"%d y" % (2 * n))
            here, there = there, here


async def test_a_client_that_leaves_during_a_long_suspend(tmp_path: Path) -> None:
    """Nobody listens meanwhile: the new worker finds it out, and counts it."""
    stay = trio.Event()

    class Slow(Async):
        async def on_suspend(self, ws: Connection) -> None:
            await stay.wait()
            await super().on_suspend(ws)

    application = Slow()
    async with two(tmp_path, application) as both, opened(both.old, 2) as (closes, breaks):
        await everything_read()
        session = begin(both.old, both.new)
        await everything_read()
        await closes.send(close_frame())
        breaks.reset()
        await everything_read()
        stay.set()
        counts = await both.new.until(lambda c: c.closed == 2)
        assert (counts.closed_by_reason["client"], counts.closed_by_reason["lost"]) == (1, 1)
        assert (await session.recall())[0].moved == 2
        await both.new.engine.wait_empty()
        assert (application.calls("suspend"), application.calls("resume")) == (2, 2)
        assert (application.calls("disconnect 1000"), application.calls("disconnect 1006")) == (
            1,
            1,
        )


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("timeout", [0.0005, math.inf])
async def test_a_recall_at_the_moment_of_a_receive(
    tmp_path: Path, turns: int, timeout: float
) -> None:
    """Handlers that are held because they ask for a message, with others in their queue, when the
    session is recalled: they get their messages in order, and can move later.
    """
    count, asked = 20, 5
    go_on = trio.Event()

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept()
        if not ws.resumed:
            await go_on.wait()
        while True:
            data = None
            with trio.move_on_after(timeout):
                data = await ws.get_message()
            if data is not None:
                ws.state["n"] = ws.state.get("n", 0) + 1
                await ws.send_message(numbered(ws.state["n"], data))

    async with two(tmp_path, application, heartbeat=OFF) as both, opened(both.old, count) as peers:
        for peer in peers:
            await peer.say(*"x" * asked)
        await everything_read()
        session = begin(both.old, both.new)
        assert (await session.swept()).busy == count
        go_on.set()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        await session.recall()
        for peer in peers:
            await peer.say("last")
        with trio.fail_after(15):
            for peer in peers:
                for n in range(asked):
                    assert await peer.frame() == (raw.TEXT, b"%d x" % (n + 1))
                assert await peer.frame() == (raw.TEXT, b"%d last" % (asked + 1))
        left = both.old.counts.active
        session = begin(both.old, both.new)
        await both.new.until(lambda c: c.active == count)
        assert (await session.recall())[0].moved == left
