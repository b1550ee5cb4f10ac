"""Who leaves connections to others where all workers accept from one queue.

A unix socket, or a single socket that was inherited, has one accept queue for all: the kernel
cannot choose, and whoever is quickest gets a connection, which is the worker with the fewest only
by accident. So a worker with more than its part of the connections leaves a queue to the others for
a moment. One that may have no more turns nobody away while another one may.

Connections never wait for nobody: a worker leaves the queue only while others accept and turn; if
they have taken nothing in that moment it takes some itself, whoever they are and whatever the
master does; and all cannot have more than their mean.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

from wssup.scoreboard import Glance

__all__ = ["HOLD", "Fairness", "has_more", "is_shared"]

#: Seconds for which a queue is left to others.
HOLD = 0.02
#: A worker may have so many more than the mean, as a part of it, or in connections, before it
#: leaves them to others.
_MARGIN, _LEAST_MARGIN = 0.005, 1
#: Seconds for which a look at the others is good.
_GOOD = 0.002


def has_more(mine: int, others: Sequence[int]) -> bool:
    """Whether a worker has more than its part.

    :param mine: its connections; ``others``: those of each other worker that accepts.
    """
    if not others:
        return False
    mean = (mine + sum(others)) / (1 + len(others))
    return mine > mean + max(_LEAST_MARGIN, _MARGIN * mean)


def is_shared(listener: socket.socket) -> bool:
    """Whether a listener's queue is that of all workers: it can be in no group (socket(7),
    SO_REUSEPORT).
    """
    if listener.family == socket.AF_UNIX:
        return True
    return not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


class Fairness:
    """Decides for one worker.

    :param look: a look at all workers.
    :param row: this worker's.
    :param stall_after: seconds; whoever has not turned for so long is not counted on.
    """

    def __init__(self, look: Callable[[], list[Glance]], row: int, stall_after: float) -> None:
        self._look = look
        self._row = row
        self._stall_after_ns = int(stall_after * 1e9)
        self._others: list[Glance] = []
        self._looked_at = float("-inf")
        #: What the others had accepted when the queue was left to them, and until when it is.
        self._left_at: int | None = None
        self._left_until = self._looked_at

    def leaves(self, taken: int) -> bool:
        """Whether a queue with connections in it is to be left to others for :data:`HOLD`.

        :param taken: connections that this worker has now.
        """
        now = time.monotonic()
        if now < self._left_until:
            return True
        self._look_again(now)
        accepted = sum(glance.accepted for glance in self._others)
        left_at, self._left_at = self._left_at, None
        if accepted == left_at or not has_more(taken, [g.open for g in self._others]):
            return False
        self._left_at, self._left_until = accepted, now + HOLD
        return True

    def others_have_room(self) -> bool:
        """Whether another worker that accepts and turns may have more connections."""
        self._look_again(time.monotonic())
        return any(g.admits is None or g.open < g.admits for g in self._others)

    def _look_again(self, now: float) -> None:
        if now - self._looked_at > _GOOD:
            self._looked_at = now
            self._others = [g for g in self._look() if self._counts(g)]

    def _counts(self, glance: Glance) -> bool:
        age = time.monotonic_ns() - glance.heartbeat_ns
        return glance.row != self._row and glance.accepting and age < self._stall_after_ns
