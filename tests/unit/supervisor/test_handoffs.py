"""Sessions and what is heard of them; the rows of workers that die in the middle of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.unit.supervisor.puppets import Puppet, Stage, stage
from wssup.messages import HandedOver, HandOver, Swept, TakeOver, TookOver
from wssup.supervisor import handoffs as module
from wssup.supervisor.handoffs import Session
from wssup.supervisor.planning import UNLIMITED


def opened(made: Stage, sender: int = 0, receiver: int = 1, quota: int = 0) -> Session:
    """A session between two slots' workers."""
    session = made.fleet.handoffs.open(
        made.worker(sender), made.worker(receiver), quota=quota, failures=UNLIMITED
    )
    assert session is not None
    return session


def moved(giver: Puppet, taker: Puppet, *, counted_out: int, counted_in: int) -> None:
    """Connections moved, and both have counted what they have of it."""
    for _ in range(counted_in):
        taker.row.moved_in(0.001)
    for _ in range(counted_out):
        giver.row.moved_out(100)


async def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """Each session has a number of its own, for either end the same."""
    async with stage(tmp_path) as made:
        await made.start(2)
        for _ in range(3):
            opened(made)
            opened(made, 1, 0, quota=5)
        for giver, taker in ((0, 1), (1, 0)):
            given = [m.session for m in made.puppet(giver).got(HandOver)]
            taken = [m.session for m in made.puppet(taker).got(TakeOver)]
            assert given == taken
            assert len(set(given)) == 3


async def test_both_ends_know_each_other(tmp_path: Path) -> None:
    """Each end is told the serial number of the other one, by which it is known on the bus."""
    async with stage(tmp_path) as made:
        await made.start(2)
        opened(made)
        opened(made, 1, 0)
        first, second = made.worker(0).serial, made.worker(1).serial
        assert [m.receiver for m in made.puppet(0).got(HandOver)] == [second]
        assert [m.sender for m in made.puppet(1).got(TakeOver)] == [first]
        assert [m.receiver for m in made.puppet(1).got(HandOver)] == [first]
        assert [m.sender for m in made.puppet(0).got(TakeOver)] == [second]


async def test_the_highest_common_version_is_spoken(tmp_path: Path) -> None:
    """Both ends are told the highest version of records that both know."""
    async with stage(tmp_path) as made:
        made.fleet.scale(2)
        await made.until(lambda: len(made.puppets) == 2)
        made.puppet(0).ready(records=(1, 3))
        made.puppet(1).ready(records=(2, 9))
        await made.until(lambda: made.states() == ["ready"] * 2)
        opened(made)
        assert made.puppet(0).got(HandOver)[0].version == 3
        assert made.puppet(1).got(TakeOver)[0].version == 3


async def test_progress_and_the_end(tmp_path: Path) -> None:
    """While it runs a session's moves are read from the sender's row, also if that has moved others
    before; its end is what the sender said.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        giver, taker = made.puppet(0), made.puppet(1)
        giver.connect(30)
        moved(giver, taker, counted_out=5, counted_in=5)
        session = opened(made, quota=20)
        heard: list[bool] = []
        session.on_change = lambda s: heard.append(s.over.is_set())
        assert session.total == 20
        moved(giver, taker, counted_out=7, counted_in=7)
        assert made.fleet.handoffs.moved(session) == 7
        giver.say(Swept(session.number, 7, 13, 0))
        await made.until(lambda: session.swept)
        assert heard == [False]
        giver.say(HandedOver(session.number, 8, "recalled"))
        await session.over.wait()
        assert heard == [False, True]
        assert (made.fleet.handoffs.moved(session), session.error) == (8, "recalled")
        assert list(made.fleet.handoffs.under_way()) == []


async def test_a_recall_is_posted_once(tmp_path: Path) -> None:
    """Who recalls twice, or recalls what is over, says nothing more to the worker."""
    async with stage(tmp_path) as made:
        await made.start(2)
        session = opened(made)
        for _ in range(2):
            made.fleet.handoffs.recall(session)
        assert made.puppet(0).story == ["give", "recall"]
        other = opened(made)
        made.puppet(0).say(HandedOver(other.number, 0, ""))
        await other.over.wait()
        made.fleet.handoffs.recall(other)
        assert made.puppet(0).story == ["give", "recall", "give"]


async def test_a_deadline_recalls(tmp_path: Path) -> None:
    """A session with a timeout is recalled when it has passed."""
    async with stage(tmp_path) as made:
        await made.start(2)
        made.fleet.handoffs.open(made.worker(0), made.worker(1), quota=0, failures=0, timeout=0.05)
        await made.until(lambda: made.puppet(0).story == ["give", "recall"])


async def test_reports_of_strangers_are_errors_and_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker that reports of a session that is not its own is not believed."""
    async with stage(tmp_path) as made:
        await made.start(3)
        session = opened(made)
        made.puppet(2).say(HandedOver(session.number, 3, ""))
        made.puppet(1).say(HandedOver(session.number, 3, ""))
        made.puppet(0).say(TookOver(session.number, 3, 0))
        made.puppet(0).say(Swept(99, 0, 0, 0))
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not session.over.is_set()
        assert session.swept is None
        assert "".join(capsys.readouterr()).count("unexpected_message") == 4


async def test_a_dead_senders_row_waits_for_the_receivers_word(tmp_path: Path) -> None:
    """A sender that died before it had counted its last move: its slot gets a new worker at once,
    its row is closed when the receiver has told, and then exactly what it still had has died.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        giver, taker = made.puppet(0), made.puppet(1)
        giver.connect(10)
        session = opened(made)
        moved(giver, taker, counted_out=3, counted_in=4)
        await made.kill(made.worker(0))
        assert made.states()[0] == "backoff"
        total = made.board.snapshot().total
        assert (total.active, total.closed) == (10, 0)
        taker.say(TookOver(session.number, 4, 0))
        await made.until(lambda: made.board.snapshot().total.closed)
        total = made.board.snapshot().total
        assert total.closed_by_reason["worker_died"] == 6
        assert (total.active, total.moved_in) == (4, 4)
        assert list(made.fleet.handoffs.under_way()) == []


async def test_a_dead_receivers_row_waits_for_the_senders_word(tmp_path: Path) -> None:
    """A receiver that died between an acknowledgement and its counting: what it had has died with
    it, as the sender says, and the sender has the rest.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        giver, taker = made.puppet(0), made.puppet(1)
        giver.connect(10)
        session = opened(made)
        moved(giver, taker, counted_out=4, counted_in=3)
        await made.kill(made.worker(1))
        assert made.board.snapshot().total.closed == 0
        giver.say(HandedOver(session.number, 4, "receiver_lost"))
        await made.until(lambda: made.board.snapshot().total.closed)
        total = made.board.snapshot().total
        assert total.closed_by_reason["worker_died"] == 4
        assert (total.active, total.moved_in) == (6, 4)


async def test_when_both_die_nothing_is_counted_twice(tmp_path: Path) -> None:
    """When neither end is left to tell, all connections have died, each once."""
    async with stage(tmp_path) as made:
        await made.start(2)
        giver, taker = made.puppet(0), made.puppet(1)
        giver.connect(10)
        opened(made)
        moved(giver, taker, counted_out=3, counted_in=4)
        first, second = made.worker(0), made.worker(1)
        await made.kill(first)
        await made.kill(second)
        await made.until(lambda: made.board.snapshot().total.closed == 10)
        total = made.board.snapshot().total
        assert total.closed_by_reason["worker_died"] == 10
        assert total.active == 0


async def test_a_peer_that_does_not_tell_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is closed after a grace in any case."""
    monkeypatch.setattr(module, "REPORT_GRACE", 0.05)
    async with stage(tmp_path) as made:
        await made.start(2)
        made.puppet(0).connect(10)
        opened(made)
        await made.kill(made.worker(0))
        await made.until(lambda: made.board.snapshot().total.closed == 10)


async def test_last_words_close_the_row_at_once(tmp_path: Path) -> None:
    """A sender that told how its session ended before it died is not asked about."""
    async with stage(tmp_path) as made:
        await made.start(2)
        giver, taker = made.puppet(0), made.puppet(1)
        giver.connect(3)
        session = opened(made)
        moved(giver, taker, counted_out=3, counted_in=3)
        giver.say(HandedOver(session.number, 3, ""))
        await session.over.wait()
        await made.kill(made.worker(0))
        rows = made.board.snapshot().rows
        assert [view.serial for view in rows if view.slot == 0] == []
        assert made.board.snapshot().total.closed == 0
