"""Moves that fail: each is counted under its reason, and everybody else lives on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import wssup
from tests.harness import raw
from tests.harness.moving import Async, Plain, Two, begin, move, numbered, two
from tests.harness.served import Served, entries
from tests.unit.server.peer import Peer, close_frame, everything_read, opened
from wssup import logs
from wssup.server.connection import Connection
from wssup.server.request import Request

Log = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    """What was logged since the last look."""
    logs.configure("info", "json")
    return lambda: entries(capsys.readouterr().err)


def refused(server: Served) -> dict[str, int]:
    """Why connections did not move."""
    reasons = server.counts.handoff_refused_by_reason
    return {reason: count for reason, count in reasons.items() if count}


async def leave(peer: Peer) -> None:
    """Answer a close frame."""
    await peer.send(close_frame(1012))
    assert (await peer.frame())[0] == -1


async def told(peers: list[Peer], said: dict[Peer, int]) -> list[Peer]:
    """Ask everybody; who does not answer with the next number was closed with 1012.

    :param said: how many answers each has had.
    :returns: who was closed.
    """
    closed = []
    for peer in peers:
        await peer.say("x")
        opcode, payload = await peer.frame()
        if opcode == raw.CLOSE:
            assert payload[:2] == b"\x03\xf4"
            closed.append(peer)
            await leave(peer)
        else:
            said[peer] = said.get(peer, 0) + 1
            assert (opcode, payload) == (raw.TEXT, b"%d x" % said[peer])
    return closed


# In the old worker.


class Odd(Plain):
    """Connections to /odd have something in their state that does not move."""

    def on_connect(self, ws: Connection) -> None:
        super().on_connect(ws)
        if ws.path == "/odd":
            ws.state["basket"] = {"fruit": (1, 2)}
        if ws.path == "/large":
            ws.state["large"] = "x" * (300 << 10)


@wssup.resumable
async def odd(request: Request) -> None:
    """The same in task style."""
    ws = await request.accept()
    if not ws.resumed:
        Odd().on_connect(ws)
    async for data in ws:
        ws.state["n"] += 1
        await ws.send_message(numbered(ws.state["n"], data))


@pytest.mark.parametrize("style", ["event", "task"])
@pytest.mark.parametrize("path", ["/odd", "/large"])
async def test_a_state_that_cannot_move(tmp_path: Path, style: str, path: str, log: Log) -> None:
    """Closes that one client with 1012, is counted, and logged with the key that is to blame;
    on_disconnect is called; the others move.
    """
    application = Odd() if style == "event" else odd
    async with (
        two(tmp_path, application) as both,
        opened(both.old, 5) as peers,
        await Peer.open(both.old, path) as peer,
    ):
        await everything_read()
        session = begin(both.old, both.new)
        assert await peer.code() == 1012
        await leave(peer)
        swept = await session.swept()
        assert (swept.moved, swept.busy, swept.kept) == (5, 0, 1)
        assert not await told(peers, {})
        await session.recall()
        assert (refused(both.old), refused(both.new)) == ({"state": 1}, {})
        await both.old.engine.wait_empty()
        counts = both.old.counts
        assert (counts.closed_by_reason["drain"], counts.closed) == (1, 1)
        assert counts.closes_by_code["server"]["1012"] == 1
        assert counts.handler_errors == 0
    if isinstance(application, Odd):
        assert ("disconnect 1012", path) in application.log
        assert application.calls("disconnect 1012") == 1
    (line,) = [line for line in log() if line["event"] == "state_cannot_move"]
    assert ("['basket']['fruit']" if path == "/odd" else "limits.state_bytes") in line["error"]


class Fails(Plain):
    async def fail_async(self) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("oh")

    def fail(self) -> None:
        raise ValueError("oh")


class FailsToSuspend(Fails):
    def on_suspend(self, ws: Connection) -> None:
        if ws.path == "/it":
            self.fail()


class FailsToSuspendAsync(Fails):
    async def on_suspend(self, ws: Connection) -> None:
        if ws.path == "/it":
            await self.fail_async()


@pytest.mark.parametrize("make", [FailsToSuspend, FailsToSuspendAsync])
async def test_on_suspend_that_raises(tmp_path: Path, make: Callable[[], Fails], log: Log) -> None:
    """Closes that client with 1012, is counted and logged; on_disconnect is called; the others
    move.
    """
    application = make()
    async with (
        two(tmp_path, application) as both,
        opened(both.old, 5) as peers,
        await Peer.open(both.old, "/it") as peer,
    ):
        await everything_read()
        assert await move(both.old, both.new) == 5
        assert await peer.code() == 1012
        await leave(peer)
        await both.old.engine.wait_empty()
        assert not await told(peers, {})
        assert refused(both.old) == {"suspend_failed": 1}
        assert both.old.counts.handler_errors == 1
        assert both.old.counts.closed_by_reason["drain"] == 1
    assert application.log.count(("disconnect 1012", "/it")) == 1
    (line,) = [line for line in log() if line["event"] == "handler_failed"]
    assert (line["hook"], line["error"]) == ("on_suspend", "ValueError: oh")


@pytest.mark.parametrize("kind", ["plain", "async", "task"])
async def test_a_client_that_leaves_while_it_moves(tmp_path: Path, kind: str) -> None:
    """A client that is found gone while it moves has left: it is counted as lost and the session
    goes on with the others.
    """
    clients: dict[str, Peer] = {}

    def cut(ws: Connection) -> None:
        clients[ws.path].reset()
        ws.send_nowait("are you there?")
        ws.send_nowait("are you there?")

    class Cut(Plain):
        def on_suspend(self, ws: Connection) -> None:
            if ws.path == "/it":
                cut(ws)

    class CutAsync(Plain):
        async def on_suspend(self, ws: Connection) -> None:
            if ws.path == "/it":
                cut(ws)

    @wssup.resumable
    async def task(request: Request) -> None:
        ws = await request.accept()
        try:
            async for _ in ws:
                ws.state["n"] = ws.state.get("n", 0) + 1
                await ws.send_message(f"{ws.state['n']} x")
        finally:
            if ws.path == "/it":
                cut(ws)

    application = {"plain": Cut(), "async": CutAsync(), "task": task}[kind]
    async with two(tmp_path, application) as both, opened(both.old, 5) as peers:
        clients["/it"] = await Peer.open(both.old, "/it")
        await everything_read()
        session = begin(both.old, both.new)
        with trio.fail_after(15):
            swept = await session.swept()
        assert swept.moved == 5
        await session.recall()
        assert not await told(peers, {})
        await both.old.engine.wait_empty()
        assert both.active() == (0, 5)
        assert both.old.counts.closed_by_reason["lost"] == 1


@pytest.mark.parametrize("kind", ["plain", "task"])
async def test_a_quota_that_meets_states_that_cannot_move(tmp_path: Path, kind: str) -> None:
    """Who cannot move does not use the quota up: as many as were asked for move, if there are."""
    async with (
        two(tmp_path, Odd() if kind == "plain" else odd) as both,
        opened(both.old, 5) as peers,
        opened(both.old, 2, "/odd") as odd_ones,
    ):
        await everything_read()
        assert await move(both.old, both.new, quota=4) == 4
        for peer in odd_ones:
            peer.drop()
        assert not await told(peers, {})


# In the new worker.


class FailsToResume(Fails):
    def on_resume(self, _: Connection) -> None:
        self.fail()


class FailsToResumeAsync(Fails):
    async def on_resume(self, _: Connection) -> None:
        await self.fail_async()


@wssup.resumable
async def fails_at_once(request: Request) -> None:
    await request.accept()
    raise ValueError("oh")


@wssup.resumable
async def fails_later(request: Request) -> None:
    ws = await request.accept()
    await trio.sleep(0.01)
    raise LookupError(ws.state["no such key"])


NEW = [FailsToResume, FailsToResumeAsync, fails_at_once, fails_later]


@pytest.mark.parametrize("new", NEW, ids=lambda new: new.__name__)
@pytest.mark.parametrize(("failures", "most"), [(0, 1), (1, 1), (7, 7), (1000, 100)])
async def test_new_code_that_raises_for_all(
    tmp_path: Path, new: Any, failures: int, most: int, log: Log
) -> None:
    """At most as many as the limit allows, and one, are closed with 1012, each counted, the error
    logged once; then the session ends and everybody else lives on in the old worker, with the state
    that it had.
    """
    count = 100
    application = new() if isinstance(new, type) else new
    async with two(tmp_path, Plain(), application) as both, opened(both.old, count) as peers:
        said: dict[Peer, int] = {}
        assert not await told(peers, said)
        session = begin(both.old, both.new, failures=failures)
        if most < count:
            given, taken = await session.over()
        else:
            assert (await session.swept()).moved == count
            await both.new.until(lambda c: sum(c.handoff_refused_by_reason.values()) == count)
            given, taken = await session.recall()
        closed = await told(peers, said)
        assert len(closed) == most == given.moved == taken.taken == taken.failed
        assert given.error == ("resume_failures" if most < count else "recalled")
        await both.new.engine.wait_empty()
        assert refused(both.new) == {"resume_failed": most}
        assert "lost" not in refused(both.old)
        assert both.new.counts.handler_errors == most
        assert both.new.counts.closed_by_reason["error"] == both.new.counts.closed == most
        assert both.new.counts.closes_by_code["server"]["1012"] == most
        assert both.moved() == (most, most)
        assert both.active() == (count - most, 0)
        assert not await told([peer for peer in peers if peer not in closed], said)
    lines = [line for line in log() if line["level"] == "error"]
    (line,) = [line for line in lines if line["event"] == "resume_failed"]
    assert re.match(r"(ValueError: oh|KeyError)", line["error"])
    assert lines == [line]


async def test_each_kind_of_error_is_told_once(tmp_path: Path, log: Log) -> None:
    """Different errors of one session are logged once each."""

    class Differently(Fails):
        def on_resume(self, ws: Connection) -> None:
            if ws.path == "/key":
                raise KeyError("no")
            if ws.path == "/same":
                self.fail()
            raise ValueError("another place")

    async with (
        two(tmp_path, Plain(), Differently()) as both,
        opened(both.old, 3, "/key"),
        opened(both.old, 3, "/same"),
        opened(both.old, 3, "/other"),
    ):
        await everything_read()
        session = begin(both.old, both.new)
        await session.swept()
        await session.recall()
    errors = Counter(line["error"] for line in log() if line["event"] == "resume_failed")
    assert errors == {"KeyError: 'no'": 1, "ValueError: oh": 1, "ValueError: another place": 1}


@pytest.mark.parametrize("failures", [2, 30])
async def test_new_code_that_raises_for_some(tmp_path: Path, failures: int) -> None:
    """Errors of a few that the limit allows end these alone, and the rest moves."""

    class Sometimes(Async):
        async def on_resume(self, ws: Connection) -> None:
            await trio.sleep(0.001)
            if ws.path == "/it":
                raise ValueError("oh")

    async def both_kinds(both: Two) -> None:
        async with opened(both.old, 60) as fine, opened(both.old, 2, "/it") as others:
            await everything_read()
            session = begin(both.old, both.new, failures=failures + 1)
            assert (await session.swept()).moved == 62
            for peer in others:
                assert await peer.code() == 1012
            assert not await told(fine, {})
            given, taken = await session.recall()
            assert (given.moved, taken.failed) == (62, 2)

    async with two(tmp_path, Plain(), Sometimes()) as both:
        await both_kinds(both)
