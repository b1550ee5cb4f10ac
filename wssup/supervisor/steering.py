"""Which slot gets a new connection: weights by what each has and may still have, and when they are
to be put in force. Pure functions; bpf.py makes the program, aiming.py acts.

**The rule of deficits.** With ``steering = "least"`` a slot's weight is what it lacks: the mean of
all, plus its part of the connections that are expected before the next change, minus what it has.
The kernel draws by these weights, so that all are expected to have equally many by then; a slot
that has more than that gets none until then. Weights by room below the limit do not do it: with
limits of many thousands they are nearly equal, whatever a slot has.

**Bounds.** A slot never weighs more than the connections it may still have, and in an instance of
many slots one that just started gets at most four times its equal part: a wave of reconnects would
be a wave for it alone. Equal enough is equal: weights that follow every single connection would
have the program replaced all the time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["UNLIMITED", "Load", "equal", "folded", "is_material", "spacing", "weights"]

#: Room for connections where nothing bounds it.
UNLIMITED = 1 << 32
#: The most that a slot gets of new connections, as a multiple of its equal part.
_MOST_PARTS = 4
#: Slots that differ from their mean by less than this part of it, or by one connection, are equal.
_EQUAL = 0.01
#: Shares that change by less than this part of an equal share are left as they are.
_MATERIAL = 0.05
#: Kernels before mid-2026 free a program that is replaced without a grace period (CVE-2026-52910).
#: These releases, of the series that were maintained then, are certainly later, as is 7.1.
_LATER = {(6, 6): 155, (6, 12): 100, (6, 18): 40}
_SELDOM, _OFTEN = 1.0, 0.1


class Load(NamedTuple):
    """What a slot has.

    :ivar serves: a worker of its own accepts from its listeners.
    :ivar active: connections of all its workers, those in its accept queue included.
    :ivar headroom: how many more it may have.
    """

    serves: bool
    active: int = 0
    headroom: int = UNLIMITED


def equal(serving: Sequence[bool]) -> tuple[int, ...]:
    """A weight per slot: equal among the slots that serve; all zero if none does."""
    return tuple(int(s) for s in serving)


def weights(slots: Sequence[Load], expected: int = 0) -> tuple[int, ...]:
    """A weight per slot by the rule of deficits. Those that do not serve, or are full, weigh
    nothing; if all are full, those that serve are equal.

    :param expected: connections that will come before the weights can change again.
    """
    able = [index for index, slot in enumerate(slots) if slot.serves and slot.headroom > 0]
    if not able:
        return equal([slot.serves for slot in slots])
    count = len(able)
    have = [slots[index].active for index in able]
    total = sum(have)
    # All times the number of slots, so that they are whole numbers.
    if max(abs(count * n - total) for n in have) <= max(count, _EQUAL * total):
        lacks = [max(1, expected)] * count
    else:
        lacks = [max(0, total + expected - count * n) for n in have]
    lacks = [min(lack, count * slots[i].headroom) for i, lack in zip(able, lacks, strict=True)]
    found = [0] * len(slots)
    for index, lack in zip(able, _bounded(lacks), strict=True):
        found[index] = lack
    return tuple(found)


def _bounded(lacks: Sequence[int]) -> list[int]:
    """The same weights with none above its bound. What is cut off goes to the others by the room
    that each has below it.
    """
    most = _MOST_PARTS * sum(lacks) // len(lacks)
    rooms = [most - min(lack, most) for lack in lacks]
    cut = sum(lacks) - sum(min(lack, most) for lack in lacks)
    room = sum(rooms) or 1
    return [min(lack, most) + cut * r // room for lack, r in zip(lacks, rooms, strict=True)]


def folded(shares: Sequence[int], listeners: int) -> tuple[int, ...]:
    """The shares of fewer listeners than slots, of which slot *i* has listener *i* modulo their
    number: a listener has what its slots have together.
    """
    return tuple(sum(shares[index::listeners]) for index in range(listeners))


def is_material(old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether other weights are worth another program: they are for other slots, or move some part
    of the connections.
    """
    if [bool(w) for w in old] != [bool(w) for w in new]:
        return True
    before, after = sum(old) or 1, sum(new) or 1
    return any(
        abs(a * before - b * after) * len(new) > _MATERIAL * before * after
        for b, a in zip(old, new, strict=True)
    )


def spacing(release: str) -> float:
    """Seconds between two programs at least.

    :param release: the kernel's, as uname(2) tells it.
    """
    numbers = [int(n) for n in re.findall(r"\d+", release.partition("-")[0])[:3]]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    later = (major, minor) >= (7, 1) or patch >= _LATER.get((major, minor), 1 << 32)
    return _OFTEN if later else _SELDOM
