"""All slots and workers: turns facts about workers into events for the table, and has done what it
answers.

Decisions stand elsewhere: slots.py (what follows), backoff.py (when to try again), lending.py and
steering.py (who accepts for whom), capacity.py (how many), rollout.py (whether a new generation
stays), planning.py (which connections move). What the table answers is done in actions.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import trio

from wssup import logs
from wssup.config.settings import Settings
from wssup.messages import GRACE, Drain, Failed, Leaving, Message, Ready
from wssup.scoreboard import Counts, RowView, Scoreboard, WorkerState
from wssup.supervisor.actions import Actions
from wssup.supervisor.admitting import Admitting
from wssup.supervisor.aiming import Aiming
from wssup.supervisor.attendant import Attendant
from wssup.supervisor.backoff import Backoff
from wssup.supervisor.children import CAUSES, Role, Slot, Worker
from wssup.supervisor.generation import Generation
from wssup.supervisor.handoffs import Handoffs
from wssup.supervisor.inspecting import Inspecting
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.mesh import Mesh, Node
from wssup.supervisor.onward import Onward
from wssup.supervisor.process import Processes
from wssup.supervisor.publishing import Publishing
from wssup.supervisor.sharing import Sharing
from wssup.supervisor.slots import STILL, Event, State, step

__all__ = ["Fleet"]


_LEAVING = {
    Role.CURRENT: Event.CURRENT_LEAVING,
    Role.SUCCESSOR: Event.SUCCESSOR_LEAVING,
}


class Fleet:
    """All slots and workers of the instance.

    :ivar serving: the generation that new workers of a slot belong to.
    :ivar workers: every worker there is, by serial number.
    :ivar kill: ends a worker now, with its stacks in the log.
    :ivar next_serial: gives a number that no worker or bridge had before.
    :ivar next: the generation being rolled out, if any.
    :ivar on_successor: told ``(slot, "ready" | "lost" | "stalled", reason, traceback)`` during a
        rollout; the traceback is the application's, or empty.
    :ivar on_fresh: told when a slot has a new current worker that accepts, outside of a rollout.
    :ivar restarts_by_reason: workers that ended without being told.
    :ivar aiming: follows the loads with the kernel's choice of slots.
    :ivar admitting: tells workers how many connections they may let in.
    :ivar onward: has connections of workers that go move on, if their receivers go, too.
    :ivar mesh: the bus of topics: all workers that were asked for, and the bridge.
    :param node: the instance's name among all there are.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        settings: Settings,
        *,
        processes: Processes,
        scoreboard: Scoreboard,
        listeners: Listeners,
        node: str = "",
    ) -> None:
        self.settings = settings
        self.slots: dict[int, Slot] = {}
        self.serving: Generation | None = None
        self.next: Generation | None = None
        self.on_successor: Callable[[int, str, str, str], None] | None = None
        self.on_fresh: Callable[[], None] | None = None
        self.stopping = False
        self.restarts_by_reason = dict.fromkeys(CAUSES, 0)
        self.scoreboard = scoreboard
        self.node = node
        self._processes = processes
        self._listeners = listeners
        self._changed = trio.Event()
        self.attendant = Attendant(
            nursery,
            processes=processes,
            scoreboard=scoreboard,
            listeners=listeners,
            asked=self._asked,
            hear=self._hear,
            gone=self._gone,
        )
        self.workers = self.attendant.workers
        self.kill = self.attendant.kill
        self.handoffs = Handoffs(nursery, scoreboard, post=self.attendant.post)
        self.mesh = Mesh(nursery)
        self.publishing = Publishing(self.workers, post=self.attendant.post)
        self.inspecting = Inspecting(
            self.workers,
            post=self.attendant.post,
            moves=lambda: any(self.handoffs.under_way()),
        )
        self._actions = Actions(self, nursery)
        self.onward = Onward(self)
        self.next_serial = self._actions.next_serial
        self.admitting = Admitting(
            self.slots, settings=lambda: self.settings, post=self.attendant.post, rows=self._rows
        )
        self.aiming = Aiming(
            self.slots, listeners, self._rows, lambda: self.settings, self.admitting.limits
        )
        self.sharing = Sharing(
            self.slots, listeners, post=self.attendant.post, read=self._rows, aiming=self.aiming
        )
        nursery.start_soon(self.aiming.run)
        nursery.start_soon(self.sharing.run)

    # What others ask for.

    def generation(self, number: int, settings: Settings) -> Generation:
        """A new generation, not loaded yet."""
        return Generation(
            number,
            settings,
            processes=self._processes,
            scoreboard=self.scoreboard.name,
            node=self.node,
            forked=self.attendant.forked,
            fork_failed=self.attendant.fork_failed,
        )

    def adopt_settings(self, settings: Settings) -> None:
        """Use other limits and windows from now on."""
        self.settings = settings
        for slot in self.slots.values():
            slot.backoff = self._backoff()
        self.admitting.look()
        self.aiming.update()

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
            self._actions.perform(action, slot)
        self.onward.look()
        self.sharing.update()
        self.admitting.look()
        self.changed()

    def scale(self, count: int) -> None:
        """Have ``count`` slots in service: further ones start, the last ones are parked."""
        self.prepare(count)
        stay = (w for w in self.current if w.slot < count)
        self._actions.spreading = {w.serial: self.active(w) for w in stay}
        for index, slot in self.slots.items():
            if index < count and not slot.in_service:
                slot.backoff.reset()
                self.event(slot, Event.START)
            elif index >= count and slot.in_service:
                self.event(slot, Event.PARK)
        self._actions.spreading = None

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
    def restarts(self) -> int:
        """Workers that ended without being told."""
        return sum(self.restarts_by_reason.values())

    @property
    def current(self) -> Iterator[Worker]:
        """The current workers of all slots."""
        return (s.current for s in self.slots.values() if s.current is not None)

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
            self.attendant.give_up(worker, "it was not needed any more")
            return
        self.set_state(worker, WorkerState.DRAINING)
        self.attendant.post(worker, order)
        self.attendant.end_within(worker, order.patience)

    def stop(self, order: Drain) -> None:
        """Drain everybody; nothing is started any more. A later call replaces the order."""
        self.stopping = True
        for slot in self.slots.values():
            self._actions.disarm(slot)
        # Whoever would take a connection now is told to close it, too.
        for session in list(self.handoffs.under_way()):
            self.handoffs.recall(session)
        for worker in list(self.workers.values()):
            self.drain(worker, order)
        self.changed()

    def active(self, worker: Worker) -> int:
        """How many WebSockets a worker has."""
        counts = self.counts(worker)
        return counts.active if counts is not None else 0

    def counts(self, worker: Worker) -> Counts | None:
        """What a worker's row says; ``None`` once it is gone."""
        view = None if worker.gone.is_set() else self.scoreboard.read(worker.row)
        return view.counts if view is not None else None

    def stall(self, worker: Worker, *, stalled: bool) -> None:
        """A worker's loop stands still, or turns again."""
        worker.stalled = stalled
        if stalled and worker.role is Role.SUCCESSOR:
            self._tell(
                worker, "stalled", f"its loop did not turn for {self.settings.stall_after:g} s"
            )
        self.sharing.update()
        self.changed()

    def set_state(self, worker: Worker, state: WorkerState) -> None:
        """Say what a worker is doing."""
        worker.state = state
        self.scoreboard.identify(worker.row, state=state)

    # Facts from workers and zygotes.

    def _asked(self, worker: Worker) -> None:
        self.admitting.begin(worker)
        post = partial(self.attendant.post, worker)
        self.mesh.join(Node(worker.serial, post, worker.noun))

    def _hear(self, worker: Worker, message: Message) -> None:
        match message:
            case Ready():
                worker.resumable, worker.records = message.resumable, message.records
                self._ready(worker, message.seconds)
            case Failed(message=why, traceback=traceback):
                worker.failure, worker.traceback = why, traceback
            case Leaving(reason=why):
                self._leaving(worker, why)
            case other:
                heard = (self.handoffs.hear, self.publishing.hear, self.inspecting.hear)
                if not any(hear(worker, other) for hear in heard):
                    kind = type(other).__name__
                    logs.get(**worker.noun).error("unexpected_message", kind=kind)

    def _ready(self, worker: Worker, seconds: float) -> None:
        worker.ready, worker.ready_ns = True, time.monotonic_ns()
        worker.failure = ""
        worker.booted.set()
        if worker.leaving:
            self.onward.is_ready(worker)
            return
        self.set_state(worker, WorkerState.READY)
        logs.get(**worker.noun).info("worker_ready", seconds=round(seconds, 3))
        slot = self.slots[worker.slot]
        if worker.role is Role.SUCCESSOR:
            self.event(slot, Event.SUCCESSOR_READY)
            self._tell(worker, "ready", "")
        elif worker.role is Role.CURRENT:
            self.event(slot, Event.CURRENT_READY)
            if self.on_fresh is not None:
                self.on_fresh()

    def _leaving(self, worker: Worker, why: str) -> None:
        if worker.leaving:
            return
        logs.get(**worker.noun).info("worker_leaving", reason=why)
        worker.leaving = True
        worker.failure = worker.failure or f"it left by itself ({why})"
        worker.booted.set()
        self.set_state(worker, WorkerState.DRAINING)
        settings = worker.generation.settings
        self.attendant.end_within(worker, settings.drain_timeout + GRACE)
        slot = self.slots[worker.slot]
        role = worker.role
        if role in _LEAVING:
            lived = trio.current_time() - worker.spawned_at
            slot.delay = slot.backoff.left(lived=lived)
            self.event(slot, _LEAVING[role])
            if role is Role.SUCCESSOR:
                self._tell(worker, "lost", worker.failure)

    def _gone(self, worker: Worker, reason: str) -> None:
        self.mesh.leave(worker.serial)
        self.inspecting.gone(worker)
        expected = worker.leaving or self.stopping
        self.restarts_by_reason[worker.cause] += not expected
        # What it counted may be certain only in a moment; its slot does not wait for that.
        self.handoffs.close(
            worker, lambda final: self._log_end(worker, final, "" if expected else reason)
        )
        self._replace(worker, reason)
        self.handoffs.gone(worker)
        self.changed()

    def _log_end(self, worker: Worker, final: Counts, reason: str) -> None:
        log = logs.get(**worker.noun)
        if reason:
            log.error("worker_lost", reason=reason, lost=final.closed_by_reason["worker_died"])
        else:
            log.info("worker_ended", accepted=final.accepted)

    def _replace(self, worker: Worker, reason: str) -> None:
        """A worker is gone: tell its slot."""
        slot = self.slots[worker.slot]
        if worker.role is Role.RETIRED:
            slot.retired.discard(worker)
            if not slot.retired:
                self.event(slot, Event.RETIRED_GONE)
            return
        # At a stop everybody ends: that is no reason why a slot does not serve.
        slot.error = "" if self.stopping else reason
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
                logs.get(**worker.noun).error(
                    "slot_failed", budget=self.settings.failure_budget, reason=reason
                )
            self.event(slot, Event.BUDGET_SPENT if spent else Event.CURRENT_LOST)

    # Small things.

    def _tell(self, worker: Worker, what: str, reason: str) -> None:
        if self.on_successor is not None and worker.generation is self.next:
            self.on_successor(worker.slot, what, reason, worker.traceback)

    def _backoff(self) -> Backoff:
        s = self.settings
        return Backoff(s.backoff_min, s.backoff_max, s.failure_budget, s.failure_window)

    def _rows(self) -> list[RowView]:
        found = (self.scoreboard.read(worker.row) for worker in self.workers.values())
        return [view for view in found if view is not None]
