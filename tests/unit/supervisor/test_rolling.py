"""Rollouts of real slots with played workers: when connections move, and which way."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.unit.supervisor.puppets import Stage, stage
from wssup.errors import CommandError
from wssup.messages import Drain, HandedOver, HandOver, Leaving, Swept, TakeOver, TookOver
from wssup.scoreboard import HandoffRefusal
from wssup.supervisor.planning import UNLIMITED
from wssup.supervisor.rolling import Roll


@dataclass
class Heard:
    """An audience, and what it was told."""

    phases: list[str] = field(default_factory=list)
    patience: list[float | None] = field(default_factory=list)
    slots: list[tuple[int, str]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def phase(self, phase: str, seconds: float | None) -> None:
        self.phases.append(phase)
        self.patience.append(seconds)

    def slot(self, index: int, state: str) -> None:
        self.slots.append((index, state))

    def notice(self, message: str) -> None:
        self.notices.append(message)


@dataclass
class Rolling:
    roll: Roll
    heard: Heard
    outcome: list[str] = field(default_factory=list)

    async def run(self) -> None:
        try:
            await self.roll.run()
            self.outcome.append("done")
        except CommandError as error:
            self.outcome.append(error.message)


@asynccontextmanager
async def rolling(
    made: Stage, number: int = 2, *, slots: int | None = None, handoff: bool = True
) -> AsyncIterator[Rolling]:
    """A rollout of a generation that runs while the block does, and then must be over."""
    serving = made.fleet.serving
    assert serving is not None
    generation = serving if number == serving.number else made.generation(number)
    heard = Heard()
    chosen = list(range(made.fleet.count if slots is None else slots))
    roll = Roll(
        made.fleet,
        made.watch,
        generation,
        heard,
        slots=chosen,
        surge=len(chosen),
        handoff=handoff,
    )
    found = Rolling(roll, heard)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        yield found
    assert made.fleet.next is None
    assert made.fleet.on_successor is None


async def test_connections_move_after_all_have_settled(tmp_path: Path) -> None:
    """When all successors have settled each old worker is told to hand over and each new one to
    take, with both ends of one stream; when all are swept the rollout commits, and only then are
    the old ones told to drain.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        old = [made.puppet(n) for n in range(2)]
        old[0].connect(250)
        old[1].connect(99)
        async with rolling(made) as rolled:
            await made.born(1, "successor")
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert made.states() == ["settling", "replacing"]
            assert old[0].story == ["hold"]
            await made.until(lambda: made.fleet.slots[1].successor)
            new = [made.puppet(n, "successor") for n in range(2)]
            new[1].ready()
            await made.until(lambda: made.states() == ["moving"] * 2)
            assert rolled.heard.phases == ["starting", "settling", "moving"]
            assert rolled.heard.patience == [30.0, 0.0, None]
            for n in range(2):
                (give,), (take,) = old[n].got(HandOver), new[n].got(TakeOver)
                assert give.session == take.session
                assert (give.version, take.version, give.quota) == (1, 1, 0)
                # 1 % of 250, and of 99.
                assert take.failures == (2, 0)[n]
            old[0].say(Swept(old[0].got(HandOver)[0].session, 250, 0, 0))
            await made.until(lambda: rolled.roll.sessions[0].swept)
            assert made.states() == ["moving"] * 2
            assert old[0].story == ["hold", "give"]
            old[1].say(Swept(old[1].got(HandOver)[0].session, 90, 9, 0))
        assert rolled.outcome == ["done"]
        assert made.states() == ["draining"] * 2
        assert made.fleet.serving is not None
        assert made.fleet.serving.number == made.board.generation == 2
        assert [p.story for p in old] == [["hold", "give", "drain"]] * 2
        assert {p.got(Drain)[0].unmoved for p in old} == {""}
        assert [p.story for p in new] == [["take"]] * 2


async def test_the_ends_are_one_stream(tmp_path: Path) -> None:
    """The two workers' descriptors are the ends of one stream pair, closed on exec, and nobody else
    has a copy: when one closes its end the other sees it.
    """
    async with stage(tmp_path) as made:
        await made.start(1)
        old = made.puppet(0)
        async with rolling(made):
            await made.born(1, "successor")
            new = made.puppet(0, "successor")
            await made.until(lambda: old.got(HandOver) and new.got(TakeOver))
            with (
                socket.socket(fileno=old.descriptors.pop()) as mine,
                socket.socket(fileno=new.descriptors.pop()) as theirs,
            ):
                assert mine.family == theirs.family == socket.AF_UNIX
                assert mine.type == theirs.type == socket.SOCK_STREAM
                assert not os.get_inheritable(mine.fileno())
                mine.sendall(b"a connection")
                assert theirs.recv(100) == b"a connection"
                mine.close()
                assert theirs.recv(100) == b""
            old.say(HandedOver(old.got(HandOver)[0].session, 0, ""))
        assert made.states() == ["draining"]


@pytest.mark.parametrize(
    ("old", "new", "label", "reason"),
    [
        (
            {"resumable": False},
            {},
            HandoffRefusal.NOT_RESUMABLE,
            "the application of generation 1 is not resumable",
        ),
        (
            {},
            {"resumable": False},
            HandoffRefusal.NOT_RESUMABLE,
            "the application of generation 2 is not resumable",
        ),
        (
            {"records": (1, 2)},
            {"records": (3, 4)},
            HandoffRefusal.VERSION,
            "records of versions 1–2 are written, 3–4 are read",
        ),
    ],
)
async def test_what_cannot_move_is_known_before(
    tmp_path: Path,
    old: dict[str, object],
    new: dict[str, object],
    label: HandoffRefusal,
    reason: str,
) -> None:
    """Where connections cannot move the rollout commits without waiting, nobody is told to hand
    over, people are told once how many and why, and the workers that close them are told too.
    """
    async with stage(tmp_path) as made:
        await made.start(2, **old)
        puppets = [made.puppet(n) for n in range(2)]
        puppets[0].connect(3)
        puppets[1].connect(2)
        async with rolling(made) as rolled:
            await made.born(2, "successor", **new)
        assert rolled.outcome == ["done"]
        assert rolled.heard.phases == ["starting", "settling"]
        assert rolled.heard.notices == [f"5 connections cannot move: {reason}; they are closed"]
        assert [p.story for p in puppets] == [["hold", "drain"]] * 2
        assert {p.got(Drain)[0].unmoved for p in puppets} == {label.label}


async def test_without_handoff_nothing_moves(tmp_path: Path) -> None:
    """With another on_reload the old workers drain as soon as the new ones have settled."""
    async with stage(tmp_path, on_reload="close") as made:
        await made.start(1, resumable=False)
        old = made.puppet(0)
        old.connect(5)
        async with rolling(made, handoff=False) as rolled:
            await made.born(1, "successor")
        assert rolled.heard.notices == []
        assert old.story == ["hold", "drain"]
        assert old.got(Drain)[0].unmoved == ""


async def test_too_many_failed_resumes_roll_back(tmp_path: Path) -> None:
    """A session that ends because too many could not resume rolls all slots back: running sessions
    are recalled, the old workers accept again, and the new ones hand back whatever they have, with
    any number of failures, before they drain.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        old = [made.puppet(n) for n in range(2)]
        old[0].connect(1000)
        async with rolling(made) as rolled:
            await made.born(2, "successor")
            new = [made.puppet(n, "successor") for n in range(2)]
            await made.until(lambda: made.states() == ["moving"] * 2)
            session = old[0].got(HandOver)[0].session
            new[0].say(TookOver(session, 20, 11))
            old[0].say(HandedOver(session, 20, "resume_failures"))
        (outcome,) = rolled.outcome
        assert outcome.startswith("slot 0: more than 0.01 of its connections")
        assert rolled.heard.phases[-1] == "rolling_back"
        assert made.states() == ["ready"] * 2
        assert made.fleet.serving is not None
        assert made.fleet.serving.number == 1
        # The first session is over already; the other one is called back.
        assert old[0].story == ["hold", "give", "accept", "take"]
        assert old[1].story == ["hold", "give", "recall", "accept", "take"]
        for n in range(2):
            assert new[n].story == ["take", "give", "drain"]
            (back,), (_, take) = new[n].got(HandOver)[-1:], [None, *old[n].got(TakeOver)]
            assert take is not None
            assert (back.session, back.quota) == (take.session, 0)
            assert take.failures == UNLIMITED


async def test_a_lost_successor_rolls_back_and_the_others_hand_back(tmp_path: Path) -> None:
    """When a new worker dies while connections move, its predecessor accepts again, and the other
    slots' connections come back.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        old = [made.puppet(n) for n in range(2)]
        async with rolling(made) as rolled:
            await made.born(2, "successor")
            other = made.puppet(1, "successor")
            await made.until(lambda: made.states() == ["moving"] * 2)
            await made.kill(made.worker(0, "successor"))
        assert rolled.outcome[0].startswith("slot 0: ")
        assert made.states() == ["ready"] * 2
        assert old[0].story == ["hold", "give", "accept"]
        assert old[1].story == ["hold", "give", "recall", "accept", "take"]
        assert other.story == ["take", "give", "drain"]


async def test_a_successor_that_the_sender_lost_rolls_back(tmp_path: Path) -> None:
    """A sender that says that its receiver is gone is believed at once: no commit comes in between
    that and the news of the death.
    """
    async with stage(tmp_path) as made:
        await made.start(1)
        old = made.puppet(0)
        async with rolling(made) as rolled:
            await made.born(1, "successor")
            await made.until(lambda: made.states() == ["moving"])
            old.say(HandedOver(old.got(HandOver)[0].session, 0, "receiver_lost"))
        assert rolled.outcome == ["slot 0: its new worker was lost while connections moved to it"]
        assert made.states() == ["ready"]


async def test_an_old_worker_that_dies_meanwhile_is_not_waited_for(tmp_path: Path) -> None:
    """The old worker's death in the middle ends its part; the new one serves the slot."""
    async with stage(tmp_path) as made:
        await made.start(2)
        other = made.puppet(1)
        async with rolling(made) as rolled:
            await made.born(2, "successor")
            new = made.puppet(0, "successor")
            await made.until(lambda: made.states() == ["moving"] * 2)
            other.say(Swept(other.got(HandOver)[0].session, 0, 0, 0))
            dead = made.worker(0)
            new.say(TookOver(new.got(TakeOver)[0].session, 0, 0))
            await made.kill(dead)
        assert rolled.outcome == ["done"]
        assert made.states() == ["ready", "draining"]


async def test_a_successor_that_leaves_recalls(tmp_path: Path) -> None:
    """A new worker that drains by itself while connections move gets no more of them."""
    async with stage(tmp_path) as made:
        await made.start(1)
        old = made.puppet(0)
        async with rolling(made) as rolled:
            await made.born(1, "successor")
            new = made.puppet(0, "successor")
            await made.until(lambda: made.states() == ["moving"])
            new.say(Leaving("SIGTERM"))
        assert rolled.outcome == ["slot 0: it left by itself (SIGTERM)"]
        assert old.story == ["hold", "give", "recall", "accept"]
        assert new.story == ["take"]


async def test_the_deadline_commits(tmp_path: Path) -> None:
    """A sender that does not come to an end within drain_timeout does not hold the rollout up."""
    async with stage(tmp_path, drain_timeout=0.3, drain_window=0.1) as made:
        await made.start(1)
        old = made.puppet(0)
        async with rolling(made) as rolled:
            await made.born(1, "successor")
        assert rolled.outcome == ["done"]
        assert old.story == ["hold", "give", "drain"]


async def test_cancelled_in_the_middle(tmp_path: Path) -> None:
    """A rollout that somebody cancels is rolled back at once, and a second one can begin."""
    async with stage(tmp_path) as made:
        await made.start(1)
        async with rolling(made, 1) as rolled:
            await made.born(1, "successor")
            new = made.puppet(0, "successor")
            # The generation is the same: nobody is new enough to be judged.
            await made.until(lambda: new.got(TakeOver))
            assert new.got(TakeOver)[0].failures == UNLIMITED
            rolled.roll.cancel("a reload comes")
            assert made.states() == ["ready"]
            assert made.fleet.next is None
            rolled.roll.cancel("once more")
        assert rolled.outcome == ["a reload comes"]
        assert new.story == ["take", "give", "drain"]
        async with rolling(made) as again:
            await made.born(1, "successor")
            old = made.puppet(0)
            await made.until(lambda: old.story[-1:] == ["give"])
            old.say(Swept(old.got(HandOver)[-1].session, 0, 0, 0))
        assert again.outcome == ["done"]


async def test_connections_of_a_slot_without_an_old_worker_go_to_another(tmp_path: Path) -> None:
    """When a rollout is rolled back and a slot has no old worker any more, what its new one has
    moves to another slot's.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        other = made.puppet(1)
        async with rolling(made) as rolled:
            await made.born(1, "successor")
            new = made.puppet(0, "successor")
            await made.kill(made.worker(0))
            assert made.states()[0] == "alone"
            rolled.roll.cancel("no")
        assert made.states() == ["starting", "ready"]
        assert new.story == ["give", "drain"]
        assert new.got(HandOver)[0].session == other.got(TakeOver)[0].session
