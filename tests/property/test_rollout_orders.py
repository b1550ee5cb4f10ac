"""Rollouts whose workers become ready, get lost and raise in any order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

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

QUIET = ErrorRate(0, 0)

seconds = st.floats(0, 10)
facts = st.one_of(
    st.tuples(st.just("ready"), st.integers(0, 6), seconds),
    st.tuples(st.just("ready"), st.integers(0, 6), seconds),
    st.tuples(st.just("tick"), st.just(0), seconds),
    st.tuples(st.just("error"), st.just(0), seconds),
    st.tuples(st.just("lost"), st.integers(0, 6), seconds),
    st.tuples(st.just("swept"), st.integers(0, 6), seconds),
    st.tuples(st.just("swept"), st.integers(0, 6), seconds),
    st.tuples(st.just("unresumable"), st.integers(0, 6), seconds),
    st.tuples(st.just("cancel"), st.just(0), seconds),
)


class Watched:
    """A rollout, and what it said so far."""

    def __init__(
        self, slots: list[int], surge: int, settle: float, moving: float | None = None
    ) -> None:
        self.slots, self.surge, self.settle, self.moving = set(slots), surge, settle, moving
        self.now = 0.0
        self.replaced: list[int] = []
        self.ready: set[int] = set()
        self.complete_at = None if slots else 0.0
        self.ended: Decision | None = None
        self.move_until: float | None = None
        self.swept: set[int] = set()
        self.rollout = Rollout(slots, surge=surge, settle=settle, moving=moving)
        self.hear(self.rollout.begin(0), cause="")

    @property
    def booting(self) -> set[int]:
        return set(self.replaced) - self.ready

    def happen(self, what: str, slot: int, later: float) -> None:
        self.now += later
        match what:
            case "ready":
                if self.ended is None and slot in self.booting:
                    self.ready.add(slot)
                    if self.ready == self.slots:
                        self.complete_at = self.now
                cause = ""
                decisions = self.rollout.ready(slot, self.now)
            case "lost":
                cause = f"slot {slot}: died" if slot in self.replaced else ""
                decisions = self.rollout.lost(slot, "died")
            case "tick":
                cause = ""
                decisions = self.rollout.tick(self.now, QUIET, QUIET)
            case "swept":
                cause = ""
                if self.move_until is not None:
                    self.swept.add(slot)
                decisions = self.rollout.swept(slot)
            case "unresumable":
                moves = self.move_until is not None and slot in self.slots
                cause = f"slot {slot}: too many" if moves else ""
                decisions = self.rollout.unresumable(slot, "too many")
            case "cancel":
                cause = "somebody else"
                decisions = self.rollout.cancel("somebody else")
            case _:
                judged = self.complete_at is not None and self.move_until is None
                cause = "raised" if judged else ""
                decisions = self.rollout.tick(self.now, QUIET, ErrorRate(5, 1))
        self.hear(decisions, cause)

    def hear(self, decisions: list[Decision], cause: str) -> None:  # noqa: C901 - a list of cases
        if self.ended is not None:
            assert decisions == [], "it decides after its end"
            return
        for decision in decisions:
            match decision:
                case Replace(slot):
                    assert slot in self.slots
                    assert slot not in self.replaced, "replaced twice"
                    self.replaced.append(slot)
                case Settle(until):
                    assert self.complete_at == self.now
                    assert until == self.now + self.settle
                case Move(slots, until):
                    assert self.moving is not None
                    assert self.move_until is None, "moved twice"
                    assert set(slots) == self.slots == self.ready
                    assert self.complete_at is not None
                    assert self.now >= self.complete_at + self.settle
                    assert until == self.now + self.moving
                    self.move_until = until
                case Commit():
                    assert self.ready == self.slots
                    assert self.complete_at is not None
                    assert self.now >= self.complete_at + self.settle
                    if self.moving is not None and self.slots:
                        assert self.move_until is not None, "committed before anything moved"
                        assert self.slots <= self.swept or self.now >= self.move_until
                    assert not cause
                    self.ended = decision
                case RollBack(reason):
                    assert cause, "rolled back without a cause"
                    assert cause in reason
                    self.ended = decision
        if cause:
            assert isinstance(self.ended, RollBack), "a failure was not answered"
        assert len(self.booting) <= self.surge
        if self.ended is None:
            # Never idle: whoever may boot does.
            assert len(self.booting) == min(self.surge, len(self.slots - self.ready))
            assert self.move_until is None or not self.slots <= self.swept, "all are swept"
        open_ = {Phase.MOVING} if self.move_until is not None else {Phase.STARTING, Phase.SETTLING}
        expected = {type(None): open_, Commit: {Phase.COMMITTED}}
        assert self.rollout.phase in expected.get(type(self.ended), {Phase.ROLLED_BACK})


@settings(max_examples=100, deadline=None)
@given(
    slots=st.lists(st.integers(0, 5), unique=True, max_size=5),
    surge=st.integers(1, 6),
    settle=seconds,
    moving=st.none() | seconds,
    course=st.lists(facts, max_size=30),
)
def test_any_order(
    slots: list[int],
    surge: int,
    settle: float,
    moving: float | None,
    course: list[tuple[str, int, float]],
) -> None:
    """Whatever happens in whatever order: a commit comes only when every slot is ready, the settle
    time has passed and, with handoff, every slot is swept or the time for that is over; each loss,
    each error in settling, and too many failed resumes roll back and nothing else does; at most
    ``surge`` successors boot, and never fewer than may; after the end nothing is decided.
    """
    watched = Watched(slots, surge, settle, moving)
    for fact in course:
        watched.happen(*fact)


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    count=st.integers(0, 6),
    surge=st.integers(1, 7),
    settle=seconds,
    moving=st.none() | seconds,
)
def test_without_failures_it_commits(
    data: st.DataObject, count: int, surge: int, settle: float, moving: float | None
) -> None:
    """When every successor becomes ready, in any order, the rollout commits at the first look after
    the settle time, or with handoff once all slots are swept, in any order.
    """
    watched = Watched(list(range(count)), surge, settle, moving)
    while watched.booting:
        slot = data.draw(st.sampled_from(sorted(watched.booting)))
        watched.happen("ready", slot, data.draw(seconds))
        watched.happen("tick", 0, 0)
    if watched.ended is None:
        watched.happen("tick", 0, settle)
    if moving is not None and count:
        assert watched.move_until is not None
        for slot in data.draw(st.permutations(range(count))):
            watched.happen("swept", slot, 0)
    assert watched.ended == Commit()


@settings(max_examples=100, deadline=None)
@given(runs=st.integers(1, 10**6), errors=st.integers(0, 10**6), factor=st.integers(1, 100))
def test_the_same_rate_of_errors_is_tolerated(runs: int, errors: int, factor: int) -> None:
    """New code that raises exactly as often as the old did is never rolled back for it, however
    many runs there were of either.
    """
    errors = min(errors, runs)
    for old, new in (
        (ErrorRate(runs, errors), ErrorRate(runs * factor, errors * factor)),
        (ErrorRate(runs * factor, errors * factor), ErrorRate(runs, errors)),
    ):
        rollout = Rollout([], surge=1, settle=0)
        rollout.begin(0)
        assert rollout.tick(0, old, new) == [Commit()]
