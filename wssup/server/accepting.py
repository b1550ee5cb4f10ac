"""Takes connections from the worker's listeners: its own, and those it was lent."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable

import trio

from wssup.server.listening import Key, Listening

__all__ = ["Accepting"]

#: Seconds until another try when nothing was closed meanwhile.
_RELIEF = 1.0


class Accepting(Listening):
    """All listeners of the worker, on trio."""

    def __init__(
        self, *, limit: int, accepted: Callable[[], None], gauge: Callable[[bool], None]
    ) -> None:
        super().__init__(limit=limit, accepted=accepted, gauge=gauge)
        self._scopes: dict[Key, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._relief = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host the tasks that accept; until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def _relieved(self) -> None:
        self._relief.set()

    def _start(self, key: Key) -> None:
        assert self._nursery is not None
        scope = self._scopes[key] = trio.CancelScope()
        self._nursery.start_soon(self._take_from, self._listeners[key], scope)

    def _stop(self, key: Key) -> None:
        scope = self._scopes.pop(key, None)
        if scope is not None:
            scope.cancel()

    async def _take_from(self, listener: socket.socket, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                while self._is_full:
                    await self._wait_for_relief(math.inf)
                # Removing a listener closes it at once, while this task may not have begun to wait,
                # or be on its way from the wait to here: then its descriptor is -1.
                await trio.lowlevel.checkpoint_if_cancelled()
                await trio.lowlevel.wait_readable(listener)
                await trio.lowlevel.checkpoint_if_cancelled()
                exhausted = self._take_some(listener)
                if exhausted:
                    self._warn("accept_exhausted", error=exhausted, open=self.open)
                    await self._wait_for_relief(_RELIEF)

    async def _wait_for_relief(self, seconds: float) -> None:
        if self._relief.is_set():
            self._relief = trio.Event()
        with trio.move_on_after(seconds):
            await self._relief.wait()
