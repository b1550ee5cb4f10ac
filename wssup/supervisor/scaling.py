"""Changes the number of workers: on command, or with the load (autoscale.py decides)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from wssup import logs
from wssup.config.plan import room
from wssup.config.scaling import Autoscale
from wssup.errors import CommandError, ListenError
from wssup.scoreboard import InstanceState, Snapshot
from wssup.status.facts import AutoscaledFacts, AutoscaleFacts
from wssup.supervisor.autoscale import Patience, each, wanted
from wssup.supervisor.handoffs import obstacle

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["Scaling"]


class Scaling:
    """The hand on the number of slots in service."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._fleet = master.fleet
        self._patience = Patience()
        self._next_try = 0.0
        self._last: AutoscaledFacts | None = None
        self._held = ""

    def to(self, workers: int) -> None:
        """Have another number of workers, because somebody says so.

        :raises CommandError: if there is a reason not to.
        """
        settings = self._master.settings
        bounds = settings.workers
        if isinstance(bounds, Autoscale):
            raise CommandError(
                "refused",
                f"the number of workers follows the load, {bounds.min} to {bounds.max}",
                "change min or max of workers in the configuration and reload; a number in their "
                "place ends it",
            )
        most = settings.max_workers
        if not 1 <= workers <= most:
            raise CommandError(
                "bad_argument",
                f"{workers} workers: it must be 1 to {most}",
                "max_workers sets the upper end",
            )
        if 0 < settings.max_connections < workers:
            raise CommandError(
                "bad_argument",
                f"{workers} workers: max_connections = {settings.max_connections} is fewer, so "
                "some could let nobody in",
                "raise max_connections, or have fewer workers",
            )
        self._master.recycling.stand_down("the number of workers changes")
        try:
            self._fleet.scale(workers)
        except ListenError as error:
            raise CommandError("refused", error.message, error.remedy) from error
        logs.get().info("scaled", workers=workers, capacity=self._master.capacity())

    def look(self, snapshot: Snapshot) -> None:
        """Follow the load, if the settings say so.

        What draining workers still have counts, too: it comes to the others, or comes back.
        """
        bounds = self._fleet.settings.workers
        now = trio.current_time()
        if not isinstance(bounds, Autoscale):
            self._patience.anew()
            return
        if now < self._next_try or not self._free():
            return
        count, load = self._fleet.count, snapshot.total.open
        target = wanted(load, count, bounds, self._each(bounds))
        fewer = self._patience.over(now, self._fleet.settings.scale_down_after, so=target < count)
        if not fewer:
            self._held = ""
        if target > count:
            self._scale(target, load, "full" if count >= bounds.min else "bounds")
        elif fewer and self._calm() and self._may_shrink():
            self._scale(target, load, "idle" if count <= bounds.max else "bounds")

    @property
    def facts(self) -> AutoscaleFacts | None:
        """What there is to tell of it; ``None`` if the number does not follow the load."""
        bounds = self._fleet.settings.workers
        if not isinstance(bounds, Autoscale):
            return None
        return AutoscaleFacts(bounds.min, bounds.max, self._each(bounds), self._held, self._last)

    def _each(self, bounds: Autoscale) -> int:
        settings = self._fleet.settings
        nofile = self._master.nofile.soft
        return each(bounds, room(nofile, settings.reserve_fds, settings.worker_connections))

    def _scale(self, target: int, load: int, reason: str) -> None:
        was = self._fleet.count
        self._patience.anew()
        self._held = ""
        try:
            self._fleet.scale(target)
        except ListenError as error:
            logs.get().warning("not_autoscaled", workers=target, was=was, reason=str(error))
            # Not at once again: whatever it was may take a while to pass.
            self._next_try = trio.current_time() + self._fleet.settings.backoff_max
            return
        self._last = AutoscaledFacts(target, was, reason, round(time.time(), 3))
        logs.get().info(
            "autoscaled",
            workers=target,
            was=was,
            reason=reason,
            open=load,
            capacity=self._master.capacity(),
        )

    def _free(self) -> bool:
        """Whether new workers would stay. Those that are being replaced one at a time, or give
        connections away, do not mind more of them.
        """
        return (
            self._master.state is InstanceState.RUNNING
            and self._master.reloading is None
            and self._fleet.serving is not None
        )

    def _calm(self) -> bool:
        """Whether nothing else goes on, so that a worker can go."""
        fleet = self._fleet
        return (
            not self._master.recycling.busy
            and fleet.settled
            and not any(fleet.handoffs.under_way())
            and not any(worker.stalled for worker in fleet.current)
            and not any(s.retired for s in fleet.slots.values() if not s.in_service)
        )

    def _may_shrink(self) -> bool:
        """Whether the last slot can go without anybody being disconnected: it has no connections,
        or they can move.
        """
        fleet = self._fleet
        last = fleet.slots[fleet.count - 1].current
        self._held = ""
        if last is None or not fleet.active(last):
            return True
        stay = [w for w in fleet.current if w is not last and w.able]
        obstacles = [obstacle(last, worker) for worker in stay]
        if None in obstacles:
            return True
        self._held = obstacles[0].words if obstacles and obstacles[0] is not None else "nobody"
        return False
