"""A master that is put aside by the kernel does not take its own pauses for those of others."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

from tests.unit.supervisor.puppets import stage
from wssup.scoreboard import Snapshot
from wssup.supervisor.slots import State


async def test_ready_while_the_master_stood_still(tmp_path: Path) -> None:
    """A worker that said in time that it is ready serves, although the master reads that only when
    ready_timeout is over. (In which order trio tells of both is chance.)
    """
    for _ in range(3):
        async with stage(tmp_path, ready_timeout=1.0) as made:
            made.fleet.scale(1)
            slot = made.fleet.slots[0]
            await made.until(lambda s=slot, m=made: m._newborn(s.current))
            worker = made.worker(0)
            made.puppet(0).ready()
            time.sleep(1.2)
            await made.until(lambda w=worker: w.booted.is_set() or w.gone.is_set())
            await made.until(lambda s=slot: s.state is not State.STARTING)
            assert slot.state is State.READY
            assert slot.current is worker
            assert not worker.aborted
            assert not worker.failure


async def test_put_aside_between_looking_and_judging(tmp_path: Path) -> None:
    """Workers whose heartbeats were fresh when they were read have not stalled, however long the
    master takes until it judges them.
    """
    async with stage(tmp_path, stall_after=0.3) as made:
        await made.start(1)
        snapshot, row = made.board.snapshot, made.puppet(0).row
        stalled: list[bool] = []

        def slowly() -> Snapshot:
            row.heartbeat(time.monotonic_ns(), 0)
            found = snapshot()
            time.sleep(0.4)
            return found

        made.watch._scoreboard = SimpleNamespace(snapshot=slowly)  # type: ignore[assignment]
        made.watch.on_look = lambda _: stalled.append(made.worker(0).stalled)
        await made.until(lambda: len(stalled) > 4)
        assert not any(stalled[1:])
