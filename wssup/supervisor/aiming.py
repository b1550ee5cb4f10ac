"""Keeps the kernel's choice of slots as the loads ask for: decided in steering.py, attached by
listeners.py.

When a slot serves no longer, or again, that is put in force at once; when loads change, with the
next look at the scoreboard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

import trio

from wssup.config.settings import Settings
from wssup.scoreboard import RowView
from wssup.supervisor.booting import Booting
from wssup.supervisor.children import Slot
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.steering import Load, equal, is_material, spacing, weights

__all__ = ["Aiming"]

#: Connections that are expected before the next program when the first comes after a pause: how
#: fast they come is not known yet, and a few more in one slot must not send a rush to the others.
_RUSH = 256
#: Connections per second below which that is a pause.
_PAUSE = 1.0


class Aiming:
    """Decides when the group's program is replaced.

    :ivar arrivals: tells when a connection comes.
    :ivar booting: tells which slots are as good as served.
    :param read: reads the rows of all workers.
    :param settings: those in force.
    :param limits: how many connections each slot may have, from what descriptors allow a worker.
    """

    def __init__(
        self,
        slots: Mapping[int, Slot],
        listeners: Listeners,
        read: Callable[[], Iterable[RowView]],
        settings: Callable[[], Settings],
        limits: Callable[[int], Mapping[int, int]],
    ) -> None:
        self.arrivals = listeners.arrivals
        self._slots = slots
        self._listeners = listeners
        self._read = read
        self._settings = settings
        self._limits = limits
        self.booting = Booting()
        self._spacing = spacing(os.uname().release)
        #: What is in force: the weights, whether by source, and who served.
        self._aimed: tuple[tuple[int, ...], bool] | None = None
        self._served: tuple[int, ...] = ()
        self._aimed_at = float("-inf")
        self._offered = 0
        self._looked_at = float("-inf")
        self._rate = 0.0
        self._due = trio.Event()

    def update(self) -> None:
        """The slots changed."""
        if self._serving() == self._served and self._aimed is not None:
            return
        if self._is_time():
            self._aim(self._read())
        else:
            self._due.set()

    def look(self, rows: Iterable[RowView], accepted: int) -> bool:
        """Follow the loads.

        :param rows: of all workers; ``accepted``: connections so far.
        :returns: whether connections have come since the last look.
        """
        now = trio.current_time()
        offered = accepted + sum(self._listeners.queued())
        came = max(0, offered - self._offered)
        first = came > 0 and self._rate < _PAUSE
        # A storm is not over with one quiet moment.
        self._rate = max(came / max(now - self._looked_at, 1e-3), self._rate / 2)
        if first:
            self._rate = max(self._rate, _RUSH / self._spacing)
        moved = offered != self._offered
        self._offered, self._looked_at = offered, now
        if self._aimed is not None and self._is_time():
            self._aim(rows)
        return moved

    async def run(self) -> None:
        """Do what :meth:`update` had to put off; runs for ever."""
        while True:
            await self._due.wait()
            await trio.sleep(max(0.0, self._pause()))
            self._due = trio.Event()
            if self._serving() != self._served:
                self._aim(self._read())

    def _serving(self) -> tuple[int, ...]:
        by_source = self._settings().steering == "source"
        return equal([self._serves(i, by_source=by_source) for i in range(self._listeners.slots)])

    def _serves(self, index: int, *, by_source: bool) -> bool:
        """Whether a slot is to get connections: for an address that always meets the same one a
        slot's borrower is as good as its own worker.
        """
        slot = self._slots.get(index)
        if slot is None:
            return False
        if by_source:
            return slot.in_service
        return slot.acceptor is not None or self.booting.awaits(slot)

    def _pause(self) -> float:
        """Seconds until the next program may be attached. Whoever is steered to an unserved slot
        meanwhile meets its borrower.
        """
        return self._spacing - (trio.current_time() - self._aimed_at)

    def _is_time(self) -> bool:
        return self._pause() <= 0

    def _aim(self, rows: Iterable[RowView]) -> None:
        mode = self._settings().steering
        serving = self._serving()
        wanted = serving
        if mode == "least":
            wanted = weights(self._loads(rows), round(self._rate * self._spacing))
        by_source = mode == "source"
        self._served = serving
        if self._aimed is not None and self._aimed[1] is by_source:
            before = self._aimed[0]
            if not is_material(before, wanted):
                return
        self._aimed = wanted, by_source
        self._aimed_at = trio.current_time()
        self._listeners.steer(wanted, by_source=by_source)

    def _loads(self, rows: Iterable[RowView]) -> list[Load]:
        active = self._listeners.queued()
        for index, slot in self._slots.items():
            # Whoever waits at a lent listener will be the borrower's.
            if slot.borrower is not None and index < len(active):
                active[slot.borrower.slot] += active[index]
                active[index] = 0
        for view in rows:
            if view.slot < len(active):
                active[view.slot] += view.counts.open
        limits = self._limits(os.sysconf("SC_OPEN_MAX") - self._settings().reserve_fds)
        return [
            Load(
                serves=self._serves(index, by_source=False),
                active=count,
                headroom=limits.get(index, 0) - count,
            )
            for index, count in enumerate(active)
        ]
