"""Takes connections from the worker's listeners: its own, and those it was lent."""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Callable

import trio

from wssup import logs

__all__ = ["Accepting"]

#: Connections taken from one listener before the others have their turn.
_BATCH = 16
#: The connection was gone before it was taken, or a firewall refused it (accept(2)): the next may
#: be fine.
_ITS_OWN_FAULT = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ENONET,
    }
)
#: No descriptors, or no memory for one: taking more makes no sense for a while.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Seconds until another try when nothing was closed meanwhile.
_RELIEF = 1.0
#: Seconds between two warnings of the same limit.
_QUIET = 10.0

Key = tuple[int, str]


class Accepting:
    """All listeners of the worker.

    Listening sockets are shared with other processes: they are only ever closed here, never shut
    down, and their O_NONBLOCK, which belongs to the open file description, is left as the master
    set it.

    :param limit: sockets open at a time; beyond it connections wait in the kernel's queue.
    :param accepted: called for each connection taken, at once.
    :param gauge: called with whether connections are being taken.
    :ivar adopt: called with each descriptor taken, which does not block, and its peer's address;
        owns it from then on.
    """

    def __init__(
        self, *, limit: int, accepted: Callable[[], None], gauge: Callable[[bool], None]
    ) -> None:
        self._limit = self._most = limit
        self._accepted = accepted
        self._gauge = gauge
        self._listeners: dict[Key, socket.socket] = {}
        self._scopes: dict[Key, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._on = False
        #: Sockets taken here, or come from another worker, that are not closed yet.
        self.open = 0
        #: Sockets taken here that are closed.
        self.closed = 0
        self._relief = trio.Event()
        self._quiet_until = -math.inf
        self.adopt: Callable[[int, object], None]
        self._log = logs.get()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host the tasks that accept; until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def add(self, key: Key, descriptor: int) -> None:
        """Accept from one more listener, which is owned from now on. One that is there already is
        closed.
        """
        if key in self._listeners:
            os.close(descriptor)
            return
        self._listeners[key] = socket.socket(fileno=descriptor)
        if self._on:
            self._start(key)

    def remove(self, key: Key) -> None:
        """Close this worker's copy of a listener."""
        listener = self._listeners.pop(key, None)
        if listener is not None:
            self._stop(key)
            listener.close()

    def switch(self, *, on: bool) -> None:
        """Accept, or no longer; the listeners stay."""
        if on is self._on:
            return
        self._on = on
        self._gauge(on)
        for key in self._listeners:
            if on:
                self._start(key)
            else:
                self._stop(key)

    def empty_queues(self) -> None:
        """Take what has been accepted by the kernel and waits, without waiting for more."""
        for listener in self._listeners.values():
            before = -1
            while before != self.open < self._limit:
                before = self.open
                if self._take_some(listener):
                    break

    def close_listeners(self) -> None:
        """Accept no more, for good. What was taken already is still handed out."""
        self.switch(on=False)
        for key in list(self._listeners):
            self.remove(key)

    def room(self) -> int:
        """How many more sockets there may be."""
        return self._limit - self.open

    def leave(self, count: int) -> None:
        """Leave so many descriptors of the limit to others."""
        self._limit = max(1, self._most - count)

    def took_one(self) -> None:
        """A socket came from another worker."""
        self.open += 1

    def closed_one(self) -> None:
        """A socket taken here was closed, or went to another worker."""
        self.open -= 1
        self.closed += 1
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
                while self.open >= self._limit:
                    self._warn("connection_limit", open=self.open)
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

    def _take_some(self, listener: socket.socket) -> str:
        """Take what is there, up to a batch; the error if this process can have no more sockets."""
        for _ in range(min(_BATCH, self._limit - self.open)):
            try:
                # Half of what socket.accept() costs is the Python object, which nobody needs.
                client, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
            except BlockingIOError:
                return ""
            except OSError as error:
                if error.errno in _ITS_OWN_FAULT:
                    continue
                if error.errno in _EXHAUSTED:
                    return error.strerror or "out of descriptors"
                raise
            self.open += 1
            self._accepted()
            os.set_blocking(client, False)
            self.adopt(client, address)
        return ""

    async def _wait_for_relief(self, seconds: float) -> None:
        if self._relief.is_set():
            self._relief = trio.Event()
        with trio.move_on_after(seconds):
            await self._relief.wait()

    def _warn(self, event: str, **fields: object) -> None:
        """Say it, but not with every connection of a storm."""
        if trio.current_time() >= self._quiet_until:
            self._quiet_until = trio.current_time() + _QUIET
            self._log.warning(event, **fields)
