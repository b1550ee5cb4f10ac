"""Takes connections from the worker's listeners: its own, and those it was lent."""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

from wssup.server.admission import Admission
from wssup.server.listening import Key, Listening

__all__ = ["Accepting"]


class Accepting(Listening):
    """All listeners of the worker, on trio."""

    def __init__(
        self,
        *,
        admission: Admission,
        accepted: Callable[[], None],
        gauge: Callable[[bool], None],
    ) -> None:
        super().__init__(admission=admission, accepted=accepted, gauge=gauge)
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
                # Removing a listener closes it at once, while this task may not have begun to wait,
                # or be on its way from the wait to here: then its descriptor is -1.
                await trio.lowlevel.checkpoint_if_cancelled()
                await trio.lowlevel.wait_readable(listener)
                await trio.lowlevel.checkpoint_if_cancelled()
                pause = self._take_some(listener)
                if pause:
                    await self._wait_for_relief(pause)

    async def _wait_for_relief(self, seconds: float) -> None:
        if self._relief.is_set():
            self._relief = trio.Event()
        with trio.move_on_after(seconds):
            await self._relief.wait()
