"""Walks through the table of slots.py by whatever can really happen to a slot's workers."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.supervisor.slots import SERVED, TABLE, Action, Event, State, step

_S, _E = State, Event
#: States in which a rollout can commit or roll back the slot (reload.py).
_SETTLED = {_S.SETTLING, _S.MOVING, _S.ALONE}
_OPEN = _SETTLED | {_S.REPLACING, _S.RESCUING}
#: What a reload brings: where there is a current worker, somebody accepts all the while.
_CHOSEN = {_E.REPLACE, _E.SUCCESSOR_READY, _E.COMMIT, _E.ROLL_BACK}


@dataclass(eq=False)
class Worker:
    ready: bool = False
    accepts: bool = False
    #: It hands its connections over.
    moves: bool = False
    #: It was told to drain, or does so by itself.
    leaving: bool = False


@dataclass
class Slot:
    """A slot with workers; the master's part is played here."""

    state: State = State.EMPTY
    current: Worker | None = None
    successor: Worker | None = None
    retired: list[Worker] = field(default_factory=list)
    armed: bool = False
    #: A rollout is under way, and has replaced this slot.
    rollout: bool = False
    replaced: bool = False

    @property
    def accepting(self) -> int:
        """How many of current and successor accept."""
        return sum(w is not None and w.accepts for w in (self.current, self.successor))

    @property
    def key(self) -> Hashable:
        """What tells this situation from another one."""
        workers = [
            worker and (worker.ready, worker.accepts, worker.moves, worker.leaving)
            for worker in (self.current, self.successor, *self.retired)
        ]
        return self.state, *workers, self.armed, self.rollout, self.replaced

    def possible(self) -> list[Event]:  # noqa: C901 - a list of cases
        """What can happen next."""
        found: list[Event] = []
        in_service = self.state not in {_S.EMPTY, _S.PARKED}
        if not self.rollout:
            found.append(_E.PARK if in_service else _E.START)
        if in_service and not self.replaced:
            found.append(_E.REPLACE)
        if self.rollout and self.state in _SETTLED:
            found.append(_E.COMMIT)
        if self.rollout and self.state is _S.SETTLING:
            found.append(_E.HAND_OVER)
        if self.rollout and self.state in _OPEN:
            found.append(_E.ROLL_BACK)
        if self.current is not None:
            found += [_E.CURRENT_LOST, _E.CURRENT_LEAVING]
            if not self.current.ready:
                found.append(_E.CURRENT_READY)
                if self.state is _S.STARTING:
                    found.append(_E.BUDGET_SPENT)
        if self.successor is not None:
            found += [_E.SUCCESSOR_LOST, _E.SUCCESSOR_LEAVING]
            if not self.successor.ready:
                found.append(_E.SUCCESSOR_READY)
        if self.armed:
            found.append(_E.RETRY)
        if self.retired:
            found.append(_E.RETIRED_GONE)
        return found

    def happen(self, event: Event) -> None:  # noqa: C901, PLR0912 - a list of cases
        """Make the fact true, ask the table, do what it says."""
        served = self.accepting
        current = self.current
        match event:
            case _E.REPLACE:
                self.rollout = self.replaced = True
            case _E.COMMIT | _E.ROLL_BACK:
                self.rollout = self.replaced = False
            case _E.CURRENT_LOST | _E.BUDGET_SPENT:
                self.current = None
            case _E.SUCCESSOR_LOST:
                # The rollout is rolled back; nothing is left of it here.
                self.successor = None
                self.rollout = self.replaced = False
            case _E.CURRENT_LEAVING:
                assert self.current is not None
                self.current.accepts, self.current.leaving = False, True
            case _E.SUCCESSOR_LEAVING:
                assert self.successor is not None
                self.successor.accepts, self.successor.leaving = False, True
                self.rollout = self.replaced = False
            case _E.CURRENT_READY:
                assert self.current is not None
                self.current.ready = self.current.accepts = True
            case _E.SUCCESSOR_READY:
                assert self.successor is not None
                self.successor.ready = self.successor.accepts = True
            case _E.RETRY:
                self.armed = False
            case _E.RETIRED_GONE:
                self.retired.clear()
        before = self.state
        if self.successor is None and self.current is not None:
            # The other end is gone: it takes back what was not acknowledged.
            self.current.moves = False
        self.state, actions = step(self.state, event)
        for action in actions:
            self.act(action)
            if served and current is not None and event in _CHOSEN:
                assert self.accepting, f"rule 2: nobody accepts within {event} in {before}"
        if event is _E.RETIRED_GONE:
            ends = before is _S.DRAINING
            assert (self.state, actions) == (_S.READY if ends else before, ()), "rule 4"
        if event in {_E.REPLACE, _E.SUCCESSOR_READY, _E.ROLL_BACK} and current and current.ready:
            assert self.current is current, "rule 3: the current worker is gone before COMMIT"
        self.check()

    def act(self, action: Action) -> None:  # noqa: C901, PLR0912 - a list of cases
        """What actions.py does."""
        match action:
            case Action.SPAWN:
                assert self.current is None
                self.current = Worker()
            case Action.SPAWN_SUCCESSOR:
                assert self.successor is None
                self.successor = Worker()
            case Action.ARM_RETRY:
                assert not self.armed
                self.armed = True
            case Action.DISARM_RETRY:
                assert self.armed
                self.armed = False
            case Action.HOLD_CURRENT:
                assert self.current is not None
                assert self.current.accepts
                self.current.accepts = False
            case Action.RELEASE_CURRENT:
                assert self.current is not None
                assert self.current.ready
                assert not self.current.leaving
                self.current.accepts = True
            case Action.HAND_OVER:
                assert self.current is not None
                assert self.successor is not None
                assert self.successor.accepts
                assert not self.current.accepts
                self.current.moves = True
            case Action.RECALL:
                assert self.current is not None
                self.current.moves = False
            case Action.HAND_BACK:
                assert self.retired
                assert self.current is None or not self.current.moves, "rule 5"
                for worker in self.retired:
                    worker.moves = worker.moves or not worker.leaving
            case Action.SPREAD:
                assert self.current is None
                for worker in self.retired:
                    worker.moves = worker.moves or not worker.leaving
            case Action.RETIRE_CURRENT:
                assert self.current is not None
                self.retired.append(self.current)
                self.current = None
            case Action.RETIRE_SUCCESSOR:
                assert self.successor is not None
                self.retired.append(self.successor)
                self.successor = None
            case Action.PROMOTE:
                assert self.successor is not None
                if self.current is not None:
                    self.retired.append(self.current)
                self.current, self.successor = self.successor, None
            case Action.DRAIN_RETIRED:
                for worker in self.retired:
                    worker.leaving, worker.accepts = True, False

    def check(self) -> None:
        """The docstring of slots.py, state by state."""
        assert self.accepting <= 1, "rule 1"
        assert bool(self.accepting) is (self.state in SERVED)
        assert self.armed is (self.state is _S.BACKOFF)
        assert all(w.leaving for w in self.retired), "a retired worker that nobody drains"
        none, boots, accepts, keeps = None, (False, False), (True, True), (True, False)
        expected = {
            _S.EMPTY: (none, none),
            _S.STARTING: (boots, none),
            _S.READY: (accepts, none),
            _S.REPLACING: (accepts, boots),
            _S.SETTLING: (keeps, accepts),
            _S.MOVING: (keeps, accepts),
            _S.RESCUING: (none, boots),
            _S.ALONE: (none, accepts),
            _S.DRAINING: (accepts, none),
            _S.BACKOFF: (none, none),
            _S.FAILED: (none, none),
            _S.PARKED: (none, none),
        }[self.state]
        found = tuple(w and (w.ready, w.accepts) for w in (self.current, self.successor))
        assert found == expected
        # Connections move from a current worker only while there is somebody to take them.
        assert (self.current is not None and self.current.moves) is (self.state is _S.MOVING)
        if self.state is _S.DRAINING:
            assert self.retired
        if self.state is _S.EMPTY:
            assert not self.retired


def test_every_situation() -> None:
    """Every situation that workers and reloads can bring a slot into, with up to two retired
    workers, and every event that is possible there: the table has an answer, its actions can be
    performed, and the rules of slots.py hold after (and, where it matters, during) the step.
    """
    first = Slot()
    first.happen(_E.START)
    seen = {first.key}
    waiting = [first]
    met = set()
    while waiting:
        slot = waiting.pop()
        for event in slot.possible():
            following = copy.deepcopy(slot)
            following.happen(event)
            met.add((slot.state, event))
            if following.key not in seen and len(following.retired) <= 2:
                seen.add(following.key)
                waiting.append(following)
    # A slot is parked by scaling, which never takes one that was not used.
    assert met == set(TABLE) - {(_S.EMPTY, _E.START), (_S.EMPTY, _E.PARK)}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1 << 16), min_size=20, max_size=60))
def test_whatever_happens_the_table_knows_it(choices: list[int]) -> None:
    """The same along any course of events, with any number of retired workers."""
    slot = Slot()
    slot.happen(Event.START)
    for choice in choices:
        possible = slot.possible()
        slot.happen(possible[choice % len(possible)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1 << 16), max_size=40))
def test_a_slot_left_in_peace_comes_to_rest(choices: list[int]) -> None:
    """Wherever a slot is, when workers behave from now on and a rollout comes to its end, it serves
    with one current worker and nobody else, or has failed, or is parked.
    """
    slot = Slot()
    slot.happen(Event.START)
    for choice in choices:
        possible = slot.possible()
        slot.happen(possible[choice % len(possible)])
    good = [_E.CURRENT_READY, _E.SUCCESSOR_READY, _E.COMMIT, _E.RETRY, _E.RETIRED_GONE]
    for _ in range(10):
        following = [e for e in good if e in slot.possible()]
        if not following:
            break
        slot.happen(following[0])
    assert slot.state in {_S.READY, _S.FAILED, _S.PARKED}
    assert slot.successor is None
    assert not slot.retired
