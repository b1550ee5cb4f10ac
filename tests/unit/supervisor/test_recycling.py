"""Workers that are old, large or have served many are replaced, one at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.supervisor import puppets
from tests.unit.supervisor.puppets import Stage
from wssup.messages import HandOver, Swept, TakeOver
from wssup.scoreboard import InstanceState, RefusedReason
from wssup.supervisor import recycling as module
from wssup.supervisor.planning import UNLIMITED
from wssup.supervisor.recycling import REASONS, Bounds, Look, Recycling, due, patience

NONE = Bounds(0, 0, 0)


def test_nobody_is_due_without_bounds() -> None:
    """Zero is no bound."""
    assert due({1: Look(10**9, 10**15, 10**9)}, NONE) is None
    assert due({}, Bounds(1, 1, 1)) is None


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (Look(111, 0, 0), "age"),
        (Look(0, 2000, 0), "rss"),
        (Look(0, 0, 50), "connections"),
        (Look(89, 1999, 49), None),
    ],
)
def test_each_bound(look: Look, reason: str | None) -> None:
    """A worker is due at its bound of age (give or take a tenth), memory or connections."""
    expected = (7, reason) if reason else None
    assert due({7: look, 8: Look(0, 0, 0)}, Bounds(100, 2000, 50)) == expected


def test_the_furthest_beyond_goes_first() -> None:
    """Of several that are due the one that is furthest beyond its bound is replaced first; of equal
    ones the oldest.
    """
    bounds = Bounds(0, 1000, 100)
    assert due({1: Look(0, 1500, 0), 2: Look(0, 0, 180)}, bounds) == (2, "connections")
    assert due({5: Look(0, 0, 100), 3: Look(0, 0, 100)}, bounds) == (3, "connections")


looks = st.builds(Look, st.floats(0, 1e6), st.integers(0, 10**12), st.integers(0, 10**9))
bounds = st.builds(Bounds, st.floats(0, 1e6), st.integers(0, 10**12), st.integers(0, 10**9))


@given(st.dictionaries(st.integers(1, 10**6), looks, max_size=8), bounds)
def test_who_is_due_is_beyond_a_bound(workers: dict[int, Look], most: Bounds) -> None:
    """Whoever is chosen is beyond the bound that is named; if nobody is, none is beyond any."""
    found = due(workers, most)
    beyond = {
        (serial, reason)
        for serial, look in workers.items()
        for reason, value, bound in zip(REASONS, look, most, strict=True)
        if bound and value >= (patience(serial, bound) if reason == "age" else bound)
    }
    assert found in beyond if beyond else found is None


@given(st.integers(1, 10**9), st.integers(2, 64))
def test_workers_that_start_together_are_not_replaced_together(first: int, count: int) -> None:
    """Ages stay within a tenth of the bound, and those of up to 64 workers with numbers in a row
    are all different by the 64th part of the range, give or take.
    """
    ages = sorted(patience(serial, 1000) for serial in range(first, first + count))
    assert ages[0] >= 900
    assert ages[-1] <= 1100
    gaps = [b - a for a, b in pairwise(ages)]
    assert min(gaps) > 200 / 64 / 3


@dataclass
class Made:
    stage: Stage
    master: Any
    recycling: Recycling


@asynccontextmanager
async def stage(tmp_path: Path, **changes: object) -> AsyncIterator[Made]:
    """A stage whose master recycles."""
    async with puppets.stage(tmp_path, **changes) as made:
        master = SimpleNamespace(
            fleet=made.fleet,
            watch=made.watch,
            nursery=made.nursery,
            state=InstanceState.RUNNING,
            reloading=None,
        )
        recycling = Recycling(master)  # type: ignore[arg-type]
        made.watch.on_look = recycling.look
        yield Made(made, master, recycling)


async def test_a_worker_is_replaced_by_one_of_its_own_generation(tmp_path: Path) -> None:
    """A worker that has accepted enough gets a successor of the same generation, hands its
    connections over to it, however many cannot resume, and drains; the other one waits for its
    turn. Both are counted.
    """
    async with stage(tmp_path, max_worker_connections=10) as made:
        fleet = made.stage.fleet
        await made.stage.start(2)
        old = [made.stage.puppet(n) for n in range(2)]
        old[1].connect(20)
        old[0].connect(15)
        for slot in (1, 0):
            await made.stage.until(lambda s=slot: fleet.slots[s].successor)
            assert fleet.slots[1 - slot].successor is None
            worker = made.stage.worker(slot)
            await made.stage.until(
                lambda s=slot: made.stage.worker(s, "successor").serial in made.stage.puppets
            )
            new = made.stage.puppet(slot, "successor")
            new.ready()
            await made.stage.until(lambda n=new: n.got(TakeOver))
            assert new.got(TakeOver)[0].failures == UNLIMITED
            old[slot].say(Swept(old[slot].got(HandOver)[0].session, 20, 0, 0))
            await made.stage.until(lambda s=slot: old[s].story[-1:] == ["drain"])
            assert made.stage.worker(slot).generation is worker.generation
            assert made.stage.states()[slot] == "draining"
            await made.stage.kill(worker)
        assert made.recycling.counts == {"age": 0, "rss": 0, "connections": 2}
        assert fleet.serving is not None
        assert fleet.serving.number == 1
        assert fleet.restarts == 0


async def test_who_was_turned_away_counts_for_nothing(tmp_path: Path) -> None:
    """A worker that accepted clients only to turn them away is not due for them."""
    async with stage(tmp_path, max_worker_connections=10) as made:
        await made.stage.start(2)
        first, second = (made.stage.puppet(n) for n in range(2))
        for _ in range(20):
            first.row.accepted()
            first.row.refused(RefusedReason.LIMIT)
        second.connect(10)
        await made.stage.until(lambda: made.stage.fleet.slots[1].successor)
        assert made.stage.fleet.slots[0].successor is None


async def test_a_reload_cancels_it(tmp_path: Path) -> None:
    """When others need the slots the replacement is rolled back at once, and what has moved comes
    back.
    """
    async with stage(tmp_path, max_worker_connections=10) as made:
        await made.stage.start(1)
        old = made.stage.puppet(0)
        old.connect(20)
        await made.stage.until(lambda: made.stage.fleet.slots[0].successor)
        await made.stage.born(1, "successor")
        new = made.stage.puppet(0, "successor")
        await made.stage.until(lambda: made.stage.states() == ["moving"])
        made.master.reloading = object()
        made.recycling.stand_down("a reload replaces all workers")
        assert made.stage.states() == ["ready"]
        assert made.stage.fleet.next is None
        assert old.story == ["hold", "give", "recall", "accept", "take"]
        assert new.story == ["take", "give", "drain"]
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert made.recycling.counts["connections"] == 0


async def test_nothing_is_replaced_while_something_else_goes_on(tmp_path: Path) -> None:
    """While a reload runs, or the instance does not, nobody is replaced."""
    async with stage(tmp_path, max_worker_connections=10) as made:
        await made.stage.start(1)
        made.stage.puppet(0).connect(20)
        made.master.reloading = object()
        made.recycling.look(made.stage.board.snapshot())
        made.master.reloading, made.master.state = None, InstanceState.DRAINING
        made.recycling.look(made.stage.board.snapshot())
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert made.stage.states() == ["ready"]
        made.master.state = InstanceState.RUNNING
        await made.stage.until(lambda: made.stage.states() == ["replacing"])


async def test_what_begins_in_the_same_turn_comes_first(tmp_path: Path) -> None:
    """When a slot is parked, or a reload begins, in the turn in which its worker was found to be
    due, nothing is replaced.
    """
    async with stage(tmp_path, max_worker_connections=10) as made:
        await made.stage.start(2)
        made.stage.puppet(1).connect(20)
        made.recycling.look(made.stage.board.snapshot())
        made.stage.fleet.scale(1)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert made.stage.states() == ["ready", "parked"]
        made.stage.puppet(0).connect(20)
        made.recycling._next_look = 0.0
        made.recycling.look(made.stage.board.snapshot())
        made.master.reloading = object()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert made.stage.states() == ["ready", "parked"]


async def test_a_successor_that_fails_is_not_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the new worker dies the old one serves on, and the next try waits."""
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.0)
    async with stage(tmp_path, max_worker_connections=10, backoff_max=100) as made:
        await made.stage.start(1)
        made.stage.puppet(0).connect(20)
        await made.stage.until(lambda: made.stage.fleet.slots[0].successor)
        await made.stage.until(lambda: len(made.stage.puppets) == 2)
        await made.stage.kill(made.stage.worker(0, "successor"))
        assert made.stage.states() == ["ready"]
        await trio.testing.wait_all_tasks_blocked(0.05)
        made.recycling.look(made.stage.board.snapshot())
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert made.stage.states() == ["ready"]
        assert made.recycling.counts["connections"] == 0
