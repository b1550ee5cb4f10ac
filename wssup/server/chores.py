"""What the pump does besides connections: pieces of work, and descriptors that are no connection's.

All of it is done at the end of a turn, after the connections: it may give descriptors back, whose
numbers come again while events of their former owners are still to be looked at.
"""

from __future__ import annotations

import select
from collections.abc import Callable

__all__ = ["Chores"]


class Chores:
    """The work that waits for the next turn.

    :param epoll: what descriptors are watched with.
    :param nudge: has another turn come.
    """

    def __init__(self, epoll: select.epoll, nudge: Callable[[], None]) -> None:
        self._epoll = epoll
        self._nudge = nudge
        self._waiting: list[Callable[[], None]] = []
        self._heard: dict[int, Callable[[int], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def soon(self, chore: Callable[[], None]) -> None:
        """Do something in this turn or the next one."""
        self._waiting.append(chore)
        self._nudge()

    def take(self) -> list[Callable[[], None]]:
        """What is to be done now."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def attend(self, fd: int, mask: int, heard: Callable[[int], None]) -> None:
        """Watch a descriptor (epoll_ctl(2)); ``heard`` is told what is ready."""
        if fd in self._heard:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._heard[fd] = heard

    def leave(self, fd: int) -> None:
        """Watch a descriptor no more; to be called before it is closed."""
        if self._heard.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def ready(self, fd: int, bits: int) -> None:
        """A descriptor is ready."""

        def tell() -> None:
            heard = self._heard.get(fd)
            if heard is not None:
                heard(bits)

        self._waiting.append(tell)
