"""Performs one rollout, over all slots or over one: feeds facts to the pure machine (rollout.py),
does what it decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

import trio

from wssup import logs
from wssup.errors import CommandError
from wssup.scoreboard import Snapshot
from wssup.supervisor.fleet import Fleet
from wssup.supervisor.generation import Generation
from wssup.supervisor.handoffs import RESUME_FAILURES, Session, obstacle
from wssup.supervisor.rollout import (
    Commit,
    Decision,
    ErrorRate,
    Move,
    Phase,
    Replace,
    RollBack,
    Rollout,
    Settle,
)
from wssup.supervisor.slots import BY_SUCCESSOR, UNDECIDED, Event, State
from wssup.supervisor.watch import Watch

__all__ = ["Audience", "Roll"]

_QUIET = ErrorRate(0, 0)


class Audience(Protocol):
    """Who is told how a rollout goes."""

    def phase(self, phase: str, seconds: float | None) -> None:
        """A phase begins, which takes so long at most."""

    def slot(self, index: int, state: str) -> None:
        """A slot's successor is ``starting``, ``ready`` or ``failed``."""

    def notice(self, message: str) -> None:
        """Something that people want to know."""


class Roll:
    """Replaces the workers of some slots by workers of a generation.

    :ivar sessions: those in which connections move, by slot.
    :ivar traceback: the application's, if that is what it was rolled back for.
    :param slots: the slots in service.
    :param surge: how many successors may boot at a time.
    :param handoff: connections move to the successors, as far as they can.
    """

    def __init__(
        self,
        fleet: Fleet,
        watch: Watch,
        generation: Generation,
        audience: Audience,
        *,
        slots: Collection[int],
        surge: int,
        handoff: bool,
    ) -> None:
        self.sessions: dict[int, Session] = {}
        self.traceback = ""
        self._reason = ""
        self._fleet = fleet
        self._watch = watch
        self._generation = generation
        self._audience = audience
        self._slots = slots
        self._over = trio.Event()
        settings = generation.settings
        self._rollout = Rollout(
            slots,
            surge=surge,
            settle=settings.settle,
            moving=settings.drain_timeout if handoff else None,
        )

    async def run(self) -> None:
        """Replace the workers; returns when those of the generation serve.

        :raises CommandError: it was rolled back.
        """
        fleet = self._fleet
        self._audience.phase("starting", self._generation.settings.ready_timeout)
        fleet.next = self._generation
        fleet.on_successor = self._heard
        self._watch.tell(self._sampled)
        try:
            self._perform(self._rollout.begin(trio.current_time()))
            await self._over.wait()
        finally:
            self._let_go()
        if self._rollout.phase is Phase.ROLLED_BACK:
            raise CommandError("rolled_back", self._reason)

    def _let_go(self) -> None:
        """Hear no more. At once: somebody else may begin before :meth:`run` goes on."""
        if self._fleet.on_successor == self._heard:
            self._fleet.on_successor = None
            self._watch.tell(None)
        for session in self.sessions.values():
            session.on_change = None

    def cancel(self, reason: str) -> None:
        """Roll back, if there is something to."""
        self._perform(self._rollout.cancel(reason))

    # Facts.

    def _heard(self, slot: int, what: str, reason: str, traceback: str) -> None:
        if what == "ready":
            self._audience.slot(slot, "ready")
            self._perform(self._rollout.ready(slot, trio.current_time()))
        else:
            self._audience.slot(slot, "failed")
            decisions = self._rollout.lost(slot, reason)
            if decisions:
                self.traceback = traceback
            self._perform(decisions)

    def _sampled(self, snapshot: Snapshot) -> None:
        old, new = _QUIET, _QUIET
        if self._generation is not self._fleet.serving:
            for view in snapshot.rows:
                counts = view.counts
                runs, errors = counts.handler_runs, counts.handler_errors
                if view.generation == self._generation.number:
                    new = ErrorRate(new.runs + runs, new.errors + errors)
                else:
                    old = ErrorRate(old.runs + runs, old.errors + errors)
        moved = snapshot.total.moved_in
        self._perform(self._rollout.tick(trio.current_time(), old, new, moved))

    def _changed(self, session: Session) -> None:
        slot = session.sender.slot
        if session.error == RESUME_FAILURES:
            limit = self._fleet.settings.resume_failure_limit
            reason = (
                f"more than {limit:.3g} of its connections (resume_failure_limit) could not resume"
                " in the new code"
            )
            self._perform(self._rollout.unresumable(slot, reason))
        elif session.error == "receiver_lost":
            reason = "its new worker was lost while connections moved to it"
            self._perform(self._rollout.lost(slot, reason))
        elif session.swept is not None or session.over.is_set():
            self._perform(self._rollout.swept(slot))

    # Decisions.

    def _perform(self, decisions: Iterable[Decision]) -> None:
        fleet = self._fleet
        for decision in decisions:
            match decision:
                case Replace(slot=index):
                    self._audience.slot(index, "starting")
                    fleet.event(fleet.slots[index], Event.REPLACE)
                case Settle():
                    self._audience.phase("settling", self._generation.settings.settle)
                case Move(slots=indices):
                    self._move(indices)
                case Commit():
                    fleet.serving, fleet.next = self._generation, None
                    fleet.scoreboard.generation = self._generation.number
                    self._events(Event.COMMIT, BY_SUCCESSOR)
                    self._end()
                case RollBack(reason=reason):
                    self._reason = reason
                    self._audience.phase("rolling_back", None)
                    self._events(Event.ROLL_BACK, UNDECIDED)
                    fleet.next = None
                    self._end()

    def _end(self) -> None:
        self._let_go()
        self._over.set()

    def _events(self, event: Event, states: Collection[State]) -> None:
        for index in self._slots:
            slot = self._fleet.slots[index]
            if slot.state in states:
                self._fleet.event(slot, event)

    def _move(self, indices: Iterable[int]) -> None:
        """Have the old workers hand over what can move."""
        fleet = self._fleet
        obstacles: Counter[str] = Counter()
        for index in indices:
            slot = fleet.slots[index]
            if slot.state is not State.SETTLING or slot.current is None or slot.successor is None:
                continue
            old, new = slot.current, slot.successor
            if (found := obstacle(old, new)) is not None:
                obstacles[found.words] += fleet.active(old)
            fleet.event(slot, Event.HAND_OVER)
            for session in fleet.handoffs.of(old):
                if session.receiver is new:
                    self.sessions[index] = session
                    session.on_change = self._changed
        if self.sessions:
            # As long as it takes: only a standstill has a deadline.
            self._audience.phase("moving", None)
        self._explain(obstacles)
        for index in indices:
            if index not in self.sessions:
                self._perform(self._rollout.swept(index))

    def _explain(self, obstacles: Mapping[str, int]) -> None:
        """Say once which connections cannot move: they are closed later, and it is known now."""
        for reason, count in obstacles.items():
            log = logs.get(gen=self._generation.number)
            tell = log.info if count else log.debug
            tell("handoff_impossible", reason=reason, connections=count)
            if count:
                self._audience.notice(f"{count} connections cannot move: {reason}; they are closed")
