"""What waits for the server: bounded, the oldest goes first when there is no room. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

__all__ = ["Letter", "Outbox"]

#: Bytes that a waiting message costs besides its own (measured, rounded up).
_OVERHEAD: Final = 400


class Letter(NamedTuple):
    """A message on its way to the server, packed."""

    topic: str
    source: str
    sequence: int
    data: bytes

    @property
    def size(self) -> int:
        """The memory it takes, in bytes."""
        return len(self.data) + _OVERHEAD


class Outbox:
    """The queue.

    :param limit: bytes. One message always has room, whatever its size.
    :ivar size: bytes that wait.
    :ivar lost: messages dropped so far.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Letter] = deque()
        self.size = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, letter: Letter) -> list[Letter]:
        """Add a message; returns those that had to go for it."""
        waiting = self._waiting
        waiting.append(letter)
        self.size += letter.size
        dropped = []
        while self.size > self._limit and len(waiting) > 1:
            dropped.append(waiting.popleft())
            self.size -= dropped[-1].size
        self.lost += len(dropped)
        return dropped

    def take(self, most: int, size: int) -> list[Letter]:
        """Take the oldest messages: so many at most, and no more than fit in ``size`` bytes, but
        one at least if there is any.
        """
        waiting = self._waiting
        taken: list[Letter] = []
        while waiting and len(taken) < most:
            cost = waiting[0].size
            if taken and cost > size:
                break
            size -= cost
            self.size -= cost
            taken.append(waiting.popleft())
        return taken
