"""A timer wheel: one timer for all connections of a worker. Pure: it is told the time.

A connection has one deadline at a time, and an entry in the bucket of its tick. Activity does not
touch the wheel: when the entry comes up, its owner looks at what has happened and enters the next
one. An entry that is not the owner's last word any more is told by its tick and dropped. Deadlines
are met late by a tick at most, never early.
"""

from __future__ import annotations

import heapq
import math

__all__ = ["Wheel"]


class Wheel:
    """Descriptors by tick.

    :param tick: seconds.
    """

    def __init__(self, tick: float = 0.05) -> None:
        self._tick = tick
        self._buckets: dict[int, list[int]] = {}
        self._heap: list[int] = []

    def tick_of(self, when: float) -> int:
        """The first tick that is not before ``when``."""
        tick = math.ceil(when / self._tick)
        # The quotient was rounded; the bucket must not be due before.
        return tick if tick * self._tick >= when else tick + 1

    def enter(self, fd: int, tick: int) -> bool:
        """Put a descriptor into a tick's bucket.

        :returns: whether this is now the first bucket, for which the timer must be set.
        """
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.append(fd)
            return False
        self._buckets[tick] = [fd]
        heapq.heappush(self._heap, tick)
        return self._heap[0] == tick

    @property
    def due(self) -> float:
        """When the next bucket is due; infinity if there is none."""
        return self._heap[0] * self._tick if self._heap else math.inf

    def take(self, now: float) -> list[tuple[int, list[int]]]:
        """Remove and return the buckets that are due, the oldest first."""
        found = []
        while self._heap and self._heap[0] * self._tick <= now:
            tick = heapq.heappop(self._heap)
            found.append((tick, self._buckets.pop(tick)))
        return found
