"""How many workers a load asks for. Pure.

Growing and shrinking have thresholds that lie apart, so that a load which stays as it is never asks
for one after the other: what fills one worker fewer to `_IDLE` fills as many as there are to less
than `_FULL`.
"""

from __future__ import annotations

from wssup.config.scaling import Autoscale

__all__ = ["Patience", "each", "wanted"]

#: Tenths of what a worker is to carry: with more on average there are to be more workers, and one
#: goes if the others would have no more than so much.
_FULL = 8
_IDLE = 6


def each(autoscale: Autoscale, room: int) -> int:
    """How many connections a worker is to carry.

    :param room: how many it may have, by its descriptors and by ``worker_connections``.
    """
    return max(1, min(autoscale.connections_per_worker, room))


def wanted(connections: int, workers: int, autoscale: Autoscale, carries: int) -> int:
    """How many workers there should be: as many more as the load takes, or one fewer.

    :param workers: how many there are.
    :param carries: see :func:`each`.
    """
    enough = -(-10 * connections // (_FULL * carries))
    found = workers
    if enough > workers:
        found = enough
    elif 10 * connections <= _IDLE * carries * (workers - 1):
        found = workers - 1
    return max(autoscale.min, workers - 1 if workers > autoscale.max else min(found, autoscale.max))


class Patience:
    """Whether something has been so for long enough."""

    def __init__(self) -> None:
        self._since: float | None = None

    def over(self, now: float, seconds: float, *, so: bool) -> bool:
        """Whether it is so, and was at each look for so many seconds.

        :param now: seconds on any clock that only goes forward.
        """
        if not so:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= seconds

    def anew(self) -> None:
        """Wait the whole time again."""
        self._since = None
