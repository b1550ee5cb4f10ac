"""The life of a slot. Everything that decides about it stands in this file; nothing here acts.

A slot has at most one *current* worker, which is of the serving generation; during a rollout it may
have a *successor*, of the next one; and any number of *retired* workers, which accept no more and
are on their way out.

Rules:

1. At most one of current and successor accepts.
2. A successor accepts before its predecessor stops. On the way back the two are told at once; the
   listener stays open and its queue waits, so nothing is lost in between.
3. Until COMMIT nothing has been done to the current worker that ROLL_BACK cannot undo: connections
   that it handed over come back.
4. Retired workers never change the state, but for the last one, which ends DRAINING.
5. A move that is under way is recalled before connections move back.
6. Who serves an unserved slot's listeners is not decided here: see lending.py.

==========  =====================================================================
EMPTY       never used
STARTING    the current worker boots; nobody serves the slot
READY       the current worker accepts
REPLACING   the current worker accepts, its successor boots
SETTLING    the successor accepts, the current worker only keeps its connections
MOVING      the successor accepts, the current worker hands its connections over to it
RESCUING    the successor boots and there is no current worker: nobody serves the slot
ALONE       the successor accepts and there is no current worker
DRAINING    the current worker accepts, retired ones drain
BACKOFF     the worker was lost; another try follows
FAILED      workers failed at boot again and again; a reload tries again
PARKED      scaled away; its listeners stay open, lent to others
==========  =====================================================================
"""

from __future__ import annotations

from enum import StrEnum, auto
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "AWAITS_CURRENT",
    "AWAITS_SUCCESSOR",
    "BY_SUCCESSOR",
    "SERVED",
    "STILL",
    "TABLE",
    "UNDECIDED",
    "Action",
    "Event",
    "SlotError",
    "State",
    "Step",
    "diagram",
    "step",
]


class State(StrEnum):
    """A slot's state; the value is its name in ``wssup status``."""

    EMPTY = auto()
    STARTING = auto()
    READY = auto()
    REPLACING = auto()
    SETTLING = auto()
    MOVING = auto()
    RESCUING = auto()
    ALONE = auto()
    DRAINING = auto()
    BACKOFF = auto()
    FAILED = auto()
    PARKED = auto()


class Event(StrEnum):
    """What can happen to a slot."""

    START = auto()
    CURRENT_READY = auto()
    CURRENT_LOST = auto()
    #: The current worker is lost and has failed at boot too often.
    BUDGET_SPENT = auto()
    #: The current worker drains although nobody here asked it to (SIGTERM to it alone).
    CURRENT_LEAVING = auto()
    RETRY = auto()
    REPLACE = auto()
    SUCCESSOR_READY = auto()
    SUCCESSOR_LOST = auto()
    SUCCESSOR_LEAVING = auto()
    #: All successors have settled: connections move to them.
    HAND_OVER = auto()
    COMMIT = auto()
    ROLL_BACK = auto()
    #: The last retired worker is gone.
    RETIRED_GONE = auto()
    PARK = auto()


class Action(StrEnum):
    """What the master does in answer, in the order given."""

    #: Fork a worker of the serving generation; it becomes the current one.
    SPAWN = auto()
    #: Fork a worker of the next generation; it becomes the successor.
    SPAWN_SUCCESSOR = auto()
    ARM_RETRY = auto()
    DISARM_RETRY = auto()
    #: The current worker stops accepting and keeps its connections.
    HOLD_CURRENT = auto()
    #: The current worker accepts again.
    RELEASE_CURRENT = auto()
    #: The current worker moves its connections to the successor.
    HAND_OVER = auto()
    #: The current worker keeps what it has not handed over yet.
    RECALL = auto()
    RETIRE_CURRENT = auto()
    RETIRE_SUCCESSOR = auto()
    #: The successor that was retired moves its connections to a worker that serves on.
    HAND_BACK = auto()
    #: The worker that was retired moves its connections to the workers of other slots.
    SPREAD = auto()
    #: The current worker retires and the successor takes its place.
    PROMOTE = auto()
    DRAIN_RETIRED = auto()


class Step(NamedTuple):
    """An entry of the table: the state that follows and what is done on the way."""

    state: State
    actions: tuple[Action, ...] = ()


class SlotError(Exception):
    """An event that the table does not know for a state."""


#: The states in which somebody of the slot's own accepts from its listeners.
SERVED = frozenset(
    {
        State.READY,
        State.REPLACING,
        State.SETTLING,
        State.MOVING,
        State.ALONE,
        State.DRAINING,
    }
)
#: Those of them in which it is the successor.
BY_SUCCESSOR = frozenset({State.SETTLING, State.MOVING, State.ALONE})
#: The states in which the fate of a successor is open.
UNDECIDED = BY_SUCCESSOR | {State.REPLACING, State.RESCUING}

#: The states in which a slot has nothing more to do by itself.
STILL = frozenset({State.READY, State.FAILED, State.DRAINING})
#: The states in which the slot waits for its current worker, or for a successor, to boot.
AWAITS_CURRENT = frozenset({State.STARTING})
AWAITS_SUCCESSOR = frozenset({State.REPLACING, State.RESCUING})

_S, _E, _A = State, Event, Action

_TABLE: dict[tuple[State, Event], Step] = {
    (_S.EMPTY, _E.START): Step(_S.STARTING, (_A.SPAWN,)),
    (_S.EMPTY, _E.PARK): Step(_S.PARKED),
    (_S.STARTING, _E.CURRENT_READY): Step(_S.READY),
    (_S.STARTING, _E.CURRENT_LOST): Step(_S.BACKOFF, (_A.ARM_RETRY,)),
    (_S.STARTING, _E.BUDGET_SPENT): Step(_S.FAILED),
    (_S.STARTING, _E.CURRENT_LEAVING): Step(_S.BACKOFF, (_A.RETIRE_CURRENT, _A.ARM_RETRY)),
    (_S.STARTING, _E.REPLACE): Step(
        _S.RESCUING, (_A.RETIRE_CURRENT, _A.DRAIN_RETIRED, _A.SPAWN_SUCCESSOR)
    ),
    (_S.STARTING, _E.PARK): Step(_S.PARKED, (_A.RETIRE_CURRENT, _A.DRAIN_RETIRED)),
    (_S.STARTING, _E.RETIRED_GONE): Step(_S.STARTING),
    (_S.READY, _E.CURRENT_LOST): Step(_S.BACKOFF, (_A.ARM_RETRY,)),
    (_S.READY, _E.CURRENT_LEAVING): Step(_S.BACKOFF, (_A.RETIRE_CURRENT, _A.ARM_RETRY)),
    (_S.READY, _E.REPLACE): Step(_S.REPLACING, (_A.SPAWN_SUCCESSOR,)),
    (_S.READY, _E.PARK): Step(_S.PARKED, (_A.RETIRE_CURRENT, _A.SPREAD, _A.DRAIN_RETIRED)),
    (_S.READY, _E.RETIRED_GONE): Step(_S.READY),
    (_S.REPLACING, _E.SUCCESSOR_READY): Step(_S.SETTLING, (_A.HOLD_CURRENT,)),
    (_S.REPLACING, _E.SUCCESSOR_LOST): Step(_S.READY),
    (_S.REPLACING, _E.SUCCESSOR_LEAVING): Step(_S.READY, (_A.RETIRE_SUCCESSOR,)),
    (_S.REPLACING, _E.CURRENT_LOST): Step(_S.RESCUING),
    (_S.REPLACING, _E.CURRENT_LEAVING): Step(_S.RESCUING, (_A.RETIRE_CURRENT,)),
    (_S.REPLACING, _E.ROLL_BACK): Step(_S.READY, (_A.RETIRE_SUCCESSOR, _A.DRAIN_RETIRED)),
    (_S.REPLACING, _E.RETIRED_GONE): Step(_S.REPLACING),
    (_S.RESCUING, _E.SUCCESSOR_READY): Step(_S.ALONE),
    (_S.RESCUING, _E.SUCCESSOR_LOST): Step(_S.BACKOFF, (_A.ARM_RETRY,)),
    (_S.RESCUING, _E.SUCCESSOR_LEAVING): Step(_S.BACKOFF, (_A.RETIRE_SUCCESSOR, _A.ARM_RETRY)),
    (_S.RESCUING, _E.ROLL_BACK): Step(
        _S.STARTING, (_A.RETIRE_SUCCESSOR, _A.DRAIN_RETIRED, _A.SPAWN)
    ),
    (_S.RESCUING, _E.RETIRED_GONE): Step(_S.RESCUING),
    (_S.SETTLING, _E.SUCCESSOR_LOST): Step(_S.READY, (_A.RELEASE_CURRENT,)),
    (_S.SETTLING, _E.SUCCESSOR_LEAVING): Step(_S.READY, (_A.RELEASE_CURRENT, _A.RETIRE_SUCCESSOR)),
    (_S.SETTLING, _E.CURRENT_LOST): Step(_S.ALONE),
    (_S.SETTLING, _E.CURRENT_LEAVING): Step(_S.ALONE, (_A.RETIRE_CURRENT,)),
    (_S.SETTLING, _E.COMMIT): Step(_S.DRAINING, (_A.PROMOTE, _A.DRAIN_RETIRED)),
    (_S.SETTLING, _E.HAND_OVER): Step(_S.MOVING, (_A.HAND_OVER,)),
    (_S.SETTLING, _E.ROLL_BACK): Step(
        _S.READY, (_A.RELEASE_CURRENT, _A.RETIRE_SUCCESSOR, _A.HAND_BACK, _A.DRAIN_RETIRED)
    ),
    (_S.SETTLING, _E.RETIRED_GONE): Step(_S.SETTLING),
    (_S.MOVING, _E.SUCCESSOR_LOST): Step(_S.READY, (_A.RELEASE_CURRENT,)),
    (_S.MOVING, _E.SUCCESSOR_LEAVING): Step(
        _S.READY, (_A.RECALL, _A.RELEASE_CURRENT, _A.RETIRE_SUCCESSOR)
    ),
    (_S.MOVING, _E.CURRENT_LOST): Step(_S.ALONE),
    (_S.MOVING, _E.CURRENT_LEAVING): Step(_S.ALONE, (_A.RETIRE_CURRENT,)),
    (_S.MOVING, _E.COMMIT): Step(_S.DRAINING, (_A.PROMOTE, _A.DRAIN_RETIRED)),
    (_S.MOVING, _E.ROLL_BACK): Step(
        _S.READY,
        (
            _A.RECALL,
            _A.RELEASE_CURRENT,
            _A.RETIRE_SUCCESSOR,
            _A.HAND_BACK,
            _A.DRAIN_RETIRED,
        ),
    ),
    (_S.MOVING, _E.RETIRED_GONE): Step(_S.MOVING),
    (_S.ALONE, _E.SUCCESSOR_LOST): Step(_S.BACKOFF, (_A.ARM_RETRY,)),
    (_S.ALONE, _E.SUCCESSOR_LEAVING): Step(_S.BACKOFF, (_A.RETIRE_SUCCESSOR, _A.ARM_RETRY)),
    (_S.ALONE, _E.COMMIT): Step(_S.READY, (_A.PROMOTE,)),
    (_S.ALONE, _E.ROLL_BACK): Step(
        _S.STARTING, (_A.RETIRE_SUCCESSOR, _A.HAND_BACK, _A.DRAIN_RETIRED, _A.SPAWN)
    ),
    (_S.ALONE, _E.RETIRED_GONE): Step(_S.ALONE),
    (_S.DRAINING, _E.CURRENT_LOST): Step(_S.BACKOFF, (_A.ARM_RETRY,)),
    (_S.DRAINING, _E.CURRENT_LEAVING): Step(_S.BACKOFF, (_A.RETIRE_CURRENT, _A.ARM_RETRY)),
    (_S.DRAINING, _E.REPLACE): Step(_S.REPLACING, (_A.SPAWN_SUCCESSOR,)),
    (_S.DRAINING, _E.PARK): Step(_S.PARKED, (_A.RETIRE_CURRENT, _A.SPREAD, _A.DRAIN_RETIRED)),
    (_S.DRAINING, _E.RETIRED_GONE): Step(_S.READY),
    (_S.BACKOFF, _E.RETRY): Step(_S.STARTING, (_A.SPAWN,)),
    (_S.BACKOFF, _E.REPLACE): Step(_S.RESCUING, (_A.DISARM_RETRY, _A.SPAWN_SUCCESSOR)),
    (_S.BACKOFF, _E.PARK): Step(_S.PARKED, (_A.DISARM_RETRY,)),
    (_S.BACKOFF, _E.RETIRED_GONE): Step(_S.BACKOFF),
    (_S.FAILED, _E.REPLACE): Step(_S.RESCUING, (_A.SPAWN_SUCCESSOR,)),
    (_S.FAILED, _E.PARK): Step(_S.PARKED),
    (_S.FAILED, _E.RETIRED_GONE): Step(_S.FAILED),
    (_S.PARKED, _E.START): Step(_S.STARTING, (_A.SPAWN,)),
    (_S.PARKED, _E.RETIRED_GONE): Step(_S.PARKED),
}

#: ``(state, event) → (state, actions)``.
TABLE = MappingProxyType(_TABLE)


def step(state: State, event: Event) -> Step:
    """What follows when ``event`` meets a slot in ``state``.

    :raises SlotError: if the table does not know the pair; it names both and what the state knows.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        known = ", ".join(e for (s, e) in TABLE if s is state)
        raise SlotError(
            f"a slot in state {state} knows no event {event}; it knows {known}"
        ) from None


def diagram() -> str:
    """The table as a Mermaid state diagram (docs/explanation/slots.md shows it)."""
    lines = ["stateDiagram-v2", "    [*] --> empty"]
    for (state, event), (following, actions) in TABLE.items():
        if state is following and not actions:
            continue
        does = f" / {', '.join(actions)}" if actions else ""
        lines.append(f"    {state} --> {following}: {event}{does}")
    return "\n".join(lines) + "\n"
