"""Replaces workers that are old, large or have served many: the answer to applications that leak.

One at a time, by a rollout of a single slot with a worker of the serving generation, to which its
connections move.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import trio

from wssup import logs
from wssup.errors import CommandError
from wssup.kernel.procfs import resident
from wssup.scoreboard import InstanceState, RowView, Snapshot
from wssup.supervisor.children import Role, Worker
from wssup.supervisor.rolling import Roll

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["REASONS", "Bounds", "Look", "Recycling", "due", "patience"]

#: Why workers are replaced.
REASONS = ("age", "rss", "connections")
#: Seconds between two looks at the workers' memory.
_LOOK_EVERY = 1.0
#: By how much the age differs from worker to worker, each way.
_JITTER = 0.1
#: Multiples of it, modulo 1, lie evenly, however many there are: neighbours are far apart.
_GOLDEN = 0.6180339887498949


class Look(NamedTuple):
    """A worker: seconds since its start, bytes of resident memory, connections accepted."""

    age: float
    rss: int
    connections: int


class Bounds(NamedTuple):
    """What a worker may have of each at most; 0: no limit."""

    age: float
    rss: int
    connections: int


def patience(serial: int, age: float) -> float:
    """How old a worker may become: workers that started together are not replaced together."""
    return age * (1 - _JITTER + 2 * _JITTER * (serial * _GOLDEN % 1))


def due(looks: Mapping[int, Look], bounds: Bounds) -> tuple[int, str] | None:
    """The worker to replace, by serial number, and why; the one furthest beyond its bound.

    :returns: ``None`` if none is beyond any.
    """
    found: list[tuple[float, int, str]] = []
    for serial, look in looks.items():
        most = Bounds(patience(serial, bounds.age), bounds.rss, bounds.connections)
        for reason, value, bound in zip(REASONS, look, most, strict=True):
            if bound and value >= bound:
                found.append((value / bound, -serial, reason))
    if not found:
        return None
    _, serial, reason = max(found)
    return -serial, reason


class Recycling:
    """Looks at the workers, and replaces one after the other.

    :ivar counts: how many were replaced for which reason.
    """

    def __init__(self, master: Master) -> None:
        self.counts = dict.fromkeys(REASONS, 0)
        self._master = master
        self._fleet = master.fleet
        self._roll: Roll | None = None
        self._next_look = 0.0
        self._busy = False
        self._scope = trio.CancelScope()

    @property
    def busy(self) -> bool:
        """Whether a worker is being replaced."""
        return self._busy

    def look(self, snapshot: Snapshot) -> None:
        """Begin to replace a worker if one is due."""
        settings = self._fleet.settings
        bounds = Bounds(
            settings.max_worker_age, settings.max_worker_rss, settings.max_worker_connections
        )
        now = trio.current_time()
        if self._busy or not any(bounds) or now < self._next_look or not self._free():
            return
        self._next_look = now + _LOOK_EVERY
        found = due(self._looks(snapshot.rows, now, sized=bounds.rss > 0), bounds)
        if found is not None:
            serial, reason = found
            self._busy = True
            self._master.nursery.start_soon(self._replace, self._fleet.workers[serial], reason)

    def stand_down(self, reason: str) -> None:
        """Roll a replacement back that is under way: others need the slots."""
        if self._roll is not None:
            self._roll.cancel(reason)

    def end(self) -> None:
        """Leave a replacement as it is: everything ends."""
        self._scope.cancel()

    # What a rollout tells; nobody follows.

    def phase(self, phase: str, seconds: float | None) -> None:
        """A phase begins."""
        logs.get().debug("recycle_phase", phase=phase, seconds=seconds)

    def slot(self, index: int, state: str) -> None:
        """A slot's successor changes."""
        logs.get(slot=index).debug("recycle_slot", state=state)

    def notice(self, message: str) -> None:
        """Something that people want to know; the log says it."""

    def _free(self) -> bool:
        """Whether nothing else goes on."""
        return (
            self._master.state is InstanceState.RUNNING
            and self._master.reloading is None
            and self._fleet.settled
        )

    def _looks(self, rows: tuple[RowView, ...], now: float, *, sized: bool) -> dict[int, Look]:
        found: dict[int, Look] = {}
        for view in rows:
            worker = self._fleet.workers.get(view.serial)
            if worker is None or not worker.able or worker.role is not Role.CURRENT:
                continue
            size = (resident(worker.pid) or 0) if sized and worker.pid is not None else 0
            # Who was turned away has left nothing behind.
            served = view.counts.accepted - view.counts.refused
            found[view.serial] = Look(now - worker.spawned_at, size, served)
        return found

    async def _replace(self, worker: Worker, reason: str) -> None:
        log = logs.get(**worker.noun)
        fleet = self._fleet
        if not self._free() or not worker.able or worker.role is not Role.CURRENT:
            # Something else began before this task had its first turn.
            self._busy = False
            return
        assert fleet.serving is not None
        log.info("worker_due", reason=reason)
        self._roll = Roll(
            fleet,
            self._master.watch,
            fleet.serving,
            self,
            slots=[worker.slot],
            surge=1,
            handoff=True,
        )
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                await self._roll.run()
                self.counts[reason] += 1
                log.info("worker_recycled", reason=reason)
                self._roll = None
                await worker.gone.wait()
        except CommandError as error:
            log.warning("worker_not_recycled", reason=error.message)
            # Not at once again: whatever it was may take a while to pass.
            self._next_look = trio.current_time() + fleet.settings.backoff_max
        finally:
            self._roll = None
            self._busy = False
