"""What the kernel is told when slots and loads change: a fleet whose workers are played."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.unit.supervisor.puppets import Stage, stage
from wssup.messages import Listen
from wssup.supervisor import booting
from wssup.supervisor.slots import State

HELD = 50


def shares(made: Stage) -> tuple[int, ...]:
    """What is in force."""
    return made.fleet._listeners.shares


def some(found: tuple[int, ...]) -> list[bool]:
    return [share > 0 for share in found]


async def crowded(made: Stage) -> None:
    """Three slots with connections, of which the first is lost and comes back empty."""
    await made.start(3)
    for slot in range(3):
        made.puppet(slot).connect(HELD)
    await made.until(lambda: some(shares(made)) == [True] * 3)
    worker = made.worker(0)
    await made.kill(worker)
    await made.until(lambda: made.fleet.slots[0].current not in {None, worker})
    await made.born(1)


async def test_an_empty_slot_gets_the_connections(tmp_path: Path) -> None:
    """A slot whose worker was replaced gets all new connections until it has as many as others,
    then all get some.
    """
    async with stage(tmp_path, backoff_min=0.01) as made:
        await crowded(made)
        await made.until(lambda: some(shares(made)) == [True, False, False])
        made.puppet(0).connect(HELD)
        await made.until(lambda: some(shares(made)) == [True] * 3)


async def test_a_full_slot_gets_none(tmp_path: Path) -> None:
    """A slot with as many connections as its part of max_connections weighs nothing while others
    have room.
    """
    async with stage(tmp_path, max_connections=3 * HELD) as made:
        await made.start(3)
        made.puppet(2).connect(HELD)
        await made.until(lambda: some(shares(made)) == [True, True, False])
        for slot in range(2):
            made.puppet(slot).connect(HELD)
        await made.until(lambda: shares(made) == (1, 1, 1))


@pytest.mark.parametrize("steering", ["hash", "source"])
async def test_modes_that_do_not_look_at_loads(tmp_path: Path, steering: str) -> None:
    """By hash those that serve are alike, and by source those in service, whatever they have; a
    setting that changes is in force with the next look.
    """
    async with stage(tmp_path, steering=steering, backoff_min=100, backoff_max=100) as made:
        await made.start(3)
        for slot in range(2):
            made.puppet(slot).connect(HELD)
        await made.until(lambda: shares(made) == (1, 1, 1))
        await made.kill(made.worker(0))
        assert made.fleet.slots[0].state is State.BACKOFF
        wanted = (0, 1, 1) if steering == "hash" else (1, 1, 1)
        await made.until(lambda: shares(made) == wanted)
        made.fleet.adopt_settings(msgspec.structs.replace(made.settings, steering="least"))
        await made.until(lambda: some(shares(made)) == [False, False, True])


async def test_the_first_worker_does_not_get_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an instance boots, connections wait for slots whose workers are about to be ready: none
    is lent, and each gets its part. One that takes too long is served by another one.
    """
    monkeypatch.setattr(booting, "_PATIENCE", 60.0)
    async with stage(tmp_path) as made:
        made.fleet.scale(3)
        await made.born(1)
        await made.until(lambda: made.fleet.slots[0].acceptor is not None)
        await made.until(lambda: some(shares(made)) == [True] * 3)
        assert made.puppet(0).got(Listen) == []
    monkeypatch.setattr(booting, "_PATIENCE", 0.05)
    async with stage(tmp_path) as made:
        made.fleet.scale(3)
        await made.born(1)
        lent = {1, 2}
        await made.until(lambda: {order.slot for order in made.puppet(0).got(Listen)} == lent)
        await made.until(lambda: some(shares(made)) == [True, False, False])


async def test_a_rush_after_a_pause_is_for_all(tmp_path: Path) -> None:
    """The first look at connections that come sees a few, by chance more in one slot: the others do
    not get all that come before the next look. When no more come, they get what they lack.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        await made.until(lambda: some(shares(made)) == [True] * 2)
        found = made.fleet.aiming
        await made.until(lambda: found._rate < 1)
        made.puppet(0).connect(9)
        snapshot = made.board.snapshot()
        found._aimed_at = float("-inf")
        found.look(snapshot.rows, snapshot.total.accepted)
        one, other = shares(made)
        assert 0 < one <= other < 1.2 * one
        await made.until(lambda: some(shares(made)) == [False, True])
