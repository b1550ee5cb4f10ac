"""Looks at the scoreboard: who stalls, who hangs. The one poll there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import trio

from wssup import logs
from wssup.scoreboard import Scoreboard, Snapshot
from wssup.supervisor.children import Worker
from wssup.supervisor.fleet import Fleet

__all__ = ["Watch", "hung"]

#: Seconds between two looks while connections arrive, and when nothing moves.
_BUSY = 0.1
_IDLE = 1.0


class Look(NamedTuple):
    """How long a worker's loop has not turned, and what its generation allows; in seconds."""

    age: float
    stall_after: float
    hang_after: float


def hung(looks: Mapping[int, Look]) -> int | None:
    """The worker to end because its loop has not turned for its ``hang_after``, if any.

    One at a time, and none while several, at least half of them, stall: then the machine is the
    problem, and ending workers would add to it.

    :param looks: what each ready worker looks like, by serial number.
    """
    stalled = [look for look in looks.values() if look.age > look.stall_after]
    if not looks or (len(stalled) > 1 and 2 * len(stalled) >= len(looks)):
        return None
    oldest = max(looks, key=lambda serial: looks[serial].age - looks[serial].hang_after)
    return oldest if looks[oldest].age > looks[oldest].hang_after else None


class Watch:
    """The sampler.

    :ivar snapshot: the last look; ``looked_at``: when that was (``trio.current_time()``).
    :ivar on_look: called with each look.
    """

    def __init__(self, fleet: Fleet, scoreboard: Scoreboard) -> None:
        self.snapshot: Snapshot = scoreboard.snapshot()
        self.looked_at = trio.current_time()
        self.on_look: Callable[[Snapshot], None] | None = None
        self._told: Callable[[Snapshot], None] | None = None
        self._hurry = trio.Event()
        self._suspect: int | None = None
        self._fleet = fleet
        self._scoreboard = scoreboard
        self._log = logs.get()

    async def run(self) -> None:
        """Look, for ever."""
        accepted = 0
        while True:
            self.snapshot = self._scoreboard.snapshot()
            self.looked_at = trio.current_time()
            self._judge(self.snapshot)
            self._fleet.admitting.look(self.snapshot.rows)
            if self._told is not None:
                self._told(self.snapshot)
            if self.on_look is not None:
                self.on_look(self.snapshot)
            moves = self.snapshot.total.accepted != accepted
            accepted = self.snapshot.total.accepted
            busy = moves or self._told is not None
            pause = _BUSY if busy else min(_IDLE, self._fleet.settings.stall_after / 2)
            with trio.move_on_after(pause):
                await self._hurry.wait()
            self._hurry = trio.Event()

    def tell(self, told: Callable[[Snapshot], None] | None) -> None:
        """Call ``told`` with each look from now on, the first at once: a rollout that settles wants
        to know. ``None`` ends it.
        """
        self._told = told
        self._hurry.set()

    def _judge(self, snapshot: Snapshot) -> None:
        fleet = self._fleet
        now = time.monotonic_ns()
        looks: dict[int, Look] = {}
        for view in snapshot.rows:
            worker = fleet.workers.get(view.serial)
            if worker is None or not worker.ready or worker.aborted:
                continue
            # By its own generation's limits: its beats are as frequent as those ask for.
            limits = worker.generation.settings
            # A stale copy may be from before its first beat, but who is ready has turned.
            turned = max(view.heartbeat_ns, worker.ready_ns)
            look = Look((now - turned) / 1e9, limits.stall_after, limits.hang_after)
            looks[view.serial] = look
            if not worker.leaving and (look.age > look.stall_after) is not worker.stalled:
                self._mark(worker, turned, now)
        victim, suspect = hung(looks), self._suspect
        self._suspect = victim
        # Twice in a row: where all had stalled, the last to recover is not to be taken for the only
        # one that hangs.
        if victim is not None and victim == suspect:
            worker = fleet.workers[victim]
            age = looks[victim].age
            worker.failure = f"its loop did not turn for {age:.1f} s (hang_after)"
            logs.get(**worker.noun).error("worker_hung", seconds=round(age, 1))
            fleet.kill(worker)

    def _mark(self, worker: Worker, turned: int, now: int) -> None:
        """A worker has stalled, or turns again.

        :param turned: when it last turned, as ``now`` in ns of CLOCK_MONOTONIC.
        """
        log = logs.get(**worker.noun)
        if worker.stalled:
            log.info("worker_recovered", seconds=round((turned - worker.stalled_ns) / 1e9, 1))
        else:
            worker.stalled_ns = turned
            log.warning("worker_stalled", seconds=round((now - turned) / 1e9, 1))
        self._fleet.stall(worker, stalled=not worker.stalled)
