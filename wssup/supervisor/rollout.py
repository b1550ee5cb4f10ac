"""One rolling restart as a pure state machine: facts in, decisions out.

::

    STARTING ──all ready──▶ SETTLING ──quiet for `settle`──▶ MOVING ──all looked at──▶ COMMITTED
        │                       │                               │
        └───a successor lost────┴──or more handler errors───────┴──or resumes fail──▶ ROLLED_BACK

Importing the application comes before (a failure there touches nothing), draining the old workers
after: a client that is closed must never land on another old worker, so none drains until every
slot has a settled successor. Where connections are not handed over, MOVING is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum, auto
from math import sqrt
from typing import NamedTuple

__all__ = [
    "Commit",
    "Decision",
    "ErrorRate",
    "Move",
    "Phase",
    "Replace",
    "RollBack",
    "Rollout",
    "Settle",
]


class Phase(StrEnum):
    """Where a rollout stands."""

    STARTING = auto()
    SETTLING = auto()
    MOVING = auto()
    COMMITTED = auto()
    ROLLED_BACK = auto()


class Replace(NamedTuple):
    """Start a successor on this slot."""

    slot: int


class Settle(NamedTuple):
    """All successors accept; watch them until then (seconds, monotonic)."""

    until: float


class Move(NamedTuple):
    """The old workers of these slots hand their connections over. If none moves until then
    (seconds, monotonic), the rest is not waited for; each that moves puts that off.
    """

    slots: tuple[int, ...]
    until: float


class Commit(NamedTuple):
    """The new generation is the serving one; the old one drains."""


class RollBack(NamedTuple):
    """The old workers accept again, the new ones go."""

    reason: str


Decision = Replace | Settle | Move | Commit | RollBack


class ErrorRate(NamedTuple):
    """How often handlers raised: runs begun, and runs that ended in an exception."""

    runs: int
    errors: int


class Rollout:
    """The rollout of one generation over some slots.

    :param slots: the slots in service.
    :param surge: how many successors may boot at a time.
    :param settle: seconds for which all successors must behave.
    :param moving: seconds that may pass without a connection that moves; ``None``: none shall.
    """

    def __init__(
        self, slots: Iterable[int], *, surge: int, settle: float, moving: float | None = None
    ) -> None:
        self.phase = Phase.STARTING
        self.until: float | None = None
        self._waiting = sorted(slots, reverse=True)
        self._booting: set[int] = set()
        self._ready: set[int] = set()
        self._unswept: set[int] = set()
        self._moved = 0
        self._surge = max(1, surge)
        self._settle = settle
        self._moving = moving

    def begin(self, now: float) -> list[Decision]:
        """The first decisions."""
        return self._advance(now)

    def ready(self, slot: int, now: float) -> list[Decision]:
        """The slot's successor accepts."""
        if self.phase is not Phase.STARTING or slot not in self._booting:
            return []
        self._booting.discard(slot)
        self._ready.add(slot)
        return self._advance(now)

    def lost(self, slot: int, reason: str) -> list[Decision]:
        """The slot's successor exited, stalled, or was not ready in time."""
        if slot not in self._booting and slot not in self._ready:
            return []
        return self._fail(f"slot {slot}: {reason}")

    def swept(self, slot: int) -> list[Decision]:
        """Each connection of the slot's old worker has been looked at, or none is left to look
        at: it is gone, or its connections cannot move.
        """
        if self.phase is not Phase.MOVING or slot not in self._unswept:
            return []
        self._unswept.discard(slot)
        return [] if self._unswept else self._commit()

    def unresumable(self, slot: int, reason: str) -> list[Decision]:
        """More of the slot's connections could not resume in the new code than may."""
        if self.phase is not Phase.MOVING or slot not in self._ready:
            return []
        return self._fail(f"slot {slot}: {reason}")

    def cancel(self, reason: str) -> list[Decision]:
        """Somebody wants something else."""
        return self._fail(reason)

    def tick(self, now: float, old: ErrorRate, new: ErrorRate, moved: int = 0) -> list[Decision]:
        """Time passed; the handler errors of both generations so far, judged in settling alone.

        The new generation may raise as often as the old one did, with three standard deviations for
        chance: an old generation that never raised tolerates nothing.

        :param moved: connections that have moved so far, from whenever on.
        """
        if self.until is None or self.phase not in (Phase.SETTLING, Phase.MOVING):
            return []
        if self.phase is Phase.MOVING:
            return self._look_at_moves(now, moved)
        expected = new.runs * old.errors / old.runs if old.runs else 0.0
        if new.errors > expected + 3 * sqrt(expected):
            return self._fail(
                f"the new code's handlers raised {new.errors} times in {new.runs} runs; "
                f"the old code's did {old.errors} times in {old.runs}"
            )
        if now < self.until:
            return []
        if self._moving is None or not self._ready:
            return self._commit()
        self.phase = Phase.MOVING
        self.until = now + self._moving
        self._unswept = set(self._ready)
        self._moved = moved
        return [Move(tuple(sorted(self._ready)), self.until)]

    def _look_at_moves(self, now: float, moved: int) -> list[Decision]:
        assert self.until is not None
        assert self._moving is not None
        if moved > self._moved:
            # On a slow machine with many connections this takes its time, and is better than
            # closing them.
            self._moved = moved
            self.until = now + self._moving
        return self._commit() if now >= self.until else []

    def _advance(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        while self._waiting and len(self._booting) < self._surge:
            slot = self._waiting.pop()
            self._booting.add(slot)
            decisions.append(Replace(slot))
        if not self._waiting and not self._booting:
            self.phase = Phase.SETTLING
            self.until = now + self._settle
            decisions.append(Settle(self.until))
        return decisions

    def _commit(self) -> list[Decision]:
        self.phase = Phase.COMMITTED
        return [Commit()]

    def _fail(self, reason: str) -> list[Decision]:
        if self.phase in (Phase.COMMITTED, Phase.ROLLED_BACK):
            return []
        self.phase = Phase.ROLLED_BACK
        return [RollBack(reason)]
