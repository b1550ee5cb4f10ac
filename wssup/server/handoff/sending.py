"""The sender of a handoff session: finds connections that are quiet, takes them off the pump, and
sends their records; what is not acknowledged in the end is its own again.

It runs in the pump's turns: a bounded piece of work in each, and no task.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from wssup import logs
from wssup.errors import MessageError
from wssup.messages import HandedOver, HandOver, Message, Swept
from wssup.scoreboard import ClosedReason, HandoffRefusal
from wssup.server.connection import Connection, State
from wssup.server.handoff import record as records
from wssup.server.handoff.answers import AnswerKind, Answers
from wssup.server.handoff.link import BATCH, Outgoing, Progress
from wssup.server.handoff.pace import Pace
from wssup.server.handoff.protocol import SenderLink, Sending

if TYPE_CHECKING:
    from wssup.server.handoff.moving import Moving

__all__ = ["Parcel", "Sender"]

#: Bytes of records after which a batch is sent as it is.
_FULL: Final = 256 << 10
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class Parcel(NamedTuple):
    """A connection between two workers.

    :ivar fd: its descriptor here, open until the parcel is acknowledged.
    :ivar size: bytes of the encoded record.
    :ivar at: when it was made.
    """

    fd: int
    record: records.Record
    size: int
    at: float


class Sender:
    """One session, at the end that has the connections.

    :param order: what the master asked for.
    :param end: the link; owned from now on.
    :param post: tells the master.
    :ivar is_swept: each connection was looked at, and those that were quiet are moved.
    """

    def __init__(
        self,
        moving: Moving,
        order: HandOver,
        end: socket.socket,
        post: Callable[[Message], None],
    ) -> None:
        self._moving = moving
        self._pump = moving.pump
        self._order = order
        self._end = end
        self._post = post
        self._log = logs.get(session=order.session)
        self._books: Sending[Parcel] = Sending()
        self._answers = Answers()
        self._outgoing = Outgoing(end)
        self._batch: list[Parcel] = []
        self._encoded: list[bytes] = []
        self._todo = [c for c in self._pump.connections.values() if self._could_move(c)]
        #: Those that are subscribed to topics, until messages of these are on their way to this
        #: worker alone no more.
        self._late: list[Connection] = []
        self._missing: list[int] = []
        self._held = 0
        self._answered = 0.0
        self._moved = 0
        self._kept = 0
        self._chosen = 0
        self._mask = _IN
        self._broken = False
        self._refused = False
        self._abandoned: ClosedReason | None = None
        self._pace = Pace(order.failures)
        self.is_swept = False
        self._fenced = not order.receiver
        self._pump.chores.attend(end.fileno(), self._mask, self._ready)
        self._pump.chores.soon(self._step)
        if order.receiver:
            self._pump.topics.bus.hand_to(order.receiver, order.session, self._fence)

    def _fence(self, missing: list[int]) -> None:
        """The receiver gets from now on what is published to this worker's topics.

        :param missing: the nodes of which that is not known.
        """
        self._fenced, self._missing = True, missing
        self._moving.sessions.go_on()

    def may_take(self, connection: Connection) -> bool:
        """Whether a connection may go now. Who is subscribed waits for the fence; and as sessions
        have theirs one after the other, one that takes a part goes before one that takes the rest.
        """
        if connection.joined is None:
            return True
        for sender in self._moving.sessions.senders:
            if not sender._fenced:  # noqa: SLF001 - of its own kind
                return False
            if sender is self:
                break
        return self._fenced

    def go_on(self) -> None:
        """Something that it may have waited for is there."""
        if not self._is_over():
            self._pump.chores.soon(self._step)

    def _could_move(self, connection: Connection) -> bool:
        """Leave those out that are not open yet (`consider` comes for them later), or not any
        more.
        """
        if connection.status is State.OPEN:
            return True
        leave = self._pump.closing.leave
        if connection.status not in {State.HANDSHAKE, State.PENDING, State.HELD} and (
            # Those that are closed because they did not move were counted as that.
            leave is None or leave.spares
        ):
            self._moving.refuse(HandoffRefusal.CLOSING)
        return False

    @property
    def is_open(self) -> bool:
        """Whether it takes connections."""
        return not self._is_over() and not self._refused and not self._is_full

    @property
    def _is_full(self) -> bool:
        return 0 < self._order.quota <= self._chosen

    @property
    def takes_all(self) -> bool:
        """Whether it goes on with those that become quiet, or open, later."""
        return self.wants_all and not self._is_over() and not self._refused

    @property
    def wants_all(self) -> bool:
        """Whether it was to do so when it began."""
        return not self._order.quota

    # One connection.

    def consider(self, connection: Connection) -> None:
        """Move a connection, now if it is quiet, else as soon as it is."""
        if not self.may_take(connection):
            self._late.append(connection)
        elif connection.status is State.OPEN and self.is_open:
            # Where a part is wanted it does not matter which: those that are quiet.
            self._moving.want(connection, self, patiently=not self._order.quota)

    def held(self) -> None:
        """A connection was taken off the pump for this session."""
        self._held += 1
        self._chosen += 1

    def dropped(self) -> None:
        """A connection that was held cannot be moved, or is gone."""
        self._held -= 1
        self._chosen -= 1
        self._kept += 1
        self._pump.chores.soon(self._step)

    def pack(self, parcel: Parcel, encoded: bytes) -> bool:
        """Take a connection that is ready to go; whether the session still can."""
        self._held -= 1
        if self._books.link is not SenderLink.OPEN:
            return False
        if self._missing and parcel.record.topics:
            self._log.warning(
                "bus_fence_timeout",
                receiver=self._order.receiver,
                missing=self._missing[:20],
                hint="what these nodes publish meanwhile may be lost to connections that move",
            )
            self._missing = []
        self._batch.append(parcel)
        self._encoded.append(encoded)
        self._pump.chores.soon(self._step)
        return True

    # A piece of work.

    def _step(self) -> None:
        if self._is_over():
            return
        if self._late and self.may_take(self._late[-1]):
            self._todo += self._late
            self._late = []
        looked = 0
        while self._todo and self.is_open and looked < BATCH and self._has_room():
            looked += 1
            self.consider(self._todo.pop())
        self._send()
        if self._is_over():
            return
        more = bool(self._todo or self._late) and self.is_open
        if not (more or self._held or self._batch or self._books.out):
            self._sweep()
        elif self._todo and self.is_open and self._has_room():
            self._pump.chores.soon(self._step)

    def _is_over(self) -> bool:
        return self._books.link is not SenderLink.OPEN

    def _has_room(self) -> bool:
        return self._held + len(self._batch) + self._books.out < self._pace.window

    def _send(self) -> None:
        while self._batch:
            count = size = 0
            for encoded in self._encoded[:BATCH]:
                if count and size + len(encoded) > _FULL:
                    break
                count, size = count + 1, size + len(encoded)
            parcels, self._batch = self._batch[:count], self._batch[count:]
            encoded_ones, self._encoded = self._encoded[:count], self._encoded[count:]
            self._books.send(parcels)
            self._outgoing.add(encoded_ones, [parcel.fd for parcel in parcels])
        self._flush()

    def _flush(self) -> None:
        try:
            progress = self._outgoing.flush()
        except OSError:
            self.end("receiver_lost")
            return
        mask = _IN | _OUT if progress is Progress.FULL else _IN
        if mask != self._mask:
            self._mask = mask
            self._pump.chores.attend(self._end.fileno(), mask, self._ready)

    def retry(self) -> None:
        """From time to time: the kernel may have had no room for other reasons than this link."""
        if not self._is_over():
            self._flush()

    def give_up(self, since: float) -> None:
        """End the session if there was no answer since that moment to what was sent before it."""
        oldest = self._books.oldest
        if oldest is not None and max(oldest.at, self._answered) < since:
            self.end("receiver_slow")

    def _sweep(self) -> None:
        if not self.is_swept:
            self.is_swept = True
            busy = self._moving.wanted_by(self)
            self._post(Swept(self._order.session, self._moved, busy, self._kept))
            self._moving.sessions.changed()
        if self._order.quota:
            self.end("")

    def _ready(self, bits: int) -> None:
        """The link has something to say, or room."""
        if bits & _OUT:
            self._flush()
        if not self._is_over() and bits & ~_OUT and self._hear():
            self.end("receiver_lost")

    def _hear(self) -> bool:
        """Read the answers that are there; whether that was the end."""
        while True:
            try:
                data = self._end.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                continue  # said once, after the answers that the receiver had sent
            if not data:
                return True
            self._answered = time.monotonic()
            try:
                for answer in self._answers.feed(data):
                    gone, kept = self._books.answered(answer)
                    for parcel in gone:
                        self._gone(parcel)
                    if gone:
                        self._pace.answered(gone[0].at, self._answered, len(gone))
                    self._keep(kept, answer.kind)
            except MessageError as error:
                # Whose the connections on their way are cannot be known any more: nobody's.
                self._log.error("handoff_broken", error=str(error))
                self._broken = True
                return True
            self._pump.chores.soon(self._step)

    def _gone(self, parcel: Parcel) -> None:
        """It is the receiver's."""
        self._moved += 1
        os.close(parcel.fd)
        self._pump.row.moved_out(parcel.size)
        self._pump.closing.closed_one()

    def _keep(self, parcels: list[Parcel], kind: AnswerKind) -> None:
        if not parcels:
            return
        self._refused = True
        for parcel in parcels:
            self._take_back(parcel)
        full = kind is AnswerKind.NO_ROOM
        if full:
            for _ in parcels:
                self._moving.refuse(HandoffRefusal.NO_ROOM)
        self._pump.chores.soon(lambda: self.end("receiver_full" if full else "resume_failures"))

    def _take_back(self, parcel: Parcel) -> None:
        self._kept += 1
        if self._abandoned is not None:
            self._moving.give_up(parcel.fd, parcel.record, self._abandoned)
        else:
            self._moving.take_back(parcel.fd, parcel.record)

    def end(self, error: str) -> None:
        """End the session. What is on its way is decided here: shutdown(2) makes every later
        acknowledgement fail at the receiver, and those before it can still be read (unix(7)); only
        then is a socket that was not acknowledged read again.
        """
        if self._is_over():
            return
        kept = self._shut()
        if error == "receiver_lost":
            for _ in kept:
                self._moving.refuse(HandoffRefusal.LOST)
        for parcel in [*kept, *self._batch]:
            self._take_back(parcel)
        self._finish(error)

    def abandon(self, verdict: ClosedReason) -> None:
        """End the session where nobody is left to go on with what it does not move."""
        self._abandoned = verdict
        self.end("")

    def _shut(self) -> list[Parcel]:
        """Shut the link; what was not acknowledged."""
        self._books.shut()
        # If the receiver is gone, what it had answered can still be read.
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        if not self._broken:
            self._hear()
        kept = self._books.over()
        self._pump.chores.leave(self._end.fileno())
        self._end.close()
        if self._broken:
            for parcel in kept:
                self._moving.give_up(parcel.fd, parcel.record, ClosedReason.ERROR)
            return []
        return kept

    def _finish(self, error: str) -> None:
        self._batch, self._encoded, self._todo, self._late = [], [], [], []
        self.is_swept = True
        self._pump.topics.bus.handed_to(self._order.receiver, self._order.session)
        self._moving.over(self, error)
        self._post(HandedOver(self._order.session, self._moved, error))
        self._log.debug("handed_over", moved=self._moved, kept=self._kept, error=error or None)

    @property
    def session(self) -> int:
        """The master's number."""
        return self._order.session

    @property
    def version(self) -> int:
        """Of the records."""
        return self._order.version
