"""Waiting for something that happens more than once, on either loop."""

from __future__ import annotations

from typing import Any

from wssup.server.loops import Loop

__all__ = ["Bell"]


class Bell:
    """Tasks wait for it; each ring wakes those that wait then."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: list[Any] = []

    async def wait(self) -> None:
        """Wait for the next ring."""
        loop = self._loop
        waiter = loop.waiter()
        self._waiting.append(waiter)

        def forget(_: object) -> Any:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            return loop.forgotten

        await loop.park(waiter, forget)

    def ring(self) -> None:
        """Wake who waits."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            self._loop.wake(waiter, None)
