"""The receiver of a handoff session: acknowledges connections before it touches them, and lets the
application go on with them.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from wssup import logs
from wssup.errors import MessageError
from wssup.messages import Message, TakeOver, TookOver
from wssup.server.handoff import record as records
from wssup.server.handoff.answers import Answer, AnswerKind, pack_answer
from wssup.server.handoff.link import BATCH, Incoming
from wssup.server.handoff.protocol import ReceiverLink, Receiving
from wssup.server.handoff.state import unpack

if TYPE_CHECKING:
    from wssup.server.handoff.moving import Moving

__all__ = ["Receiver"]

#: A session without a bound on failed resumes: connections come back to code that knows them.
_UNBOUNDED: Final = (1 << 31) - 1


class Arrival(NamedTuple):
    """A connection that came: its descriptor, its record, and its state unpacked."""

    fd: int
    record: records.Record
    state: dict[str, Any]


class Receiver:
    """One session, at the end that gets the connections.

    :param order: what the master asked for.
    :param end: the link; owned from now on.
    :param post: tells the master.
    """

    def __init__(
        self,
        moving: Moving,
        order: TakeOver,
        end: socket.socket,
        post: Callable[[Message], None],
    ) -> None:
        self._moving = moving
        self._pump = moving.pump
        self._order = order
        self._end = end
        self._post = post
        self._log = logs.get(session=order.session)
        self._books: Receiving[Arrival] = Receiving()
        self._incoming = Incoming(end)
        self._taken = 0
        self._failed = 0
        self._unknown = 0
        # The first one that fails must be let fail, however few there are.
        self._most = max(1, order.failures)
        moving.sessions.receivers.append(self)
        self._pump.topics.bus.take_from(order.sender, order.session)
        self._pump.chores.attend(end.fileno(), select.EPOLLIN, self._ready)

    def _ready(self, bits: int) -> None:  # noqa: ARG002 - whatever it was, a read tells
        try:
            found = self._incoming.read()
        except BlockingIOError:
            return
        except MessageError as error:
            self.end(str(error))
            return
        if found is None:
            self.end("")
            return
        arrivals: list[Arrival] = []
        try:
            for data, fd in found:
                record = records.decode(data, self._order.version)
                arrivals.append(Arrival(fd, record, unpack(record.state)))
        except MessageError as error:
            for _, fd in found:
                os.close(fd)
            self.end(str(error))
            return
        self._books.arrived(arrivals)
        self._take()

    def _take(self) -> None:
        """Answer as many as can be answered now."""
        while self._books.waiting and self._books.link is ReceiverLink.OPEN:
            room = self._moving.room()
            count = min(self._books.waiting, BATCH, room, self._bold())
            if count > 0:
                self._accept(count)
            elif room <= 0:
                self._decline(AnswerKind.NO_ROOM)
            elif self._failed >= self._most:
                self._decline(AnswerKind.STOP)
            else:
                # Not before it is known whether the application can go on with the last ones.
                return

    def _bold(self) -> int:
        """How many more may fail."""
        if self._order.failures >= _UNBOUNDED:
            return BATCH
        return self._most - self._failed - self._unknown

    def _accept(self, count: int) -> None:
        if not self._answer(Answer(AnswerKind.TAKEN, count)):
            return
        owned = self._books.acknowledged(count)
        self._taken += len(owned)
        self._unknown += len(owned)
        for arrival in owned:
            self._moving.adopt(arrival.fd, arrival.record, arrival.state, self, self._order.sender)

    def _decline(self, kind: AnswerKind) -> None:
        count = self._books.waiting
        if self._answer(Answer(kind, count)):
            for arrival in self._books.declined(count):
                os.close(arrival.fd)

    def _answer(self, answer: Answer) -> bool:
        """Say it, now or never: what is not in the sender's queue was not said."""
        try:
            flags = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
            self._end.send(pack_answer(answer), flags)
        except OSError:
            self.end("")
            return False
        return True

    def known(self, *, failed: bool) -> None:
        """The application goes on with a connection, or cannot."""
        self._unknown -= 1
        self._failed += failed
        if self._books.waiting:
            self._pump.chores.soon(self._take)

    def end(self, error: str) -> None:
        """The session is over. What was not acknowledged is not ours: not a byte of it is read or
        written, and our copies of the descriptors are closed.

        :param error: what was wrong with what was received, in words.
        """
        if self._books.link is ReceiverLink.OVER:
            return
        for arrival in self._books.failed():
            os.close(arrival.fd)
        self._incoming.close()
        self._pump.chores.leave(self._end.fileno())
        self._end.close()
        self._moving.sessions.receivers.remove(self)
        self._pump.topics.bus.taken_from(self._order.sender, self._order.session)
        self._post(TookOver(self._order.session, self._taken, self._failed))
        if error:
            self._log.error("handoff_broken", error=error)
        self._log.debug("took_over", taken=self._taken, failed=self._failed)
