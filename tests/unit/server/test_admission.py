"""Who is let in, turned away or left waiting: the decision, and what becomes of it on a socket."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.harness.raw import request
from tests.harness.served import Served, everything, served
from wssup.scoreboard import RefusedReason
from wssup.server.admission import ADMIT, Admission, Verdict, retry_after

LIMIT, RATE, DESCRIPTORS = RefusedReason.LIMIT, RefusedReason.RATE, RefusedReason.DESCRIPTORS


@pytest.mark.parametrize(
    ("held", "elsewhere", "refusing", "queued", "refused"),
    [
        (0, 0, 0, ADMIT, ADMIT),
        (9, 0, 0, ADMIT, ADMIT),
        (10, 0, 0, (LIMIT, math.inf), (LIMIT, 0.0)),
        # What another worker of the slot still has counts, too.
        (6, 4, 0, (LIMIT, math.inf), (LIMIT, 0.0)),
        # Not more are turned away at a time than there are descriptors for it.
        (10, 0, 9, (LIMIT, math.inf), (LIMIT, 0.0)),
        (10, 0, 10, (LIMIT, math.inf), (LIMIT, math.inf)),
        (9, 0, 10, ADMIT, ADMIT),
    ],
)
def test_beyond_the_part(
    held: int,
    elsewhere: int,
    refusing: int,
    queued: Verdict | tuple[RefusedReason, float],
    refused: Verdict | tuple[RefusedReason, float],
) -> None:
    """A worker lets in what its slot may have; beyond it connections wait, or are turned away."""
    for refuses, expected in ((False, queued), (True, refused)):
        found = Admission(100, reserve=40, refuses=refuses, part=10).judge(
            held, elsewhere, refusing, 0.0
        )
        assert found[:2] == expected[:2]
        if found is not ADMIT:
            assert found[2:] == (10, "max_connections")


def test_which_limit_it_was() -> None:
    """The verdict names the setting: the smallest of them binds, whatever the others are."""
    own = Admission(100, per_worker=20)
    assert own.judge(20, 0, 0, 0.0)[2:] == (20, "worker_connections")
    own.change(15, 0.0, 0.0)
    assert own.judge(15, 0, 0, 0.0)[2:] == (15, "max_connections")
    own.change(None, 0.0, 0.0)
    assert own.judge(19, 0, 0, 0.0) is ADMIT
    few = Admission(10, per_worker=20)
    assert few.judge(10, 0, 0, 0.0) == Verdict(DESCRIPTORS, math.inf, 10, "RLIMIT_NOFILE")
    # The other worker has descriptors of its own.
    assert few.judge(9, 9, 0, 0.0) is ADMIT
    few.leave(3)
    assert few.judge(7, 0, 0, 0.0)[2:] == (7, "RLIMIT_NOFILE")
    none = Admission(100, part=0)
    assert none.judge(0, 0, 0, 0.0)[:3] == (LIMIT, math.inf, 0)


def test_faster_than_the_rate() -> None:
    """A second's worth is let in at once; then each waits for its token, or is turned away."""
    queue, refuse = Admission(100, rate=4.0), Admission(100, rate=4.0, refuses=True)
    for _ in range(4):
        for each in (queue, refuse):
            assert each.judge(0, 0, 0, 10.0) is ADMIT
            each.admitted()
    reason, wait, limit, set_by = queue.judge(0, 0, 0, 10.0)
    assert (reason, limit, set_by) == (RATE, 4.0, "max_handshakes_per_second")
    assert wait == pytest.approx(0.25)
    assert queue.judge(0, 0, 0, 10.0 + wait) is ADMIT
    assert refuse.judge(0, 0, 0, 10.0)[:2] == (RATE, 0.0)
    # Who is turned away has taken no token.
    assert refuse.judge(0, 0, 0, 10.25) is ADMIT


def test_when_to_come_again() -> None:
    """Soon where it was only too fast; within ten seconds, spread, where there was no room."""
    assert {retry_after(RATE, chance / 10) for chance in range(11)} == {1}
    assert {retry_after(LIMIT, chance / 20) for chance in range(21)} == set(range(1, 11))


async def ask(running: Served) -> bytes:
    """A client that connects, asks for a WebSocket, and reads to the end."""
    stream = await running.open()
    # It may have its answer before it asks.
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(request())
    return await everything(stream)


async def test_a_client_beyond_the_limit_reads_why(tmp_path: Path) -> None:
    """It gets 503 with Retry-After, also if it says nothing, and is counted under the limit; the
    others stay. Whoever asks for something else than a WebSocket gets the same. When one leaves,
    the next one is let in.
    """
    admission = Admission(100, reserve=64, refuses=True, part=2)
    async with served(tmp_path, admission=admission) as running:
        first, second = await running.connect(), await running.connect()
        for asks in (True, False, True):
            answer = await ask(running) if asks else await everything(await running.open())
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 "), answer
            (retry,) = (line for line in head.split(b"\r\n") if line.startswith(b"Retry-After: "))
            assert 1 <= int(retry.partition(b": ")[2]) <= 10
            assert body == b"too many connections at a time, come again later\n"
        stream, health = await running.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await stream.aclose()
        assert health.startswith(b"HTTP/1.1 503 ")
        counts = await running.until(lambda c: c.refused == 4 and c.open == 2)
        assert counts.refused_by_reason["limit"] == 4
        await first.aclose()
        await running.until(lambda c: c.open == 1)
        await running.works()
        await second.aclose()
        await running.ended(client=3, limit=4)


async def test_not_all_are_turned_away_at_once(tmp_path: Path) -> None:
    """Clients that are told to go and stay take a bounded number of descriptors; the others wait in
    the queue, and get their answer when those have been cut off.
    """
    admission = Admission(100, refuses=True, part=1)
    async with served(tmp_path, admission=admission) as running:
        await running.connect()
        stubborn = [await running.open() for _ in range(6)]
        most = 0
        for stream in stubborn:
            answer = bytearray()
            while not answer.endswith(b"later\n"):
                most = max(most, running.engine.count)
                chunk = await stream.receive_some()
                assert chunk, answer
                answer += chunk
        # They have the answer and do not leave.
        counts = await running.until(lambda c: c.refused == 6)
        assert counts.accepted == 7
        assert most <= 1 + 4
        for stream in stubborn:
            await stream.aclose()


async def test_too_fast(tmp_path: Path) -> None:
    """More handshakes than max_handshakes_per_second are turned away, to come again in a second;
    they have no connection, and are counted.
    """
    admission = Admission(100, refuses=True, rate=0.001)
    async with served(tmp_path, admission=admission) as running:
        await running.connect()
        answer = await ask(running)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        counts = await running.until(lambda c: c.refused)
        assert counts.refused_by_reason["rate"] == 1


async def test_too_fast_and_patient(tmp_path: Path) -> None:
    """With overflow = "queue" those who come faster wait for their turn, and none is lost."""
    async with served(tmp_path, admission=Admission(100, rate=20.0)) as running:
        began = trio.current_time()
        for _ in range(30):
            await running.connect()
        # A second's worth at once, the rest at the rate.
        assert trio.current_time() - began > 0.4
        assert running.counts.refused == 0


async def test_new_limits(tmp_path: Path) -> None:
    """A limit that is raised lets those in who wait; one that is lowered closes nobody. Connections
    that come from other workers are held against descriptors alone.
    """
    async with served(tmp_path, admission=Admission(100, part=1)) as running:
        await running.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.connect)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert running.counts.accepted == 1
            running.accepting.limit(3, 0.0)
        assert running.counts.active == 2
        running.accepting.limit(1, 0.0)
        assert running.accepting.room() == 98
        running.accepting.elsewhere = lambda: 1
        running.accepting.limit(3, 0.0)
        waiting = await running.open()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert running.counts.accepted == 2
        running.accepting.elsewhere = lambda: 0
        running.accepting.look()
        await running.until(lambda c: c.accepted == 3)
        await waiting.aclose()
