"""A reload: reads the configuration, imports the new code, has the workers replaced (rolling.py),
and waits for the end of the old ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import trio

from wssup import logs
from wssup.config.loading import Loaded, apply, changes
from wssup.errors import ApplicationError, CommandError, UserError
from wssup.scoreboard import Counts, InstanceState
from wssup.status.facts import ReloadFacts
from wssup.supervisor.children import Worker
from wssup.supervisor.generation import Generation
from wssup.supervisor.rolling import Roll

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["OUTCOMES", "Reload"]

#: How a reload can end (:class:`ReloadFacts`).
OUTCOMES = ("done", "rolled_back", "refused")

#: Generations that may live at a time; beyond it the oldest is not waited for any longer.
_MOST_GENERATIONS = 3
#: Seconds between two reports of how many connections are left.
_REPORT_EVERY = 0.5
#: Why connections end for which a reload is to blame (ClosedReason).
_DISCONNECTED = ("drain", "deadline", "worker_died")


class Reload:
    """One reload, from reading the configuration to the end of the old workers."""

    def __init__(self, master: Master, number: int) -> None:
        self.number = number
        self._master = master
        self._fleet = master.fleet
        self._events = master.events
        self._log = logs.get(gen=number)
        self._roll: Roll | None = None

    async def run(self) -> ReloadFacts:
        """Do it. Never raises for a user's mistake: the result says what was wrong."""
        began = time.monotonic()
        before = self._master.scoreboard.snapshot().total
        self._log.info("reload_started")
        outcome, reason, traceback = "done", None, None
        try:
            await self._run()
        except ApplicationError as error:
            outcome, reason, traceback = "refused", str(error), error.traceback or None
        except CommandError as error:
            outcome, reason = "rolled_back", error.message
            traceback = (self._roll and self._roll.traceback) or None
        except UserError as error:
            outcome, reason = "refused", str(error)
        seconds = round(time.monotonic() - began, 3)
        result = ReloadFacts(
            outcome, self.number, seconds, reason, traceback, **self._since(before)
        )
        if outcome == "done":
            self._log.info(
                "reload_done",
                seconds=seconds,
                moved=result.moved,
                disconnected=result.disconnected,
                pause_p99_ms=result.pause_p99_ms,
            )
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
        master.listeners.check(settings.bind)
        # Bound before anything starts, so that an address that cannot be had refuses the reload;
        # nobody can connect to it before listen().
        wanted = self._wanted(before, loaded)
        fleet.prepare(max(fleet.count, wanted))
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
        self.phase("importing", settings.ready_timeout)
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
        if added:
            fleet.sharing.added(added)
        try:
            await self._replace_workers(generation)
        except CommandError:
            fleet.adopt_settings(old.settings)
            for address in (*added, *revived):
                master.retire_address(address)
            await self._gone(w for w in fleet.workers.values() if w.generation is generation)
            await generation.end()
            raise
        master.loaded = loaded
        await old.end()
        self._apply(loaded, wanted)
        master.bridging.renew()
        await self._drain(old.number)

    async def _replace_workers(self, generation: Generation) -> None:
        """Replace the workers; returns when the new generation serves.

        :raises CommandError: it was rolled back.
        """
        slots = [s.index for s in self._fleet.slots.values() if s.in_service]
        most = generation.settings.max_surge
        surge = len(slots) if most == "all" else int(most)
        roll = self._roll = Roll(
            self._fleet,
            self._master.watch,
            generation,
            self,
            slots=slots,
            surge=surge,
            handoff=generation.settings.on_reload == "handoff",
        )
        telling = trio.CancelScope()
        self._master.nursery.start_soon(self._tell_moves, roll, telling)
        try:
            await roll.run()
        finally:
            telling.cancel()

    def _apply(self, loaded: Loaded, workers: int) -> None:
        """What of the configuration applies only once the new generation serves."""
        master = self._master
        wanted = set(loaded.settings.bind)
        for text, address in list(master.listeners.addresses.items()):
            if text not in wanted and address.retirement is None:
                master.retire_address(address)
        if workers:
            self._fleet.scale(workers)

    def _wanted(self, before: Loaded, loaded: Loaded) -> int:
        """The number of workers, if the configuration's changed; 0 leaves what is.

        :raises UserError: if its ``connections`` do not fit.
        """
        was, now = before.settings, loaded.settings
        wanted = self._master.worker_count(now, self._fleet.count)
        changed = (was.workers, was.connections) != (now.workers, now.connections)
        # Other settings decide about it, too, where it follows from the connections.
        if changed or (now.connections and wanted != self._master.worker_count(was)):
            return wanted
        return 0

    async def _drain(self, old: int) -> None:
        """Wait for the old workers, as far as ``on_reload`` says, and tell how many connections
        they have left.
        """
        fleet, settings = self._fleet, self._fleet.settings
        live = sorted({w.generation.number for w in fleet.workers.values()} | {self.number})
        for worker in list(fleet.workers.values()):
            if worker.generation.number in live[:-_MOST_GENERATIONS]:
                fleet.drain(worker, fleet.onward.order(worker, may_wait=False))
        if settings.on_reload == "wait":
            return
        self.phase("draining", settings.drain_timeout)
        await self._gone(w for w in fleet.workers.values() if w.generation.number <= old)

    async def _gone(self, workers: Iterable[Worker]) -> None:
        """Wait until these workers are gone, telling how many connections they have left."""
        waited = list(workers)
        total = {w.serial: self._fleet.active(w) for w in waited}
        told: dict[int, int] = {}
        left = waited
        while left:
            for worker in left:
                active = self._fleet.active(worker)
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

    def _since(self, before: Counts) -> dict[str, Any]:
        """What happened to connections since then, as fields of the result."""
        now = self._master.scoreboard.snapshot().total
        counts = Counts(tuple(a - b for a, b in zip(now.cells, before.cells, strict=True)))
        closed = counts.closed_by_reason
        pause = round(counts.pause.quantile(0.99) * 1000, 1) if counts.moved_in else None
        return {
            "moved": counts.moved_in,
            # Those that could not resume are closed as errors of the application.
            "disconnected": sum(closed[reason] for reason in _DISCONNECTED)
            + counts.handoff_refused_by_reason["resume_failed"],
            "pause_p99_ms": pause,
        }

    def _note_unchangeable(self, before: Loaded, fresh: Loaded) -> None:
        for key in changes(before.settings, fresh.settings).not_live:
            message = f"{key} cannot change while the service runs; restart it for that"
            self.notice(message)
            self._log.warning("setting_needs_restart", key=key)

    def phase(self, phase: str, seconds: float | None) -> None:
        """A phase begins, which takes so long at most."""
        self._events.tell("phase", phase=phase, generation=self.number, seconds=seconds)
        self._log.info("reload_phase", phase=phase)
        if self._master.state is InstanceState.RUNNING:
            self._master.state = InstanceState.RELOADING

    def slot(self, index: int, state: str) -> None:
        """A slot's successor is ``starting``, ``ready`` or ``failed``."""
        successor = self._fleet.slots[index].successor
        pid = successor.pid if successor is not None else None
        self._events.tell("slot", slot=index, state=state, pid=pid)

    def notice(self, message: str) -> None:
        """Something that people want to know."""
        self._events.tell("notice", message=message)

    async def _tell_moves(self, roll: Roll, telling: trio.CancelScope) -> None:
        """Tell how many connections of each slot have moved; runs until it is cancelled."""
        told: dict[int, int] = {}
        with telling:
            while True:
                for index, session in roll.sessions.items():
                    moved = self._fleet.handoffs.moved(session)
                    if told.get(index) != moved:
                        told[index] = moved
                        self._events.tell(
                            "slot",
                            slot=index,
                            state="moving",
                            pid=session.receiver.pid,
                            moved=moved,
                            total=session.total,
                        )
                await trio.sleep(_REPORT_EVERY)
