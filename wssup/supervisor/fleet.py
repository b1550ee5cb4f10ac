"""Acts on the slots: turns facts about workers into events for the table, and performs what it
answers.

Decisions stand elsewhere: slots.py (what follows), backoff.py (when to try again), lending.py and
steering.py (who accepts for whom), rollout.py (whether a new generation stays).
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from wssup import logs
from wssup.channel import Channel, pair
from wssup.config.settings import Settings
from wssup.errors import ScoreboardError
from wssup.messages import Accept, Drain, Failed, Leaving, Message, Ready
from wssup.scoreboard import Scoreboard, WorkerState
from wssup.supervisor.attendant import Attendant
from wssup.supervisor.backoff import Backoff
from wssup.supervisor.children import Role, Slot, Worker
from wssup.supervisor.generation import Generation
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.process import Processes
from wssup.supervisor.sharing import Sharing
from wssup.supervisor.slots import (
    AWAITS_CURRENT,
    AWAITS_SUCCESSOR,
    STILL,
    Action,
    Event,
    State,
    step,
)

__all__ = ["Fleet"]

#: RFC 6455 section 7.4.1 and its registry: "service restart" and "going away".
SERVICE_RESTART = 1012
GOING_AWAY = 1001
#: Seconds at most that a worker gets beyond its own deadline before it is killed.
_GRACE = 5.0

_AWAITED = {Role.CURRENT: AWAITS_CURRENT, Role.SUCCESSOR: AWAITS_SUCCESSOR}
_LEAVING = {
    Role.CURRENT: Event.CURRENT_LEAVING,
    Role.SUCCESSOR: Event.SUCCESSOR_LEAVING,
}


class Fleet:
    """All slots and workers of the instance.

    :ivar serving: the generation that new workers of a slot belong to.
    :ivar workers: every worker there is, by serial number.
    :ivar kill: ends a worker now, with its stacks in the log.
    :ivar next: the generation being rolled out, if any.
    :ivar on_successor: told ``(slot, "ready" | "lost" | "stalled", reason, traceback)`` during a
        rollout; the traceback is the application's, or empty.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        settings: Settings,
        *,
        processes: Processes,
        scoreboard: Scoreboard,
        listeners: Listeners,
    ) -> None:
        self.settings = settings
        self.slots: dict[int, Slot] = {}
        self.serving: Generation | None = None
        self.next: Generation | None = None
        self.on_successor: Callable[[int, str, str, str], None] | None = None
        self.stopping = False
        self.restarts = 0
        self._nursery = nursery
        self._processes = processes
        self._scoreboard = scoreboard
        self._listeners = listeners
        self._serial = 0
        self._changed = trio.Event()
        self._attendant = Attendant(
            nursery,
            processes=processes,
            scoreboard=scoreboard,
            listeners=listeners,
            hear=self._hear,
            gone=self._gone,
        )
        self.workers = self._attendant.workers
        self.kill = self._attendant.kill
        self.sharing = Sharing(
            self.slots, listeners, post=self._attendant.post, active=self._open_by_slot
        )
        nursery.start_soon(self.sharing.steer_when_due)

    # What others ask for.

    def generation(self, number: int, settings: Settings) -> Generation:
        """A new generation, not loaded yet."""
        return Generation(
            number,
            settings,
            processes=self._processes,
            scoreboard=self._scoreboard.name,
            forked=self._attendant.forked,
            fork_failed=self._attendant.fork_failed,
        )

    def adopt_settings(self, settings: Settings) -> None:
        """Use other limits and windows from now on."""
        self.settings = settings
        for slot in self.slots.values():
            slot.backoff = self._backoff()

    def event(self, slot: Slot, event: Event) -> None:
        """Something happened to a slot."""
        if self.stopping:
            return
        before = slot.state
        slot.state, actions = step(slot.state, event)
        if slot.state is not before:
            logs.get(slot=slot.index).debug(
                "slot", state=slot.state.value, was=before.value, on=event.value
            )
        if slot.acceptor is not None:
            slot.error = ""
        for action in actions:
            self._actions[action](self, slot)
        self.sharing.update()
        self.changed()

    def scale(self, count: int) -> None:
        """Have ``count`` slots in service: further ones start, the last ones are parked."""
        self.prepare(count)
        for index, slot in self.slots.items():
            if index < count and not slot.in_service:
                slot.backoff.reset()
                self.event(slot, Event.START)
            elif index >= count and slot.in_service:
                self.event(slot, Event.PARK)

    def prepare(self, count: int) -> None:
        """Have listeners for so many slots. Those of slots not in service are lent.

        :raises ListenError: if the kernel has no more.
        """
        self._listeners.extend(count)
        for index in range(len(self.slots), self._listeners.slots):
            self.slots[index] = Slot(index, self._backoff())
        self.sharing.update()

    @property
    def count(self) -> int:
        """How many slots are in service."""
        return sum(s.in_service for s in self.slots.values())

    @property
    def settled(self) -> bool:
        """Whether no slot in service is on its way to something."""
        return all(s.state in STILL for s in self.slots.values() if s.in_service)

    def changed(self) -> None:
        """Wake whoever waits for the fleet to change."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        """Wait until a slot or worker changes."""
        await self._changed.wait()

    def drain(self, worker: Worker, order: Drain) -> None:
        """Have a worker let go of its connections and end; killed if it does not."""
        worker.leaving = True
        if not worker.asked_for:
            self._attendant.give_up(worker, "it was not needed any more")
            return
        self._set_state(worker, WorkerState.DRAINING)
        self._attendant.post(worker, order)
        self._attendant.end_within(worker, order.timeout + min(_GRACE, order.timeout))

    def stop(self, order: Drain) -> None:
        """Drain everybody; nothing is started any more. A later call replaces the order."""
        self.stopping = True
        for slot in self.slots.values():
            self._disarm(slot)
        for worker in list(self.workers.values()):
            self.drain(worker, order)
        self.changed()

    def restart_order(self, *, may_wait: bool) -> Drain:
        """The order for workers that others replace."""
        settings = self.settings
        return Drain(
            code=SERVICE_RESTART,
            reason="service restart",
            window=settings.drain_window,
            timeout=settings.drain_timeout,
            wait=may_wait and settings.on_reload == "wait",
        )

    def stall(self, worker: Worker, *, stalled: bool) -> None:
        """A worker's loop stands still, or turns again."""
        worker.stalled = stalled
        if stalled and worker.role is Role.SUCCESSOR:
            self._tell(
                worker, "stalled", f"its loop did not turn for {self.settings.stall_after:g} s"
            )
        self.sharing.update()
        self.changed()

    # Facts from workers and zygotes.

    def _hear(self, worker: Worker, message: Message) -> None:
        match message:
            case Ready(seconds=seconds):
                self._ready(worker, seconds)
            case Failed(message=why, traceback=traceback):
                worker.failure, worker.traceback = why, traceback
            case Leaving(reason=why):
                self._leaving(worker, why)
            case other:
                logs.get(**worker.noun).error("unexpected_message", kind=type(other).__name__)

    def _ready(self, worker: Worker, seconds: float) -> None:
        worker.ready = True
        worker.failure = ""
        worker.booted.set()
        if worker.leaving:
            return
        self._set_state(worker, WorkerState.READY)
        logs.get(**worker.noun).info("worker_ready", seconds=round(seconds, 3))
        slot = self.slots[worker.slot]
        if worker.role is Role.SUCCESSOR:
            self.event(slot, Event.SUCCESSOR_READY)
            self._tell(worker, "ready", "")
        elif worker.role is Role.CURRENT:
            self.event(slot, Event.CURRENT_READY)

    def _leaving(self, worker: Worker, why: str) -> None:
        if worker.leaving:
            return
        logs.get(**worker.noun).info("worker_leaving", reason=why)
        worker.leaving = True
        worker.failure = worker.failure or f"it left by itself ({why})"
        worker.booted.set()
        self._set_state(worker, WorkerState.DRAINING)
        settings = worker.generation.settings
        self._attendant.end_within(worker, settings.drain_timeout + _GRACE)
        slot = self.slots[worker.slot]
        role = worker.role
        if role in _LEAVING:
            lived = trio.current_time() - worker.spawned_at
            slot.delay = slot.backoff.left(lived=lived)
            self.event(slot, _LEAVING[role])
            if role is Role.SUCCESSOR:
                self._tell(worker, "lost", worker.failure)

    def _gone(self, worker: Worker, reason: str) -> None:
        final = self._scoreboard.fold(worker.row)
        slot = self.slots[worker.slot]
        expected = worker.leaving or self.stopping
        log = logs.get(**worker.noun)
        if expected:
            log.info("worker_ended", accepted=final.accepted)
        else:
            log.error(
                "worker_lost",
                reason=reason,
                lost=final.closed_by_reason["worker_died"],
            )
            self.restarts += 1
        if worker.role is Role.RETIRED:
            slot.retired.discard(worker)
            if not slot.retired:
                self.event(slot, Event.RETIRED_GONE)
            self.changed()
            return
        slot.error = reason
        if worker.role is Role.SUCCESSOR:
            # Its failure is the reload's, and does not spend the slot's budget.
            slot.successor = None
            slot.delay = slot.backoff.shortest
            self.event(slot, Event.SUCCESSOR_LOST)
            self._tell(worker, "lost", reason)
        else:
            slot.current = None
            lived = trio.current_time() - worker.spawned_at
            slot.delay = slot.backoff.lost(at_boot=not worker.ready, lived=lived)
            spent = slot.delay is None and slot.state is State.STARTING
            slot.delay = slot.delay or slot.backoff.longest
            if spent:
                log.error("slot_failed", budget=self.settings.failure_budget, reason=reason)
            self.event(slot, Event.BUDGET_SPENT if spent else Event.CURRENT_LOST)
        self.changed()

    # The table's actions.

    def _spawn(self, slot: Slot) -> None:
        assert self.serving is not None
        slot.current = self._start(slot, self.serving, Role.CURRENT)

    def _spawn_successor(self, slot: Slot) -> None:
        assert self.next is not None
        slot.successor = self._start(slot, self.next, Role.SUCCESSOR)

    def _start(self, slot: Slot, generation: Generation, role: Role) -> Worker | None:
        self._serial += 1
        try:
            row = self._scoreboard.allocate(self._serial, slot.index, generation.number)
        except ScoreboardError as error:
            # Old workers that take long to drain hold their rows: a later try will find one.
            self._nursery.start_soon(self._not_started, slot, role, str(error))
            return None
        try:
            ours, theirs = pair()
        except OSError as error:
            self._scoreboard.fold(row)
            reason = f"the master cannot make a channel: {error.strerror}"
            self._nursery.start_soon(self._not_started, slot, role, reason)
            return None
        worker = Worker(
            serial=self._serial,
            slot=slot.index,
            generation=generation,
            row=row,
            channel=Channel(ours),
            role=role,
            spawned_at=trio.current_time(),
        )
        self._attendant.begin(worker, Channel(theirs))
        return worker

    def _arm(self, slot: Slot) -> None:
        assert slot.delay is not None
        slot.retry = trio.CancelScope()
        self._nursery.start_soon(self._retry, slot, slot.retry, slot.delay)

    def _disarm(self, slot: Slot) -> None:
        if slot.retry is not None:
            slot.retry.cancel()
            slot.retry = None

    def _hold(self, slot: Slot) -> None:
        if slot.current is not None:
            self._set_state(slot.current, WorkerState.HOLDING)
            self._attendant.post(slot.current, Accept(on=False))

    def _release(self, slot: Slot) -> None:
        if slot.current is not None:
            self._set_state(slot.current, WorkerState.READY)
            self._attendant.post(slot.current, Accept(on=True))

    def _retire_current(self, slot: Slot) -> None:
        if slot.current is not None:
            self._retire(slot, slot.current)
            slot.current = None

    def _retire_successor(self, slot: Slot) -> None:
        if slot.successor is not None:
            self._retire(slot, slot.successor)
            slot.successor = None

    def _retire(self, slot: Slot, worker: Worker) -> None:
        worker.role = Role.RETIRED
        slot.retired.add(worker)

    def _promote(self, slot: Slot) -> None:
        self._retire_current(slot)
        slot.current, slot.successor = slot.successor, None
        if slot.current is not None:
            slot.current.role = Role.CURRENT
        slot.backoff.reset()

    def _drain_retired(self, slot: Slot) -> None:
        may_wait = slot.state is State.DRAINING
        for worker in list(slot.retired):
            if not worker.leaving:
                self.drain(worker, self.restart_order(may_wait=may_wait))

    _actions = {  # noqa: RUF012 - a table of methods, never changed
        Action.SPAWN: _spawn,
        Action.SPAWN_SUCCESSOR: _spawn_successor,
        Action.ARM_RETRY: _arm,
        Action.DISARM_RETRY: _disarm,
        Action.HOLD_CURRENT: _hold,
        Action.RELEASE_CURRENT: _release,
        Action.RETIRE_CURRENT: _retire_current,
        Action.RETIRE_SUCCESSOR: _retire_successor,
        Action.PROMOTE: _promote,
        Action.DRAIN_RETIRED: _drain_retired,
    }

    # Tasks.

    async def _not_started(self, slot: Slot, role: Role, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        # Parked or rolled back meanwhile, the slot waits for nobody any more.
        if slot.state not in _AWAITED[role]:
            return
        slot.error = reason
        slot.delay = slot.backoff.longest
        logs.get(slot=slot.index).error("worker_not_started", reason=reason)
        if role is Role.CURRENT:
            self.event(slot, Event.CURRENT_LOST)
        else:
            self.event(slot, Event.SUCCESSOR_LOST)
            if self.on_successor is not None:
                self.on_successor(slot.index, "lost", reason, "")

    async def _retry(self, slot: Slot, scope: trio.CancelScope, delay: float) -> None:
        with scope:
            await trio.sleep(delay)
            slot.retry = None
            self.event(slot, Event.RETRY)

    # Small things.

    def _tell(self, worker: Worker, what: str, reason: str) -> None:
        if self.on_successor is not None and worker.generation is self.next:
            self.on_successor(worker.slot, what, reason, worker.traceback)

    def _set_state(self, worker: Worker, state: WorkerState) -> None:
        worker.state = state
        self._scoreboard.identify(worker.row, state=state)

    def _backoff(self) -> Backoff:
        s = self.settings
        return Backoff(s.backoff_min, s.backoff_max, s.failure_budget, s.failure_window)

    def _open_by_slot(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for worker in self.workers.values():
            view = self._scoreboard.read(worker.row)
            if view is not None:
                found[worker.slot] = found.get(worker.slot, 0) + view.counts.open
        return found
