"""Which connections move where: decided from counts alone. Nothing here acts."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import NamedTuple

__all__ = ["UNLIMITED", "Shift", "budget", "common", "plan", "spread"]

#: A budget of failures that no worker has connections enough to exceed.
UNLIMITED = 2**31 - 1


class Shift(NamedTuple):
    """So many connections of one worker are to move to another one."""

    sender: int
    receiver: int
    connections: int


def common(a: tuple[int, int], b: tuple[int, int]) -> int:
    """The highest version that both ranges (lowest, highest) hold; 0: none."""
    highest = min(a[1], b[1])
    return highest if highest >= max(a[0], b[0]) else 0


def budget(limit: float, active: int) -> int:
    """How many of so many connections may fail to resume.

    :param limit: the share of them, 0 to 1.
    """
    # 0.29 * 100 is 28.999999999999996.
    return floor(limit * active + 1e-9)


def plan(loads: Mapping[int, int]) -> list[Shift]:
    """The fewest moves after which all have equally many, give or take one.

    :param loads: connections by worker.
    """
    if not loads:
        return []
    least, more = divmod(sum(loads.values()), len(loads))
    # Who has most already keeps the one that does not divide.
    fullest = sorted(loads, key=lambda worker: (-loads[worker], worker))
    surplus = {w: loads[w] - least - (place < more) for place, w in enumerate(fullest)}
    givers = [w for w in fullest if surplus[w] > 0]
    takers = [w for w in reversed(fullest) if surplus[w] < 0]
    shifts: list[Shift] = []
    while givers and takers:
        giver, taker = givers[-1], takers[-1]
        count = min(surplus[giver], -surplus[taker])
        shifts.append(Shift(giver, taker, count))
        surplus[giver] -= count
        surplus[taker] += count
        if not surplus[giver]:
            givers.pop()
        if not surplus[taker]:
            takers.pop()
    return shifts


def spread(count: int, loads: Mapping[int, int]) -> dict[int, int]:
    """How many of ``count`` connections each worker gets, so that none has more than it must.

    :param loads: connections by worker; nobody gives any away.
    :returns: those that get some, the one with the fewest connections first.
    """
    emptiest = sorted(loads, key=lambda worker: (loads[worker], worker))
    total = count
    for used, worker in enumerate(emptiest):
        # All that stand below this one are filled up to it before it gets any.
        if used * loads[worker] >= total:
            emptiest = emptiest[:used]
            break
        total += loads[worker]
    if not emptiest:
        return {}
    level, more = divmod(total, len(emptiest))
    shares = {w: level + (place < more) - loads[w] for place, w in enumerate(emptiest)}
    return {worker: share for worker, share in shares.items() if share > 0}
