"""The listeners of a worker, its own and those it was lent, whatever loop they are accepted on."""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections.abc import Callable

from wssup import logs

__all__ = ["Key", "Listening"]

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
#: Seconds between two warnings of the same limit.
_QUIET = 10.0

Key = tuple[int, str]


class Listening:
    """All listeners of the worker; a subclass accepts.

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
        self._on = False
        #: Sockets taken here, or come from another worker, that are not closed yet.
        self.open = 0
        #: Sockets taken here that are closed.
        self.closed = 0
        self._quiet_until = -math.inf
        self.adopt: Callable[[int, object], None]
        self._log = logs.get()

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
        self._relieved()

    def _start(self, key: Key) -> None:
        """Begin to accept from a listener; while there are too many connections, wait."""
        raise NotImplementedError

    def _stop(self, key: Key) -> None:
        """Accept from a listener no more; it may be closed at once."""
        raise NotImplementedError

    def _relieved(self) -> None:
        """A socket was closed: who waits for that goes on."""
        raise NotImplementedError

    @property
    def _is_full(self) -> bool:
        """Whether there are as many sockets as there may be; then it is told, too."""
        if self.open < self._limit:
            return False
        self._warn("connection_limit", open=self.open)
        return True

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

    def _warn(self, event: str, **fields: object) -> None:
        """Say it, but not with every connection of a storm."""
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET
            self._log.warning(event, **fields)
