"""What the pump waits for: which of a worker's sockets are registered, and for what.

An epoll of its own, level-triggered. An empty mask still reports errors, for ever, so who is not
read from is unregistered (epoll(7), EPOLL_CTL_MOD).
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Final

from wssup.server.connection import State
from wssup.server.frames import Decoder
from wssup.server.wire import Wire

if TYPE_CHECKING:
    from wssup.server.connection import Connection

__all__ = ["GONE", "IN", "OUT", "Watching"]

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
GONE: Final = select.EPOLLRDHUP

_OPEN = State.OPEN


class Watching(Wire):
    """The registrations of all connections of a worker, and who is served without one.

    The parameters are the wire's.
    """

    def __init__(self, decoder: Decoder, *, read_bytes: int, message_bytes: int) -> None:
        super().__init__(decoder, read_bytes=read_bytes, message_bytes=message_bytes)
        self._again: dict[Connection, None] = {}
        self._in_turn = False
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        #: Wakes the loop for what no socket will tell.
        self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._nudge, IN)

    def _close_epoll(self) -> None:
        """Give back the two descriptors."""
        self._epoll.close()
        os.close(self._nudge)

    def watch(self, connection: Connection) -> None:
        """Register a connection for what it waits for, and nothing else."""
        status = connection.status
        if status is State.ENDED or status is State.HELD:
            return
        mask = IN | GONE
        if status is State.PENDING:
            mask = connection.mask & mask
        elif connection.paused and status is _OPEN:
            mask = 0
        self._register(connection, mask if connection.outbox is None else mask | OUT)

    def _register(self, connection: Connection, mask: int) -> None:
        if mask == connection.mask:
            return
        if not connection.mask:
            self._epoll.register(connection.fd, mask)
        elif mask:
            self._epoll.modify(connection.fd, mask)
        else:
            self._epoll.unregister(connection.fd)
        connection.mask = mask

    def unwatch(self, connection: Connection) -> None:
        """Read no more of a connection, whatever is left of its last read."""
        self._again.pop(connection, None)
        connection.tick = 0
        self._register(connection, 0)

    def again(self, connection: Connection) -> None:
        """Serve a connection in the next turn, whatever its socket says: of its last read some is
        left.
        """
        self._again[connection] = None
        self.nudge()

    def nudge(self) -> None:
        """Have another turn, although no socket has anything to say."""
        if not self._in_turn:
            os.eventfd_write(self._nudge, 1)
