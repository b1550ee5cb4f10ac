"""Takes connections from the worker's listeners on asyncio."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from wssup.server.admission import Admission
from wssup.server.listening import Key, Listening

__all__ = ["Accepting"]


class Accepting(Listening):
    """All listeners of the worker, on the running asyncio loop."""

    def __init__(
        self,
        *,
        admission: Admission,
        accepted: Callable[[], None],
        gauge: Callable[[bool], None],
    ) -> None:
        super().__init__(admission=admission, accepted=accepted, gauge=gauge)
        self._watched: dict[Key, int] = {}
        #: Those that are not accepted from until a socket is closed, or a while has passed.
        self._waiting: dict[Key, asyncio.TimerHandle | None] = {}

    def _start(self, key: Key) -> None:
        fd = self._watched[key] = self._listeners[key].fileno()
        asyncio.get_running_loop().add_reader(fd, self._ready, key)

    def _stop(self, key: Key) -> None:
        fd = self._watched.pop(key, None)
        if fd is not None:
            asyncio.get_running_loop().remove_reader(fd)
        timer = self._waiting.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _ready(self, key: Key) -> None:
        pause = self._take_some(self._listeners[key])
        if pause:
            self._wait(key, None if pause == math.inf else pause)

    def _wait(self, key: Key, seconds: float | None) -> None:
        """Accept from a listener no more until there is reason to try again."""
        self._stop(key)
        timer = None
        if seconds is not None:
            timer = asyncio.get_running_loop().call_later(seconds, self._go_on, key)
        self._waiting[key] = timer

    def _go_on(self, key: Key) -> None:
        self._stop(key)
        self._start(key)

    def _relieved(self) -> None:
        for key in list(self._waiting):
            self._go_on(key)
