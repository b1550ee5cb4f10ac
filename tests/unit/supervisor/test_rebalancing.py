"""Connections move until all slots have equally many, on command and by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio.testing

from tests.unit.supervisor import puppets
from tests.unit.supervisor.puppets import Stage
from wssup.errors import CommandError
from wssup.messages import HandedOver, HandOver, TakeOver
from wssup.scoreboard import InstanceState
from wssup.supervisor import rebalancing as module
from wssup.supervisor.planning import UNLIMITED
from wssup.supervisor.rebalancing import Rebalancing


@dataclass
class Made:
    stage: Stage
    master: Any
    rebalancing: Rebalancing

    def end(self, slot: int, moved: int) -> None:
        """The slot's worker says that its sessions are over."""
        puppet = self.stage.puppet(slot)
        for give in puppet.got(HandOver):
            puppet.say(HandedOver(give.session, moved, ""))


@asynccontextmanager
async def stage(tmp_path: Path, **changes: object) -> AsyncIterator[Made]:
    async with puppets.stage(tmp_path, **changes) as made:
        master = SimpleNamespace(fleet=made.fleet, state=InstanceState.RUNNING, reloading=None)
        rebalancing = Rebalancing(master)  # type: ignore[arg-type]
        made.fleet.on_fresh = rebalancing.wish
        made.nursery.start_soon(rebalancing.run)
        yield Made(made, master, rebalancing)


async def test_those_that_have_many_give_to_those_that_have_few(tmp_path: Path) -> None:
    """Each session has its quota, any number may fail to resume (the code is the same), and the
    result says how many moved.
    """
    async with stage(tmp_path) as made:
        await made.stage.start(3)
        many, some, none = (made.stage.puppet(n) for n in range(3))
        many.connect(50)
        some.connect(10)
        rebalance = made.rebalancing.begin()
        assert rebalance.planned == 30
        assert sorted(give.quota for give in many.got(HandOver)) == [10, 20]
        assert some.story == none.story == ["take"]
        assert none.got(TakeOver)[0].failures == UNLIMITED
        with pytest.raises(CommandError, match="one is under way"):
            made.rebalancing.begin()
        assert not rebalance.over
        (sessions,) = rebalance.by_slot.values()
        handoffs = made.stage.fleet.handoffs
        for _ in range(5):
            many.row.moved_out(100)
        assert handoffs.moved(*sessions) == 5
        assert handoffs.moved(sessions[0]) == 0
        made.end(0, 14)
        await rebalance.wait()
        assert rebalance.moved == handoffs.moved(*sessions) == 28
        assert handoffs.moved(sessions[0]) == 14


async def test_nothing_to_do(tmp_path: Path) -> None:
    """Where the slots are even nobody is told anything, and it is over at once."""
    async with stage(tmp_path) as made:
        await made.stage.start(2)
        made.stage.puppet(0).connect(1)
        rebalance = made.rebalancing.begin()
        assert (rebalance.planned, rebalance.moved, rebalance.over) == (0, 0, True)


async def test_what_cannot_move_is_refused(tmp_path: Path) -> None:
    """Connections of an application that is not resumable stay, and whoever asks is told why."""
    async with stage(tmp_path) as made:
        await made.stage.start(2, resumable=False)
        made.stage.puppet(0).connect(9)
        with pytest.raises(CommandError, match="is not resumable"):
            made.rebalancing.begin()


async def test_a_reload_ends_it(tmp_path: Path) -> None:
    """Its sessions are recalled when a reload needs the workers."""
    async with stage(tmp_path) as made:
        await made.stage.start(2)
        made.stage.puppet(0).connect(9)
        rebalance = made.rebalancing.begin()
        made.rebalancing.stand_down()
        assert made.stage.puppet(0).story == ["give", "recall"]
        made.end(0, 2)
        await rebalance.wait()
        assert rebalance.moved == 2


async def test_a_new_worker_gets_its_share_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `rebalance` a worker that is new, after a scaling or a death, gets its share; not while
    a reload runs, and not before the last one is some time ago.
    """
    monkeypatch.setattr(module, "_EVERY", 0.2)
    async with stage(tmp_path, rebalance=True, backoff_min=0.01) as made:
        await made.stage.start(2)
        for n in range(2):
            made.stage.puppet(n).connect(30)
        made.master.reloading = object()
        made.stage.fleet.scale(3)
        await made.stage.until(lambda: len(made.stage.puppets) == 3)
        made.stage.puppet(2).ready()
        await made.stage.until(lambda: made.stage.states() == ["ready"] * 3)
        await trio.testing.wait_all_tasks_blocked(0.25)
        assert made.stage.puppet(0).story == []
        made.master.reloading = None
        made.stage.fleet.changed()
        await made.stage.until(lambda: made.stage.puppet(2).story == ["take", "take"])
        for n in range(2):
            made.end(n, 10)
        await made.stage.kill(made.stage.worker(2))
        await made.stage.until(lambda: len(made.stage.puppets) == 4)
        made.stage.puppet(2).ready()
        await made.stage.until(lambda: made.stage.puppet(2).story == ["take", "take"])


async def test_nothing_moves_by_itself_unless_it_is_wanted(tmp_path: Path) -> None:
    """Without the setting a new worker waits for clients that come."""
    async with stage(tmp_path) as made:
        await made.stage.start(1)
        made.stage.puppet(0).connect(30)
        made.stage.fleet.scale(2)
        await made.stage.until(lambda: len(made.stage.puppets) == 2)
        made.stage.puppet(1).ready()
        await made.stage.until(lambda: made.stage.states() == ["ready"] * 2)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert made.stage.puppet(0).story == []
