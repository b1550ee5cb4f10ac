"""Performs the actions of the slots' table (slots.py), one method each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import trio

from wssup import logs
from wssup.channel import Channel, pair
from wssup.errors import ScoreboardError
from wssup.messages import Accept
from wssup.scoreboard import WorkerState
from wssup.supervisor.children import Role, Slot, Worker
from wssup.supervisor.generation import Generation
from wssup.supervisor.handoffs import obstacle
from wssup.supervisor.planning import UNLIMITED, spread
from wssup.supervisor.slots import AWAITS_CURRENT, AWAITS_SUCCESSOR, Action, Event, State

if TYPE_CHECKING:
    from wssup.supervisor.fleet import Fleet

__all__ = ["Actions"]

_AWAITED = {Role.CURRENT: AWAITS_CURRENT, Role.SUCCESSOR: AWAITS_SUCCESSOR}


class Actions:
    """The master's hands.

    :ivar spreading: what the workers that stay in a scaling have, or will have, by serial number;
        ``None`` outside of one.
    """

    def __init__(self, fleet: Fleet, nursery: trio.Nursery) -> None:
        self.spreading: dict[int, int] | None = None
        self._fleet = fleet
        self._nursery = nursery
        self._serial = 0
        self._by_name: Mapping[Action, Callable[[Slot], None]] = {
            Action.SPAWN: self._spawn,
            Action.SPAWN_SUCCESSOR: self._spawn_successor,
            Action.ARM_RETRY: self._arm,
            Action.DISARM_RETRY: self.disarm,
            Action.HOLD_CURRENT: self._hold,
            Action.RELEASE_CURRENT: self._release,
            Action.HAND_OVER: self._hand_over,
            Action.RECALL: self._recall,
            Action.RETIRE_CURRENT: self._retire_current,
            Action.RETIRE_SUCCESSOR: self._retire_successor,
            Action.HAND_BACK: self._hand_back,
            Action.SPREAD: self._spread,
            Action.PROMOTE: self._promote,
            Action.DRAIN_RETIRED: self._drain_retired,
        }

    def perform(self, action: Action, slot: Slot) -> None:
        """Do what the table says."""
        self._by_name[action](slot)

    def next_serial(self) -> int:
        """A number for a worker, or a bridge, that none had before."""
        self._serial += 1
        return self._serial

    def disarm(self, slot: Slot) -> None:
        """Give up the next try of a slot, if there is one."""
        if slot.retry is not None:
            slot.retry.cancel()
            slot.retry = None

    # Starting.

    def _spawn(self, slot: Slot) -> None:
        assert self._fleet.serving is not None
        slot.current = self._start(slot, self._fleet.serving, Role.CURRENT)

    def _spawn_successor(self, slot: Slot) -> None:
        assert self._fleet.next is not None
        slot.successor = self._start(slot, self._fleet.next, Role.SUCCESSOR)

    def _start(self, slot: Slot, generation: Generation, role: Role) -> Worker | None:
        scoreboard = self._fleet.scoreboard
        serial = self.next_serial()
        try:
            row = scoreboard.allocate(serial, slot.index, generation.number)
        except ScoreboardError as error:
            # Old workers that take long to drain hold their rows: a later try will find one.
            self._nursery.start_soon(self._not_started, slot, role, str(error))
            return None
        try:
            ours, theirs = pair()
        except OSError as error:
            scoreboard.fold(row)
            reason = f"the master cannot make a channel: {error.strerror}"
            self._nursery.start_soon(self._not_started, slot, role, reason)
            return None
        worker = Worker(
            serial=serial,
            slot=slot.index,
            generation=generation,
            row=row,
            channel=Channel(ours),
            role=role,
            spawned_at=trio.current_time(),
        )
        self._fleet.attendant.begin(worker, Channel(theirs))
        return worker

    async def _not_started(self, slot: Slot, role: Role, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        # Parked or rolled back meanwhile, the slot waits for nobody any more.
        if slot.state not in _AWAITED[role]:
            return
        slot.error = reason
        slot.delay = slot.backoff.longest
        logs.get(slot=slot.index).error("worker_not_started", reason=reason)
        if role is Role.CURRENT:
            self._fleet.event(slot, Event.CURRENT_LOST)
        else:
            self._fleet.event(slot, Event.SUCCESSOR_LOST)
            if self._fleet.on_successor is not None:
                self._fleet.on_successor(slot.index, "lost", reason, "")

    def _arm(self, slot: Slot) -> None:
        assert slot.delay is not None
        slot.retry = trio.CancelScope()
        self._nursery.start_soon(self._retry, slot, slot.retry, slot.delay)

    async def _retry(self, slot: Slot, scope: trio.CancelScope, delay: float) -> None:
        with scope:
            await trio.sleep(delay)
            slot.retry = None
            self._fleet.event(slot, Event.RETRY)

    # Accepting.

    def _hold(self, slot: Slot) -> None:
        if slot.current is not None:
            self._fleet.set_state(slot.current, WorkerState.HOLDING)
            self._fleet.attendant.post(slot.current, Accept(on=False))

    def _release(self, slot: Slot) -> None:
        if slot.current is not None:
            slot.current.moves = False
            self._fleet.set_state(slot.current, WorkerState.READY)
            self._fleet.attendant.post(slot.current, Accept(on=True))

    # Moving connections.

    def _hand_over(self, slot: Slot) -> None:
        old, new = slot.current, slot.successor
        if old is None or new is None:
            return
        old.moves = obstacle(old, new) is None
        self._fleet.handoffs.open(old, new, quota=0, failures=self._fleet.onward.failures(old, new))

    def _recall(self, slot: Slot) -> None:
        if slot.current is not None:
            for session in self._fleet.handoffs.of(slot.current):
                self._fleet.handoffs.recall(session)

    def _hand_back(self, slot: Slot) -> None:
        fleet = self._fleet
        for worker in slot.retired:
            if worker.leaving:
                continue
            worker.moves = worker.returns = True
            if not worker.ready:
                continue
            # Its own predecessor first. Others may still be held: they accept again in a moment.
            able = [w for w in (slot.current, *fleet.current) if w is not None and w.able]
            for receiver in able:
                if fleet.handoffs.open(worker, receiver, quota=0, failures=UNLIMITED) is not None:
                    break

    def _spread(self, slot: Slot) -> None:
        fleet = self._fleet
        for worker in slot.retired:
            if worker.leaving:
                continue
            worker.moves = True
            if not worker.ready:
                continue
            stay = {w.serial: w for w in fleet.onward.hosts(worker)}
            if self.spreading is not None:
                loads = {s: n for s, n in self.spreading.items() if s in stay}
            else:
                loads = {serial: fleet.active(w) for serial, w in stay.items()}
            if not loads:
                continue
            shares = spread(fleet.active(worker), loads) or {min(loads, key=loads.__getitem__): 0}
            *some, last = shares
            for serial in some:
                fleet.handoffs.open(worker, stay[serial], quota=shares[serial], failures=UNLIMITED)
            # The last one gets whatever is more than expected, too.
            fleet.handoffs.open(worker, stay[last], quota=0, failures=UNLIMITED)
            if self.spreading is not None:
                for serial, share in shares.items():
                    self.spreading[serial] += share

    # Retiring.

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
                unmoved = self._unmoved(slot, worker)
                order = self._fleet.onward.order(worker, may_wait=may_wait, unmoved=unmoved)
                self._fleet.drain(worker, order)

    def _unmoved(self, slot: Slot, worker: Worker) -> str:
        """The HandoffRefusal for connections that should have moved and will be closed.

        Empty where they may stay, or where there is a session: then it is known of each.
        """
        fleet = self._fleet
        heir = next((w for w in (slot.current, *fleet.current) if w is not None and w.ready), None)
        if heir is None or fleet.handoffs.of(worker):
            return ""
        of_another_code = heir.generation is not worker.generation
        replaced = slot.state is State.DRAINING and of_another_code
        if replaced and fleet.settings.on_reload != "handoff":
            return ""
        found = obstacle(worker, heir)
        return found.label if found is not None else ""
