"""Performs a rollout: imports the new code, feeds facts to the pure machine (rollout.py), does what
it decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import trio

from wssup import logs
from wssup.config.loading import Loaded, apply, changes
from wssup.errors import ApplicationError, CommandError, UserError
from wssup.scoreboard import InstanceState, Snapshot
from wssup.supervisor.children import Worker
from wssup.supervisor.rollout import (
    Commit,
    Decision,
    ErrorRate,
    Phase,
    Replace,
    RollBack,
    Rollout,
    Settle,
)
from wssup.supervisor.slots import Event, State

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["Reload", "Result"]

#: Generations that may live at a time; beyond it the oldest is not waited for any longer.
_MOST_GENERATIONS = 3
#: Slots with a successor whose fate is open.
_OPEN = frozenset({State.REPLACING, State.RESCUING, State.SETTLING, State.ALONE})
_SETTLED = frozenset({State.SETTLING, State.ALONE})
#: Seconds between two reports of how many connections are left.
_REPORT_EVERY = 0.5


class Result(msgspec.Struct, frozen=True):
    """How a reload ended.

    :ivar outcome: ``done``, ``rolled_back`` (workers of the new generation had started) or
        ``refused``.
    """

    outcome: str
    generation: int
    seconds: float
    reason: str | None = None
    traceback: str | None = None


class Reload:
    """One reload, from reading the configuration to the end of the old workers."""

    def __init__(self, master: Master, number: int) -> None:
        self.number = number
        self.rollout: Rollout | None = None
        self._master = master
        self._fleet = master.fleet
        self._events = master.events
        self._log = logs.get(gen=number)
        self._settled = trio.Event()
        self._reason = ""
        self._traceback = ""

    async def run(self) -> Result:
        """Do it. Never raises for a user's mistake: the result says what was wrong."""
        began = time.monotonic()
        self._log.info("reload_started")
        outcome, reason, traceback = "done", None, None
        try:
            await self._run()
        except ApplicationError as error:
            outcome, reason, traceback = "refused", str(error), error.traceback or None
        except CommandError as error:
            outcome, reason, traceback = "rolled_back", error.message, self._traceback or None
        except UserError as error:
            outcome, reason = "refused", str(error)
        result = Result(outcome, self.number, round(time.monotonic() - began, 3), reason, traceback)
        if outcome == "done":
            self._log.info("reload_done", seconds=result.seconds)
        else:
            self._log.error(f"reload_{outcome}", reason=reason, exception=traceback)
        return result

    async def _run(self) -> None:
        master, fleet = self._master, self._fleet
        before = master.loaded
        fresh = before.reload()
        self._note_unchangeable(before, fresh)
        loaded = apply(before, fresh)
        settings = loaded.settings
        # Bound before anything starts, so that an address that cannot be had refuses the reload;
        # nobody can connect to it before listen().
        fleet.prepare(max(fleet.count, self._wanted(before, loaded)))
        added = master.listeners.bind(
            t for t in settings.bind if t not in master.listeners.addresses
        )
        revived = [
            a
            for text, a in master.listeners.addresses.items()
            if text in settings.bind and a.retirement is not None
        ]
        # At once: their linger could end while the application is imported.
        for address in revived:
            master.keep_address(address)
        generation = fleet.generation(self.number, settings)
        self._phase("importing", settings.ready_timeout)
        try:
            await generation.load()
            master.nursery.start_soon(generation.attend)
            master.listeners.add(added)
        except BaseException:
            for address in added:
                address.close()
            for address in revived:
                master.retire_address(address)
            await generation.end()
            raise
        old = fleet.serving
        assert old is not None
        fleet.adopt_settings(settings)
        fleet.next = generation
        if added:
            fleet.sharing.added(added)
        try:
            await self._roll()
        except CommandError:
            fleet.adopt_settings(old.settings)
            fleet.next = None
            for address in (*added, *revived):
                master.retire_address(address)
            await self._gone(w for w in fleet.workers.values() if w.generation is generation)
            await generation.end()
            raise
        master.loaded = loaded
        await old.end()
        self._apply(before, loaded)
        await self._drain(old.number)

    async def _roll(self) -> None:
        """Replace the workers; returns when the new generation serves.

        :raises CommandError: it was rolled back.
        """
        fleet, settings = self._fleet, self._fleet.settings
        slots = [s.index for s in fleet.slots.values() if s.in_service]
        surge = len(slots) if settings.max_surge == "all" else int(settings.max_surge)
        self.rollout = Rollout(slots, surge=surge, settle=settings.settle)
        self._phase("starting", settings.ready_timeout)
        fleet.on_successor = self._heard
        self._master.watch.tell(self._sampled)
        try:
            self._perform(self.rollout.begin(trio.current_time()))
            await self._settled.wait()
        finally:
            fleet.on_successor = None
            self._master.watch.tell(None)
        if self.rollout.phase is Phase.ROLLED_BACK:
            raise CommandError("rolled_back", self._reason)

    def _heard(self, slot: int, what: str, reason: str, traceback: str) -> None:
        assert self.rollout is not None
        if what == "ready":
            self._tell_slot(slot, "ready")
            self._perform(self.rollout.ready(slot, trio.current_time()))
        else:
            self._tell_slot(slot, "failed")
            decisions = self.rollout.lost(slot, reason)
            if decisions:
                self._traceback = traceback
            self._perform(decisions)

    def _sampled(self, snapshot: Snapshot) -> None:
        assert self.rollout is not None
        old = ErrorRate(0, 0)
        new = ErrorRate(0, 0)
        for view in snapshot.rows:
            counts = view.counts
            if view.generation == self.number:
                new = ErrorRate(new.runs + counts.handler_runs, new.errors + counts.handler_errors)
            else:
                old = ErrorRate(old.runs + counts.handler_runs, old.errors + counts.handler_errors)
        self._perform(self.rollout.tick(trio.current_time(), old, new))

    def _perform(self, decisions: Iterable[Decision]) -> None:
        fleet = self._fleet
        for decision in decisions:
            match decision:
                case Replace(slot=index):
                    self._tell_slot(index, "starting")
                    fleet.event(fleet.slots[index], Event.REPLACE)
                case Settle():
                    self._phase("settling", fleet.settings.settle)
                case Commit():
                    fleet.serving, fleet.next = fleet.next, None
                    assert fleet.serving is not None
                    self._master.scoreboard.generation = fleet.serving.number
                    for slot in fleet.slots.values():
                        if slot.state in _SETTLED:
                            fleet.event(slot, Event.COMMIT)
                    self._settled.set()
                case RollBack(reason=reason):
                    self._reason = reason
                    self._phase("rolling_back", None)
                    for slot in fleet.slots.values():
                        if slot.state in _OPEN:
                            fleet.event(slot, Event.ROLL_BACK)
                    self._settled.set()

    def _apply(self, before: Loaded, loaded: Loaded) -> None:
        """What of the configuration applies only once the new generation serves."""
        master = self._master
        wanted = set(loaded.settings.bind)
        for text, address in list(master.listeners.addresses.items()):
            if text not in wanted and address.retirement is None:
                master.retire_address(address)
        wanted_workers = self._wanted(before, loaded)
        if wanted_workers:
            self._fleet.scale(wanted_workers)

    def _wanted(self, before: Loaded, loaded: Loaded) -> int:
        """The number of workers, if the configuration's changed; 0 leaves what is."""
        if loaded.settings.workers == before.settings.workers:
            return 0
        return self._master.worker_count(loaded.settings)

    async def _drain(self, old: int) -> None:
        """Wait for the old workers, as far as ``on_reload`` says, and tell how many connections
        they have left.
        """
        fleet, settings = self._fleet, self._fleet.settings
        live = sorted({w.generation.number for w in fleet.workers.values()} | {self.number})
        for worker in list(fleet.workers.values()):
            if worker.generation.number in live[:-_MOST_GENERATIONS]:
                fleet.drain(worker, fleet.restart_order(may_wait=False))
        if settings.on_reload == "wait":
            return
        self._phase("draining", settings.drain_timeout)
        await self._gone(w for w in fleet.workers.values() if w.generation.number <= old)

    async def _gone(self, workers: Iterable[Worker]) -> None:
        """Wait until these workers are gone, telling how many connections they have left."""
        waited = list(workers)
        total = {w.serial: self._active(w) for w in waited}
        told: dict[int, int] = {}
        left = waited
        while left:
            for worker in left:
                active = self._active(worker)
                if told.get(worker.serial) != active:
                    told[worker.serial] = active
                    self._tell_worker(worker, "draining", active, total[worker.serial])
            with trio.move_on_after(_REPORT_EVERY):
                for worker in left:
                    await worker.gone.wait()
            for worker in left:
                if worker.gone.is_set():
                    self._tell_worker(worker, "done", 0, total[worker.serial])
            left = [w for w in left if not w.gone.is_set()]

    def _tell_worker(self, worker: Worker, state: str, active: int, total: int) -> None:
        self._events.tell(
            "slot", slot=worker.slot, state=state, pid=worker.pid, active=active, total=total
        )

    def _active(self, worker: Worker) -> int:
        if worker.gone.is_set():
            return 0
        view = self._master.scoreboard.read(worker.row)
        return view.counts.active if view is not None else 0

    def _note_unchangeable(self, before: Loaded, fresh: Loaded) -> None:
        for key in changes(before.settings, fresh.settings).not_live:
            message = f"{key} cannot change while the service runs; restart it for that"
            self._events.tell("notice", message=message)
            self._log.warning("setting_needs_restart", key=key)

    def _phase(self, phase: str, seconds: float | None) -> None:
        self._events.tell("phase", phase=phase, generation=self.number, seconds=seconds)
        self._log.info("reload_phase", phase=phase)
        if self._master.state is InstanceState.RUNNING:
            self._master.state = InstanceState.RELOADING

    def _tell_slot(self, index: int, state: str) -> None:
        successor = self._fleet.slots[index].successor
        pid = successor.pid if successor is not None else None
        self._events.tell("slot", slot=index, state=state, pid=pid)
