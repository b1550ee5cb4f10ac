"""The number of workers follows the load, and a command does not argue with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio.testing

from tests.unit.supervisor import puppets
from tests.unit.supervisor.puppets import Stage
from wssup.config.scaling import Autoscale
from wssup.errors import CommandError
from wssup.messages import HandOver
from wssup.scoreboard import ClosedReason, InstanceState
from wssup.supervisor.limits import Nofile
from wssup.supervisor.scaling import Scaling


@dataclass
class Made:
    stage: Stage
    master: Any
    scaling: Scaling
    told: list[str]

    def look(self) -> list[str]:
        """What the slots are after one look."""
        self.scaling.look(self.stage.board.snapshot())
        return self.stage.states()

    def born(self, slot: int) -> bool:
        """Whether a slot's worker is there to speak."""
        worker = self.stage.fleet.slots[slot].current
        return worker is not None and worker.serial in self.stage.puppets

    def resize(self, bounds: object) -> None:
        """A reload has brought other bounds."""
        settings = msgspec.structs.replace(self.stage.fleet.settings, workers=bounds)
        self.stage.fleet.adopt_settings(settings)
        self.master.settings = settings


@asynccontextmanager
async def stage(tmp_path: Path, *, workers: str, after: str = "0") -> AsyncIterator[Made]:
    """A stage whose number of workers follows the load; a test looks when it likes."""
    changes = {"workers": workers, "scale_down_after": after}
    async with puppets.stage(tmp_path, **changes) as made:
        told: list[str] = []
        master = SimpleNamespace(
            fleet=made.fleet,
            settings=made.fleet.settings,
            state=InstanceState.RUNNING,
            reloading=None,
            recycling=SimpleNamespace(busy=False, stand_down=told.append),
            nofile=Nofile(1024, 20_000, 20_000),
            capacity=lambda: 0,
        )
        yield Made(made, master, Scaling(master), told)  # type: ignore[arg-type]


async def test_it_grows_at_once_and_shrinks_one_by_one(tmp_path: Path) -> None:
    """A storm brings as many workers as it takes in one look; when it is over they go one at a
    time, the next one only when the one before is gone, and down to the least. Status tells each.
    """
    async with stage(tmp_path, workers="min=1,max=4,connections_per_worker=10") as made:
        await made.stage.start(1)
        first = made.stage.puppet(0)
        first.connect(8)
        assert made.look() == ["ready"]
        assert made.scaling.facts is not None
        assert made.scaling.facts.last is None
        first.connect(92)
        assert made.look() == ["ready"] + ["starting"] * 3
        assert made.look() == ["ready"] + ["starting"] * 3
        facts = made.scaling.facts
        assert (facts.min, facts.max, facts.each) == (1, 4, 10)
        assert facts.last is not None
        assert (facts.last.workers, facts.last.was, facts.last.reason) == (4, 1, "full")
        for _ in range(100):
            first.row.closed(ClosedReason.CLIENT, 1)
        # One of them does not do well yet: nobody goes meanwhile.
        assert made.look() == ["ready"] + ["starting"] * 3
        for index in (1, 2, 3):
            await made.stage.until(lambda n=index: made.born(n))
            made.stage.puppet(index).ready()
            await made.stage.worker(index).booted.wait()
        for left in (3, 2, 1):
            going = made.stage.worker(left)
            assert made.look() == ["ready"] * left + ["parked"] * (4 - left)
            assert made.look() == ["ready"] * left + ["parked"] * (4 - left)
            await made.stage.kill(going)
        assert made.look() == ["ready"] + ["parked"] * 3
        last = made.scaling.facts.last
        assert last is not None
        assert (last.workers, last.was, last.reason) == (1, 2, "idle")


async def test_it_waits_before_a_worker_goes(tmp_path: Path) -> None:
    """A load that was low for less than scale_down_after takes no worker away."""
    bounds = "min=1,max=4,connections_per_worker=10"
    async with stage(tmp_path, workers=bounds, after="1h") as made:
        await made.stage.start(2)
        for _ in range(3):
            assert made.look() == ["ready", "ready"]


@pytest.mark.parametrize("resumable", [True, False])
async def test_nobody_is_disconnected(tmp_path: Path, resumable: bool) -> None:  # noqa: FBT001
    """The connections of the worker that goes move to the others; where they cannot, it stays as
    long as it has any, and status says why.
    """
    async with stage(tmp_path, workers="min=1,max=4,connections_per_worker=10") as made:
        await made.stage.start(2, resumable=resumable)
        last = made.stage.puppet(1)
        last.connect(2)
        if resumable:
            assert made.look() == ["ready", "parked"]
            assert len(last.got(HandOver)) == 1
            return
        assert made.look() == ["ready", "ready"]
        facts = made.scaling.facts
        assert facts is not None
        assert "is not resumable" in facts.held
        first = made.stage.puppet(0)
        first.connect(8)
        assert made.look() == ["ready", "ready"]
        assert made.scaling.facts is not None
        assert made.scaling.facts.held == ""
        for puppet, count in ((first, 8), (last, 2)):
            for _ in range(count):
                puppet.row.closed(ClosedReason.CLIENT, 1)
        assert made.look() == ["ready", "parked"]
        assert made.scaling.facts is not None
        assert made.scaling.facts.held == ""


async def test_it_keeps_out_of_the_way(tmp_path: Path) -> None:
    """While a reload runs, or the instance does not, nothing follows the load; while a worker is
    recycled, stalls, or gives connections away, none goes.
    """
    async with stage(tmp_path, workers="min=1,max=4,connections_per_worker=10") as made:
        await made.stage.start(2)
        one, two = made.stage.worker(0), made.stage.worker(1)
        made.master.recycling.busy = True
        assert made.look() == ["ready", "ready"]
        made.master.recycling.busy = False
        made.stage.fleet.stall(one, stalled=True)
        assert made.look() == ["ready", "ready"]
        made.stage.fleet.stall(one, stalled=False)
        session = made.stage.fleet.handoffs.open(one, two, quota=1, failures=1)
        assert session is not None
        assert made.look() == ["ready", "ready"]
        made.stage.puppet(0).connect(30)
        for state, reloading in (
            (InstanceState.RUNNING, object()),
            (InstanceState.RELOADING, None),
            (InstanceState.DRAINING, None),
        ):
            made.master.state, made.master.reloading = state, reloading
            assert made.look() == ["ready", "ready"]
        made.master.state = InstanceState.RUNNING
        assert made.look() == ["ready", "ready", "starting", "starting"]


async def test_other_bounds_are_kept(tmp_path: Path) -> None:
    """Bounds that a reload has changed are followed: more at once, fewer one by one."""
    async with stage(tmp_path, workers="min=1,max=4,connections_per_worker=10") as made:
        await made.stage.start(1)
        made.resize(Autoscale(2, 3, 10))
        assert made.look() == ["ready", "starting"]
        facts = made.scaling.facts
        assert facts is not None
        assert facts.last is not None
        assert facts.last.reason == "bounds"
        made.resize(2)
        assert made.scaling.facts is None
        made.stage.puppet(0).connect(100)
        assert made.look() == ["ready", "starting"]


async def test_commands(tmp_path: Path) -> None:
    """A number is refused while the load decides, with what to do; else it is what there will be,
    within max_workers.
    """
    async with stage(tmp_path, workers="min=1,max=4,connections_per_worker=10") as made:
        await made.stage.start(1)
        with pytest.raises(CommandError, match="follows the load, 1 to 4") as caught:
            made.scaling.to(2)
        assert caught.value.code == "refused"
        assert "reload" in caught.value.remedy
        made.resize("auto")
        for workers in (0, 65):
            with pytest.raises(CommandError, match="it must be 1 to 64"):
                made.scaling.to(workers)
        assert made.told == []
        made.scaling.to(2)
        assert made.stage.states() == ["ready", "starting"]
        assert made.told == ["the number of workers changes"]
        await trio.testing.wait_all_tasks_blocked()
