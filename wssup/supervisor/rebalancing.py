"""Moves connections until all slots have equally many."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from wssup import logs
from wssup.errors import CommandError
from wssup.scoreboard import InstanceState
from wssup.supervisor.handoffs import REPORT_GRACE, Obstacle, Session, obstacle
from wssup.supervisor.planning import UNLIMITED, Shift, plan

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["Rebalance", "Rebalancing"]

#: Seconds between two that nobody asked for by hand.
_EVERY = 10.0


class Rebalance:
    """One rebalancing that is under way.

    :ivar planned: how many connections are to move.
    """

    def __init__(self, planned: int, sessions: list[Session]) -> None:
        self.planned = planned
        self.sessions = sessions
        self._began = time.monotonic()

    async def wait(self) -> None:
        """Wait until all of it is over; each session has a deadline.

        A receiver counts what it took after it has acknowledged it, so those who look then are to
        find it there. One that hangs is not waited for.
        """
        for session in self.sessions:
            await session.over.wait()
        with trio.move_on_after(REPORT_GRACE):
            for session in self.sessions:
                await session.settled.wait()

    @property
    def by_slot(self) -> dict[int, list[Session]]:
        """The sessions of each slot that gives connections away."""
        found: dict[int, list[Session]] = {}
        for session in self.sessions:
            found.setdefault(session.sender.slot, []).append(session)
        return found

    @property
    def over(self) -> bool:
        """Whether all of it is over."""
        return all(session.over.is_set() for session in self.sessions)

    @property
    def moved(self) -> int:
        """How many connections have moved; exact once it is over."""
        return sum(session.moved for session in self.sessions)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return round(time.monotonic() - self._began, 3)


class Rebalancing:
    """Does it on command, and by itself where the settings say so."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._fleet = master.fleet
        self._wished = trio.Event()
        self._current: Rebalance | None = None

    def wish(self) -> None:
        """There is a new worker, which has no connections yet."""
        if self._fleet.settings.rebalance:
            self._wished.set()

    async def run(self) -> None:
        """Do what was wished for, but not too often; runs for ever."""
        while True:
            await self._wished.wait()
            while not self._free():
                await self._fleet.wait_changed()
            self._wished = trio.Event()
            try:
                rebalance = self.begin()
                await rebalance.wait()
            except CommandError as error:
                logs.get().warning("not_rebalanced", reason=error.message)
            await trio.sleep(_EVERY)

    def begin(self) -> Rebalance:
        """Have connections move so that all current workers have equally many.

        :raises CommandError: ``busy`` if it is done already, ``refused`` if they cannot move.
        """
        if self._current is not None and not self._current.over:
            raise CommandError("busy", "no rebalance now: one is under way", "wait for it")
        fleet = self._fleet
        workers = {w.serial: w for w in fleet.current if w.able and not w.stalled}
        shifts = plan({serial: fleet.active(w) for serial, w in workers.items()})
        sessions: list[Session] = []
        obstacles: list[Obstacle | None] = []
        for sender, receiver, count in shifts:
            session = fleet.handoffs.open(
                workers[sender],
                workers[receiver],
                quota=count,
                failures=UNLIMITED,
                timeout=fleet.settings.drain_timeout,
            )
            if session is not None:
                sessions.append(session)
            else:
                obstacles.append(obstacle(workers[sender], workers[receiver]))
        if shifts and not sessions:
            found = obstacles[0]
            reason = found.words if found is not None else "see the log"
            raise CommandError("refused", f"connections cannot move: {reason}")
        self._current = Rebalance(_total(shifts), sessions)
        if shifts:
            logs.get().info(
                "rebalancing", connections=self._current.planned, sessions=len(sessions)
            )
        return self._current

    def stand_down(self) -> None:
        """End it: a reload needs the workers."""
        if self._current is not None:
            for session in self._current.sessions:
                self._fleet.handoffs.recall(session)

    def _free(self) -> bool:
        return (
            self._master.state is InstanceState.RUNNING
            and self._master.reloading is None
            and self._fleet.settled
        )


def _total(shifts: list[Shift]) -> int:
    return sum(shift.connections for shift in shifts)
