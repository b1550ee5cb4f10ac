"""The fleet with real listeners, scoreboard and channels, but without a zygote. Whole lives are
tested on real instances.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import trio
import trio.testing

from tests.unit.supervisor.forkless import fleet
from wssup.messages import Drain
from wssup.supervisor.children import Slot
from wssup.supervisor.slots import Event, State

#: How often a course of events is tried whose order is trio's, which shuffles it.
TRIES = 20


async def test_scaling_starts_and_parks(tmp_path: Path) -> None:
    """Slots are started in order, the last ones are parked, and a parked one is started again; each
    has its listeners, which stay.
    """
    async with fleet(tmp_path) as made:
        made.fleet.scale(3)
        assert made.states == [State.STARTING] * 3
        assert (made.fleet.count, made.listeners.slots) == (3, 3)
        made.fleet.scale(1)
        assert made.states == [State.STARTING, State.PARKED, State.PARKED]
        assert (made.fleet.count, made.listeners.slots) == (1, 3)
        made.fleet.scale(2)
        assert made.states == [State.STARTING, State.STARTING, State.PARKED]
        assert [w.slot for w in made.fleet.workers.values()] == [0, 1]
        assert not made.fleet.settled


async def test_a_worker_that_nobody_was_asked_for_yet_is_given_up_at_once(tmp_path: Path) -> None:
    """Without a zygote to ask, parking a slot ends its worker, and its row is free again."""
    async with fleet(tmp_path, rows=1) as made:
        for serial in (1, 2, 3):
            made.fleet.scale(1)
            assert made.worker.serial == serial
            made.fleet.event(made.fleet.slots[0], Event.PARK)
            assert made.fleet.workers == {}
            assert made.board.snapshot().rows == ()
            await trio.lowlevel.checkpoint()


async def test_no_row_left(tmp_path: Path) -> None:
    """A slot for whose worker the scoreboard has no row waits, says why, and starts as soon as
    there is one.
    """
    async with fleet(tmp_path, rows=1, backoff_min=0.01, backoff_max=0.02) as made:
        made.fleet.scale(2)
        await made.until(State.STARTING, State.BACKOFF)
        assert "all 1 rows of the scoreboard are taken" in made.fleet.slots[1].error
        made.fleet.event(made.fleet.slots[0], Event.PARK)
        await made.until(State.PARKED, State.STARTING)
        while not made.fleet.workers:
            await made.fleet.wait_changed()
        assert made.worker.slot == 1


async def test_parked_before_it_was_known_that_there_is_no_row(tmp_path: Path) -> None:
    """A slot that is parked in the turn in which its worker could not be started stays parked."""
    async with fleet(tmp_path, rows=1) as made:
        made.fleet.scale(2)
        made.fleet.scale(1)
        await trio.testing.wait_all_tasks_blocked()
        assert made.states == [State.STARTING, State.PARKED]


async def test_several_successors_without_a_row(tmp_path: Path) -> None:
    """When no successor of a rollout gets a row, the first one's failure rolls the others back
    before theirs is known, and all slots serve on.
    """
    async with fleet(tmp_path, rows=3) as made:
        made.fleet.scale(3)
        for slot in made.fleet.slots.values():
            made.fleet.event(slot, Event.CURRENT_READY)
        heard: list[tuple[int, str]] = []

        def rolled_back(slot: int, what: str, *_: str) -> None:
            heard.append((slot, what))
            for other in made.fleet.slots.values():
                if other.state is State.REPLACING:
                    made.fleet.event(other, Event.ROLL_BACK)

        made.fleet.on_successor = rolled_back
        made.fleet.next = made.fleet.generation(2, made.settings)
        for slot in made.fleet.slots.values():
            made.fleet.event(slot, Event.REPLACE)
        await trio.testing.wait_all_tasks_blocked()
        assert made.states == [State.READY] * 3
        assert [what for _, what in heard] == ["lost"]


async def test_parked_in_the_turn_in_which_it_was_due(tmp_path: Path) -> None:
    """A slot that is parked in the very turn in which its next try is due stays parked."""
    often = {"failure_budget": 1000, "backoff_min": 0.01, "backoff_max": 0.01}
    async with fleet(tmp_path, **often) as made:
        for _ in range(TRIES):
            made.fleet.scale(1)
            slot = made.fleet.slots[0]
            made.fleet.attendant.give_up(made.worker, "lost")
            assert slot.state is State.BACKOFF
            # The retry and this task wake in the same turn: the loop stands still until the times
            # of both are over.
            async with trio.open_nursery() as nursery:

                async def park(slot: Slot = slot) -> None:
                    await trio.sleep(0.01)
                    if slot.state is State.BACKOFF:
                        made.fleet.event(slot, Event.PARK)
                        await trio.testing.wait_all_tasks_blocked()
                        assert slot.state is State.PARKED

                nursery.start_soon(park)
                await trio.testing.wait_all_tasks_blocked()
                time.sleep(0.02)
            made.fleet.scale(0)


async def test_given_up_before_its_first_turn(tmp_path: Path) -> None:
    """A worker that is started and given up in one turn leaves its tasks nothing to fail at."""
    async with fleet(tmp_path) as made:
        for _ in range(3):
            made.fleet.scale(2)
            made.fleet.scale(0)
        await trio.testing.wait_all_tasks_blocked()
        assert made.states == [State.PARKED] * 2


async def test_new_settings_apply_to_all_slots(tmp_path: Path) -> None:
    """After a reload the delays and budgets of all slots are the new ones."""
    async with fleet(tmp_path) as made:
        made.fleet.scale(2)
        changed = msgspec.structs.replace(made.settings, backoff_min=7.0, failure_budget=1)
        made.fleet.adopt_settings(changed)
        for slot in made.fleet.slots.values():
            assert slot.backoff.lost(at_boot=False, lived=0) == 7.0
            assert slot.backoff.lost(at_boot=True, lived=0) is None


async def test_nothing_starts_after_stop(tmp_path: Path) -> None:
    """Once the fleet stops, events move no slot and nobody is started."""
    async with fleet(tmp_path) as made:
        made.fleet.scale(2)
        made.fleet.stop(Drain(1001, "", 0, 1))
        assert made.fleet.workers == {}
        before = made.states
        made.fleet.event(made.fleet.slots[0], Event.PARK)
        made.fleet.scale(3)
        assert made.states[:2] == before
        assert made.fleet.workers == {}
