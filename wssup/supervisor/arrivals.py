"""Wakes the master when a connection comes while nothing has moved.

The master looks at the scoreboard often while connections come, and seldom otherwise; this is how
it learns that they do. It accepts none of them. Events are edges (epoll(7), EPOLLET): a queue that
stays full does not wake it again and again.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterable

import trio

__all__ = ["Arrivals"]


class Arrivals:
    """The listeners that it watches; each must be left before it is closed, because workers have
    copies, which would go on to be watched.
    """

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: set[int] = set()

    def watch(self, listeners: Iterable[int]) -> None:
        """Watch these descriptors too."""
        for fd in listeners:
            if self._epoll is None:
                self._epoll = select.epoll()
            if fd not in self._watched:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
                self._watched.add(fd)

    def leave(self, listeners: Iterable[int]) -> None:
        """Watch these descriptors no longer."""
        for fd in listeners:
            if self._epoll is not None and fd in self._watched:
                self._watched.discard(fd)
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)

    def forget(self) -> None:
        """Forget what has come: the next :meth:`wait` is for what comes from now on."""
        if self._epoll is not None and self._watched:
            self._epoll.poll(0, len(self._watched))

    async def wait(self) -> None:
        """Wait until a connection comes."""
        if self._epoll is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
