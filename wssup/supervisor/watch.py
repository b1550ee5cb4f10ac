"""Looks at the scoreboard: who stalls, who hangs. The one poll there is."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

import trio

from wssup import logs
from wssup.scoreboard import Scoreboard, Snapshot
from wssup.supervisor.children import Worker
from wssup.supervisor.fleet import Fleet

__all__ = ["Look", "Watch", "hung", "many_stall", "pause"]

#: Seconds between two looks while connections arrive, and at most when nothing moves.
_BUSY = 0.1
_IDLE = 1.0
#: After the look that the first connection is the reason of: it tells how fast they come.
_FIRST = 0.025
#: Seconds from when a worker may count as stalled until it is looked at, and at least until
#: anything is.
_BEYOND = 0.005
_SHORTEST = 0.02


class Look(NamedTuple):
    """How long a worker's loop has not turned, and what its generation allows; in seconds."""

    age: float
    stall_after: float
    hang_after: float


def many_stall(looks: Iterable[Look]) -> bool:
    """Whether several workers, at least half of them, stall: then the machine is the problem."""
    stalled = [look.age > look.stall_after for look in looks]
    return sum(stalled) > 1 and 2 * sum(stalled) >= len(stalled)


def hung(looks: Mapping[int, Look]) -> int | None:
    """The worker to end because its loop has not turned for its ``hang_after``, if any.

    One at a time, and none while many stall: ending workers would add to the machine's problem.

    :param looks: what each ready worker looks like, by serial number.
    """
    if not looks or many_stall(looks.values()):
        return None
    oldest = max(looks, key=lambda serial: looks[serial].age - looks[serial].hang_after)
    return oldest if looks[oldest].age > looks[oldest].hang_after else None


def pause(looks: Iterable[Look], most: float) -> float:
    """Seconds until the next look: the earliest moment at which a worker will count as stalled if
    its loop has turned for the last time.

    A worker beats several times in its ``stall_after``, so this moment moves on with the beats, and
    an idle instance is looked at no more often than about once a second.

    :param most: seconds at most.
    """
    for look in looks:
        left = look.stall_after - look.age
        # Of one that stalls already it is to be seen when it goes on.
        most = min(most, left + _BEYOND if left >= 0 else look.stall_after / 2)
    return max(most, _SHORTEST)


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
        self._many_stalled = False
        self._fleet = fleet
        self._scoreboard = scoreboard
        self._log = logs.get()

    async def run(self) -> None:
        """Look, for ever."""
        arrivals = self._fleet.aiming.arrivals
        was_idle = False
        while True:
            arrivals.forget()
            # The time first: put aside between the two, we would take our own pause for theirs.
            now = time.monotonic_ns()
            self.snapshot = self._scoreboard.snapshot()
            self.looked_at = trio.current_time()
            looks = self._judge(self.snapshot, now)
            self._fleet.admitting.look(self.snapshot.rows)
            if self._told is not None:
                self._told(self.snapshot)
            if self.on_look is not None:
                self.on_look(self.snapshot)
            moves = self._fleet.aiming.look(self.snapshot.rows, self.snapshot.total.accepted)
            if moves:
                most = _FIRST if was_idle else _BUSY
            else:
                idle = min(_IDLE, self._fleet.settings.stall_after)
                most = _BUSY if self._told is not None else idle
            was_idle = not moves and self._told is None
            with trio.move_on_after(pause(looks, most)):
                await self._woken(arrivals.wait if was_idle else trio.sleep_forever)
            self._hurry = trio.Event()

    async def _woken(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait for one of two reasons to look at once."""

        async def hurry() -> None:
            await self._hurry.wait()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurry)
            await wait()
            nursery.cancel_scope.cancel()

    def tell(self, told: Callable[[Snapshot], None] | None) -> None:
        """Call ``told`` with each look from now on, the first at once: a rollout that settles wants
        to know. ``None`` ends it.
        """
        self._told = told
        self._hurry.set()

    def _judge(self, snapshot: Snapshot, now: int) -> list[Look]:
        """Deal with those that stall or hang; what all look like."""
        fleet = self._fleet
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
        if many_stall(looks.values()) is not self._many_stalled:
            self._many_stalled = not self._many_stalled
            if self._many_stalled:
                self._log.warning(
                    "many_workers_stalled",
                    workers=len(looks),
                    hint="the machine is the problem: none is ended while at least half stall",
                )
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
        return list(looks.values())

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
