"""What load balancers and service managers ask: does it live, can it take connections. Pure
functions.
"""

from __future__ import annotations

from typing import Final

from wssup.scoreboard import InstanceState, Snapshot, WorkerState
from wssup.status.facts import Facts

__all__ = ["SILENCE", "not_alive", "not_ready"]

#: Seconds without a word from the master, which says one each second, after which it is not alive.
SILENCE: Final = 10.0
_TAKING: Final = frozenset({InstanceState.RUNNING, InstanceState.RELOADING})
#: States of slots that have no worker and will not get one by themselves.
_LOST: Final = frozenset({"failed"})
_NOT_IN_SERVICE: Final = frozenset({"empty", "parked"})


def not_ready(facts: Facts, snapshot: Snapshot) -> str:
    """Why no new connections should be sent here, in words; empty if they should."""
    if snapshot.state not in _TAKING:
        return snapshot.state.label
    stalled = {w.serial for slot in facts.slots for w in slot.workers if w.stalled}
    for view in snapshot.rows:
        if view.accepting and view.state is WorkerState.READY and view.serial not in stalled:
            return ""
    return "no worker accepts"


def not_alive(facts: Facts, state: InstanceState, silent: float) -> str:
    """Why the instance should be started anew, in words; empty if it should not.

    :param state: of the instance.
    :param silent: seconds since the master said something.
    """
    if silent > SILENCE:
        return f"the master has said nothing for {silent:.0f} s"
    if state not in _TAKING:
        return ""
    wanted = [slot.state for slot in facts.slots if slot.state not in _NOT_IN_SERVICE]
    if wanted and _LOST.issuperset(wanted):
        return "no slot has a worker, or will have one"
    return ""
