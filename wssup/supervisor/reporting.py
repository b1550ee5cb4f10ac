"""Tells the service manager how the instance is: ready, reloading, stopping, what it does now, and
that it is alive.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import trio

from wssup import logs
from wssup.scoreboard import InstanceState
from wssup.supervisor.manager import Manager
from wssup.supervisor.notify import ENDING, progresses, status_line, wants_time
from wssup.supervisor.overdue import Overdue

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["Reporting"]

#: Seconds at most between two turns, and at least.
_TURN = 5.0
_GAP = 0.1
#: Seconds of time that is asked for with each turn in which connections are waited for.
_EXTENSION = 3 * _TURN
#: Seconds without a look at the workers that are too long; a look is due every second.
_LOOK_PATIENCE = 10.0
#: Of the watchdog's time: after so much of it a master that hangs shows in the log where it does.
_SHOW_AT = 0.9


class Reporting:
    """What the service manager hears of the master."""

    def __init__(self, master: Master, manager: Manager) -> None:
        self._master = master
        self._notifier = manager.notifier
        self._watchdog = manager.watchdog
        self._beat_due = 0.0 if manager.watchdog else math.inf
        self._alive = True
        self._overdue = Overdue()
        self._said = ""
        self._said_at = 0.0
        self._log = logs.get()

    def ready(self) -> None:
        """All workers that should be are ready; or a reload is over, however it ended."""
        # The end that has begun meanwhile is what counts.
        if self._master.state not in ENDING:
            self._notifier.tell(("READY", 1), ("STATUS", self._status()))

    def reloading(self) -> None:
        """A reload begins. Both lines in one datagram: systemd wants to know since when
        (Type=notify-reload).
        """
        self._notifier.tell(
            ("RELOADING", 1),
            ("MONOTONIC_USEC", time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000),
            ("STATUS", self._status()),
        )

    def not_reloading(self) -> None:
        """A reload was asked for by signal and cannot be. Who asked waits for its end, which is the
        end of the one under way, if there is one.
        """
        if self._master.state in {InstanceState.RUNNING, InstanceState.RELOADING}:
            self.reloading()
            if self._master.reloading is None:
                self.ready()

    def stopping(self) -> None:
        """The end begins."""
        self._notifier.tell(("STOPPING", 1), ("STATUS", self._status()))

    async def run(self) -> None:
        """Report, for ever."""
        if not self._notifier:
            return
        try:
            while True:
                self._turn()
                with trio.move_on_at(min(trio.current_time() + _TURN, self._beat_due)):
                    await self._master.fleet.wait_changed()
                # Not every event of a storm is news.
                await trio.sleep(_GAP)
        finally:
            self._overdue.cancel()

    def _turn(self) -> None:
        master = self._master
        now = trio.current_time()
        alive = self._progresses(now)
        if self._watchdog and now >= self._beat_due:
            self._beat_due = now + max(_GAP, self._watchdog / 2 - 2 * _GAP)
            self._beat(self._watchdog, alive=alive)
        if wants_time(master.state, progress=alive, left=master.ending.ends_by - now):
            self._notifier.tell(("EXTEND_TIMEOUT_USEC", int(_EXTENSION * 1e6)), lossy=True)
        status = self._status()
        # Who is ready is news at once; how many are connected is not.
        told, heard = status.rpartition(", ")[0], self._said.rpartition(", ")[0]
        if status != self._said and (told != heard or now >= self._said_at + _TURN):
            self._notifier.tell(("STATUS", status), lossy=True)
            self._said, self._said_at = status, now

    def _beat(self, watchdog: float, *, alive: bool) -> None:
        if alive:
            self._notifier.tell(("WATCHDOG", 1), lossy=True)
            # Should the loop hang until then, its stack is in the log before the master is ended.
            self._overdue.expect(watchdog * _SHOW_AT)
        elif self._alive:
            self._overdue.cancel()
            self._log.error(
                "watchdog_unfed",
                seconds=watchdog,
                hint="no slot has a worker or will have one: the service manager starts anew",
            )
        self._alive = alive

    def _progresses(self, now: float) -> bool:
        master = self._master
        return progresses(
            master.state,
            [s.state for s in master.fleet.slots.values() if s.in_service],
            looked_ago=now - master.watch.looked_at,
            patience=_LOOK_PATIENCE,
        )

    def _status(self) -> str:
        master = self._master
        fleet = master.fleet
        return status_line(
            master.state,
            generation=fleet.serving.number if fleet.serving is not None else 0,
            ready=sum(s.acceptor is not None for s in fleet.slots.values()),
            count=fleet.count,
            connections=master.watch.snapshot.total.active,
        )
