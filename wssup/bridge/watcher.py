"""What the bus watches its links with in this process: an epoll of its own, under trio."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Never

import trio

__all__ = ["Watcher"]

#: Events that one look takes at most: the server's side must have its turns too.
_EVENTS = 64


class Watcher:
    """Descriptors, and pieces of work for soon. Everything runs in the tasks of `run`, so none of
    it runs inside another.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._heard: dict[int, Callable[[int], None]] = {}
        self._waiting: list[Callable[[], None]] = []
        self._nudged = trio.Event()

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

    def soon(self, chore: Callable[[], None]) -> None:
        """Do something when the work at hand is done."""
        self._waiting.append(chore)
        self._nudged.set()

    async def run(self) -> Never:
        """Watch and work, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work)
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for fd, bits in self._epoll.poll(0, _EVENTS):
                    # One that was heard before may have left it.
                    heard = self._heard.get(fd)
                    if heard is not None:
                        heard(bits)
                self._do()
                await trio.lowlevel.checkpoint()

    async def _work(self) -> Never:
        while True:
            await self._nudged.wait()
            self._do()
            await trio.lowlevel.checkpoint()

    def _do(self) -> None:
        if self._nudged.is_set():
            self._nudged = trio.Event()
        waiting, self._waiting = self._waiting, []
        for chore in waiting:
            chore()

    def close(self) -> None:
        """Give the epoll back; what it watched is for others to close."""
        self._epoll.close()
