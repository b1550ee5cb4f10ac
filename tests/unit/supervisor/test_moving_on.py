"""Connections of a worker that goes, and whose receiver goes before it has taken all of them: they
move on to another one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.unit.supervisor.puppets import Puppet, Stage, stage
from wssup.messages import Drain, HandedOver, HandOver, Leaving
from wssup.supervisor.slots import Event


def receivers(puppet: Puppet) -> list[int]:
    """To whom it was told to give all that it has."""
    return [give.receiver for give in puppet.got(HandOver) if not give.quota]


def last(puppet: Puppet) -> int:
    """The last session in which it gives all."""
    return [give.session for give in puppet.got(HandOver) if not give.quota][-1]


async def leaves(made: Stage, workers: int) -> tuple[Puppet, int]:
    """The last of so many workers, which is parked, has five connections, and gives all of them in
    this session.
    """
    await made.start(workers)
    puppet = made.puppet(workers - 1)
    puppet.connect(5)
    made.fleet.scale(workers - 1)
    return puppet, last(puppet)


async def heard(made: Stage, number: int) -> None:
    """The master has heard the end of a session."""
    await made.until(lambda: number not in {s.number for s in made.fleet.handoffs.under_way()})
    await trio.testing.wait_all_tasks_blocked(0.05)


async def test_a_receiver_that_goes_itself(tmp_path: Path) -> None:
    """Two commands in a row: who was to take the connections of the first that is parked is parked
    next; those that stay take them. The order to end says that they move.
    """
    async with stage(tmp_path) as made:
        await made.start(3)
        puppets = [made.puppet(n) for n in range(3)]
        for puppet, count in zip(puppets, (20, 10, 5), strict=True):
            puppet.connect(count)
        made.fleet.scale(2)
        first = last(puppets[2])
        assert receivers(puppets[2]) == [puppets[1].serial]
        assert puppets[2].got(Drain)[0].moves
        made.fleet.scale(1)
        puppets[2].say(HandedOver(first, 0, "receiver_lost"))
        await heard(made, first)
        assert receivers(puppets[2]) == [puppets[1].serial, puppets[0].serial]
        assert puppets[2].story.count("drain") == 1


@pytest.mark.parametrize("error", ["receiver_full", "resume_failures", "it failed; see the log"])
async def test_what_the_next_one_does_no_better(tmp_path: Path, error: str) -> None:
    """After any other error nobody else is asked."""
    async with stage(tmp_path) as made:
        puppet, session = await leaves(made, 3)
        puppet.say(HandedOver(session, 0, error))
        await heard(made, session)
        made.puppet(1).say(Leaving("it was told to"))
        await made.until(lambda: made.states()[1] != "ready")
        assert len(receivers(puppet)) == 1


async def test_there_is_nobody_yet(tmp_path: Path) -> None:
    """The only worker that stays is not there at the moment: its successor takes them, and until
    then the one that goes is not told to close them.
    """
    async with stage(tmp_path, backoff_min=0.1) as made:
        await made.start(2)
        parked = made.puppet(1)
        parked.connect(5)
        await made.kill(made.worker(0))
        made.fleet.scale(1)
        assert parked.story == ["drain"]
        assert parked.got(Drain)[0].moves
        await made.born(1)
        await made.until(lambda: parked.story == ["drain", "give"])
        assert receivers(parked) == [made.puppet(0).serial]


async def test_who_was_ready_and_not_known_to_be(tmp_path: Path) -> None:
    """A worker is told to go before the master has read that it is ready: what it has let in moves,
    as soon as that is read.
    """
    async with stage(tmp_path) as made:
        await made.start(1)
        made.fleet.scale(2)
        await made.until(lambda: len(made.puppets) == 2)
        newcomer = made.puppet(1)
        made.fleet.scale(1)
        assert newcomer.story == ["drain"]
        newcomer.ready()
        await made.until(lambda: newcomer.story == ["drain", "give"])
        assert receivers(newcomer) == [made.puppet(0).serial]


async def test_back_to_somebody_who_goes(tmp_path: Path) -> None:
    """A rollout is taken back, and the worker that gets its connections back is parked in the same
    breath: they go to another one.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        old = made.worker(1)
        slot = made.fleet.slots[1]
        made.fleet.next = made.generation(2)
        made.fleet.event(slot, Event.REPLACE)
        await made.until(lambda: slot.successor is not None and len(made.puppets) == 3)
        successor = made.puppet(1, "successor")
        successor.ready()
        await made.until(lambda: slot.state == "settling")
        successor.connect(7)
        made.fleet.event(slot, Event.HAND_OVER)
        made.fleet.event(slot, Event.ROLL_BACK)
        made.fleet.next = None
        assert receivers(successor) == [old.serial]
        session = last(successor)
        made.fleet.scale(1)
        successor.say(HandedOver(session, 3, "receiver_lost"))
        await heard(made, session)
        assert receivers(successor) == [old.serial, made.puppet(0).serial]


async def test_a_receiver_that_leaves_by_itself(tmp_path: Path) -> None:
    """A receiver whose word that it leaves is not read yet is not asked again."""
    async with stage(tmp_path) as made:
        puppet, session = await leaves(made, 3)
        lost = made.puppets[receivers(puppet)[0]]
        puppet.say(HandedOver(session, 0, "receiver_lost"))
        await heard(made, session)
        lost.say(Leaving("it was told to"))
        await made.until(lambda: made.states().count("ready") == 1)
        assert len(receivers(puppet)) == 2
        assert receivers(puppet)[1] != lost.serial


async def test_each_is_asked_once(tmp_path: Path) -> None:
    """Receivers that live, and end their sessions all the same (a record that none can read), are
    asked once each.
    """
    async with stage(tmp_path) as made:
        puppet, _ = await leaves(made, 4)
        for asked in (1, 2, 3):
            assert len(set(receivers(puppet))) == len(receivers(puppet)) == asked
            session = last(puppet)
            puppet.say(HandedOver(session, 0, "receiver_lost"))
            await heard(made, session)
        made.puppet(1).say(Leaving("it was told to"))
        await made.until(lambda: made.states()[1] != "ready")
        assert len(receivers(puppet)) == 3


@pytest.mark.parametrize("on_reload", ["handoff", "close"])
async def test_to_other_code(tmp_path: Path, on_reload: str) -> None:
    """Connections of a worker that was parked before a reload move on to workers of the new code
    only where a reload would have them do so.
    """
    async with stage(tmp_path, on_reload=on_reload) as made:
        parked, session = await leaves(made, 2)
        slot = made.fleet.slots[0]
        new = made.fleet.next = made.generation(2)
        made.fleet.event(slot, Event.REPLACE)
        await made.born(1, "successor")
        await made.until(lambda: slot.state == "settling")
        made.fleet.serving, made.fleet.next = new, None
        made.fleet.event(slot, Event.COMMIT)
        parked.say(HandedOver(session, 0, "receiver_lost"))
        await heard(made, session)
        assert len(receivers(parked)) == (2 if on_reload == "handoff" else 1)


async def test_at_a_stop_nobody_moves_on(tmp_path: Path) -> None:
    """When the instance stops, who is left by its receiver is closed."""
    async with stage(tmp_path) as made:
        puppet, session = await leaves(made, 3)
        made.fleet.stop(Drain(1001, "server stops", 0, 1, final=True))
        puppet.say(HandedOver(session, 0, "recalled"))
        await heard(made, session)
        assert len(receivers(puppet)) == 1
        assert [order.moves for order in puppet.got(Drain)] == [True, False]
