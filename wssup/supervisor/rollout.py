"""One rolling restart as a pure state machine: facts in, decisions out.

::

    STARTING ──all successors ready──▶ SETTLING ──`settle` passed quietly──▶ COMMITTED
        │                                  │
        └──a successor lost, stalled ──────┴──more handler errors──▶ ROLLED_BACK

Importing the application comes before (a failure there touches nothing), draining the old workers
after: a client that is closed must never land on another old worker, so none drains until every
slot has a settled successor.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum, auto
from math import sqrt
from typing import NamedTuple

__all__ = ["Commit", "Decision", "ErrorRate", "Phase", "Replace", "RollBack", "Rollout", "Settle"]


class Phase(StrEnum):
    """Where a rollout stands."""

    STARTING = auto()
    SETTLING = auto()
    COMMITTED = auto()
    ROLLED_BACK = auto()


class Replace(NamedTuple):
    """Start a successor on this slot."""

    slot: int


class Settle(NamedTuple):
    """All successors accept; watch them until then (seconds, monotonic)."""

    until: float


class Commit(NamedTuple):
    """The new generation is the serving one; the old one drains."""


class RollBack(NamedTuple):
    """The old workers accept again, the new ones go."""

    reason: str


Decision = Replace | Settle | Commit | RollBack


class ErrorRate(NamedTuple):
    """How often handlers raised: runs begun, and runs that ended in an exception."""

    runs: int
    errors: int


class Rollout:
    """The rollout of one generation over some slots.

    :param slots: the slots in service.
    :param surge: how many successors may boot at a time.
    :param settle: seconds for which all successors must behave.
    """

    def __init__(self, slots: Iterable[int], *, surge: int, settle: float) -> None:
        self.phase = Phase.STARTING
        self.until: float | None = None
        self._waiting = sorted(slots, reverse=True)
        self._booting: set[int] = set()
        self._ready: set[int] = set()
        self._surge = max(1, surge)
        self._settle = settle

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

    def tick(self, now: float, old: ErrorRate, new: ErrorRate) -> list[Decision]:
        """Time passed; the handler errors of both generations so far.

        The new generation may raise as often as the old one did, with three standard deviations for
        chance: an old generation that never raised tolerates nothing.
        """
        if self.phase is not Phase.SETTLING or self.until is None:
            return []
        expected = new.runs * old.errors / old.runs if old.runs else 0.0
        if new.errors > expected + 3 * sqrt(expected):
            return self._fail(
                f"the new code's handlers raised {new.errors} times in {new.runs} runs; "
                f"the old code's did {old.errors} times in {old.runs}"
            )
        if now < self.until:
            return []
        self.phase = Phase.COMMITTED
        return [Commit()]

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

    def _fail(self, reason: str) -> list[Decision]:
        if self.phase not in (Phase.STARTING, Phase.SETTLING):
            return []
        self.phase = Phase.ROLLED_BACK
        return [RollBack(reason)]
