"""The pump: the one reader of a worker's connections.

An epoll of its own, level-triggered, whose descriptor the loop waits on. A turn reads every ready
socket once, decodes, answers pings and closes, and gives messages to the application. There is no
task, channel or system call for an idle connection, and none but read and write per message.

What the kernel makes necessary (epoll(7)):

- Event bits are hints: only a read says what there is.
- A descriptor's number can be given out again as soon as it is closed, while events of its former
  owner are still in the list of this turn. So descriptors are closed at the end of the turn.
- A registration belongs to the open file description, which a child of the application may hold,
  too: it is removed before the descriptor is closed.
- An empty mask still reports errors, for ever: who is not read from is unregistered.

What application code makes necessary: inside a turn it may close, send to, or break any connection.
That is marked, and finished at the turn's end; whatever one connection raises ends that one alone.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Collection, Container
from typing import TYPE_CHECKING, Final

from wssup import logs
from wssup.config.settings import Heartbeat, Limits
from wssup.scoreboard import ClosedReason, HandshakeFailure, Label, RowWriter
from wssup.server import heartbeat, sockets
from wssup.server.backpressure import Backpressure
from wssup.server.chores import Chores
from wssup.server.closing import Closing
from wssup.server.complaints import SLOW, Complaints
from wssup.server.connection import Connection, State
from wssup.server.deadlines import Deadlines
from wssup.server.frames import PONG, Close, Decoder, Event, Ping, Pong, Violation, encode
from wssup.server.handoff.moving import Moving
from wssup.server.loops import Loop
from wssup.server.opening import Opening
from wssup.server.watching import GONE, IN, OUT, Watching
from wssup.server.wire import END, End, Received

if TYPE_CHECKING:
    from wssup.server.styles import Style
    from wssup.server.topics.hub import Hub

__all__ = ["FRAMES", "Pump"]

#: Sockets looked at in a turn; who is left over comes first in the next one.
_SOCKETS = 256
#: Fewer than these in a turn are no burst: the loop's own wait costs less than another look that
#: finds nothing.
_BURST = 4
#: Frames of one connection decoded in a turn.
FRAMES: Final = 64
#: Seconds between two writes of the counters of traffic while there is always something to do.
_FLUSH = 0.01

_OPEN = State.OPEN


class Pump(Watching):
    """Moves the bytes of all connections of a worker.

    :param style: the application.
    :param serial: the worker's number in its instance.
    :param keep_headers: names of request headers that are kept; ``None`` for all.
    :param closed_one: called for each socket that was closed, or left for another worker.
    :param took_one: called for each socket that came from another worker.
    :param room: how many sockets there may be besides those that are.
    :param topics: what its connections can subscribe to.
    :ivar connections: by descriptor.
    """

    def __init__(
        self,
        style: Style,
        loop: Loop,
        *,
        limits: Limits,
        beat: Heartbeat,
        row: RowWriter,
        serial: int,
        keep_headers: Collection[str] | None,
        closed_one: Callable[[], None],
        took_one: Callable[[], None] = lambda: None,
        room: Callable[[], int] = lambda: 1 << 30,
        topics: Hub,
    ) -> None:
        super().__init__(
            Decoder(message_bytes=limits.message_bytes, fragments=limits.fragments),
            read_bytes=limits.read_bytes,
            message_bytes=limits.message_bytes,
        )
        self.style = style
        self.loop = loop
        # Looked up for each message.
        self.park, self.rest, self.waiter = loop.park, loop.rest, loop.waiter
        self.cancel_point, self.schedule_point = loop.cancel_point, loop.schedule_point
        self.limits = limits
        self.row = row
        self.random = random.Random()  # noqa: S311 - spreads things in time; made after the fork
        self.connections: dict[int, Connection] = {}
        self.opening = Opening(self, serial=serial, keep_headers=keep_headers)
        self.closing = Closing(self, closed_one)
        self.pressure = Backpressure(self)
        self.heartbeat = heartbeat.Heartbeats(self, beat)
        self.handoff = Moving(self, room=room, took_one=took_one)
        self.topics = topics
        self.scheduler = loop.scheduler
        self.schedule = Deadlines(self).schedule
        self.complaints = Complaints()
        self._log = logs.get()
        self._reported = 0
        self._flush_at = 0.0
        self._found = 0
        self.chores = Chores(self._epoll, self.nudge)
        style.begin(self)
        topics.begin(self)
        self._deliver = self._deliver_or_answer if beat.app_ping else style.deliver
        self._whole_budget = style.whole_budget
        forwards = style.forwards and not beat.app_ping
        self._receive = Connection.forward if forwards else Connection.receive
        loop.readable(self._epoll.fileno(), self._take_turn)

    def close_descriptors(self) -> None:
        """Give back the pump's own descriptors; nothing may be called afterwards."""
        self.topics.close()
        self._close_epoll()

    # A turn.

    def _take_turn(self) -> bool:
        """A turn; whether the next one comes before the loop waits for it.

        The descriptor of an epoll is readable as long as anything in it is ready (epoll(7)), so
        what came meanwhile is heard of either way.
        """
        self.turn()
        return self._found >= _BURST or bool(self._again) or bool(self.chores)

    def turn(self) -> bool:
        """Do what there is to do, each connection a bounded piece of it.

        :returns: whether there may be more at once.
        """
        self._in_turn = True
        again, self._again = self._again, {}
        try:
            for connection in again:
                began = time.monotonic()
                if connection.status is not State.ENDED:
                    self._serve(connection, IN)
                if self.style.plain:
                    self.complaints.took(connection, self.style.plain, time.monotonic() - began)
            ready = self._poll(0, _SOCKETS)
            found = self._found = len(ready)
            if ready:
                self._serve_all(ready, again)
            if self.chores:
                for chore in self.chores.take():
                    self._do(chore)
        finally:
            self._in_turn = False
            self._end_turn()
        # After the last turn of a burst comes one with less.
        if found < _BURST or time.monotonic() >= self._flush_at:
            self.flush_counters()
        return bool(ready) or bool(self._again) or bool(self.chores)

    def _serve_all(  # noqa: C901 - the hot path
        self, ready: list[tuple[int, int]], served: Container[Connection]
    ) -> None:
        """The hot path: what is open, readable and holds one whole message goes no further.

        :param served: who had its part of this turn already.
        """
        connections, deliver, budget = self.connections, self._deliver, self._whole_budget
        monotonic, watched, receive = time.monotonic, self.style.plain, self._receive
        now = monotonic()
        for fd, bits in ready:
            connection = connections.get(fd)
            if connection is None:
                self._other(fd, bits)
                continue
            try:
                if served and connection in served:
                    if bits & OUT:
                        self._flush(connection)
                elif bits == IN and connection.status is _OPEN and connection.inbox is None:
                    connection.heard = now
                    found = receive(connection, budget)
                    kind = type(found)
                    if kind is str or kind is bytes:
                        deliver(connection, found)  # type: ignore[arg-type]
                    elif found is not None:
                        self._take(connection, found)
                else:
                    self._serve(connection, bits)
            except Exception as error:  # noqa: BLE001 - the boundary: one connection, whatever it did
                self._broke(connection, error)
            if watched:
                began, now = now, monotonic()
                if now - began > SLOW:
                    self.complaints.took(connection, watched, now - began)

    def _other(self, fd: int, bits: int) -> None:
        """What is registered that is no connection."""
        if fd == self._nudge:
            os.eventfd_read(fd)
        else:
            self.chores.ready(fd, bits)

    def _do(self, chore: Callable[[], None]) -> None:
        try:
            chore()
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it was about, others live on
            self._log.error("handoff_failed", exc_info=error)
            self.handoff.sessions.end_all("it failed; see the log")

    def _broke(self, connection: Connection, error: Exception) -> None:
        self._log.error("connection_failed", exc_info=error)
        verdict: Label = ClosedReason.ERROR
        if connection.status in {State.HANDSHAKE, State.PENDING, State.KEPT}:
            verdict = HandshakeFailure.ERROR
        self.closing.lose(connection, verdict)

    def _serve(self, connection: Connection, bits: int) -> None:
        """One connection's part of a turn."""
        try:
            if bits & OUT:
                self._flush(connection)
                if not bits & ~OUT:
                    return
            if connection.status is not _OPEN:
                self._serve_other(connection, bits)
            elif not connection.paused:
                connection.heard = time.monotonic()
                budget = self.style.budget(connection)
                self._take(connection, connection.receive(budget))
            elif bits & ~(IN | OUT):
                # Only errors are reported of it, if anything.
                self.closing.lose(connection)
        except Exception as error:  # noqa: BLE001 - the boundary, as above
            self._broke(connection, error)

    def _take(self, connection: Connection, found: Received) -> None:
        """What was received of an open connection, or of one that the application is closing."""
        for event in (found,) if isinstance(found, str | bytes) else found:
            if connection.status is _OPEN:
                if isinstance(event, str | bytes):
                    self._deliver(connection, event)
                else:
                    self._control(connection, event)
            elif connection.status is not State.CLOSING:
                return
            # Only the other half of the closing handshake is of interest any more.
            elif isinstance(event, Close):
                self.closing.complete(connection)
            elif event is END or isinstance(event, Violation):
                self.closing.lose(connection)
        unfinished = connection.unfinished
        if unfinished is not None and unfinished.more and not connection.paused:
            self.again(connection)

    def _deliver_or_answer(self, connection: Connection, message: str | bytes) -> None:
        """Answer the pings of code that cannot send real ones."""
        if type(message) is str and heartbeat.is_app_ping(message):
            connection.send_nowait(heartbeat.APP_PONG)
        else:
            self.style.deliver(connection, message)

    def _serve_other(self, connection: Connection, bits: int) -> None:
        """A connection that is not open: not yet, or not any more."""
        status = connection.status
        if status is State.HANDSHAKE or status is State.KEPT:
            self.opening.read_head(connection)
        elif status is State.CLOSING:
            self._take(connection, connection.receive(FRAMES))
        elif status is State.HELD:
            return  # told before it was taken off
        elif status is not State.PENDING:
            if sockets.discard(connection.fd, self.buffers):
                self.closing.lose(connection)
        elif bits & ~IN:
            self.closing.lose(connection)
        else:
            # It speaks before it was answered, which nobody reads yet.
            self._register(connection, GONE)

    def _control(self, connection: Connection, event: Event | End) -> None:
        """What is no message, of an open connection."""
        if isinstance(event, Pong):
            self.heartbeat.pong(connection, event.payload)
        elif isinstance(event, Ping):
            self.send_control(connection, PONG, event.payload)
            if connection.outbox is not None and not self.pressure.hold_back(connection):
                self.pressure.is_full(connection)
        elif isinstance(event, Close):
            self.closing.closed_by_client(connection, event.code, event.reason)
        elif isinstance(event, Violation):
            self.closing.violated(connection, event)
        else:
            self.closing.lose(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            moved = connection.flush()
        except OSError:
            self.closing.lose(connection)
            return
        if moved:
            self.moved(connection)
        if connection.status is _OPEN:
            if connection.outbox is None:
                self.watch(connection)
            self.pressure.flushed(connection)
        elif connection.outbox is None:
            self.watch(connection)
            self.closing.flushed(connection)

    def _end_turn(self) -> None:
        if self.closing.bury():
            self.nudge()

    # What is sent.

    def send_control(self, connection: Connection, opcode: int, payload: bytes) -> None:
        """Send a control frame (RFC 6455 section 5.5)."""
        self.transmit(connection, encode(opcode, payload))

    def transmit(self, connection: Connection, data: bytes) -> None:
        """Send what is no message."""
        if connection.status is State.ENDED:
            return
        try:
            if connection.transmit(data):
                self.must_flush(connection)
        except OSError:
            self.closing.lose(connection)

    def must_flush(self, connection: Connection) -> None:
        """The kernel did not take all: go on when it does, or give up when it never does."""
        self.moved(connection)
        self.watch(connection)
        self.schedule(connection, connection.stuck + self.limits.send_timeout, sooner=True)

    def moved(self, connection: Connection) -> None:
        """The client took something: remember when, and what the kernel holds for it still."""
        connection.stuck = time.monotonic()
        connection.untaken = sockets.untaken(connection.fd)

    def remove(self, connection: Connection, fd: int) -> None:
        """Let go of a connection's descriptor, and close it."""
        if connection.mask:
            connection.mask = 0
            self._epoll.unregister(fd)
        del self.connections[fd]
        self.opening.forget(connection)
        os.close(fd)

    def aside(self, work: Callable[[], None]) -> None:
        """Do something as in a turn, outside of any."""
        self._in_turn = True
        try:
            work()
        finally:
            self._in_turn = False
            self._end_turn()
        if self._again or self.chores:
            self.nudge()

    # What is told.

    def flush_counters(self) -> None:
        """Write the counters of traffic to the scoreboard."""
        self._flush_at = time.monotonic() + _FLUSH
        if self.messages_in or self.messages_out:
            self.row.traffic(self.messages_in, self.messages_out, self.bytes_in, self.bytes_out)
            self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        if self.queued != self._reported:
            self._reported = self.queued
            self.row.send_queue(self.queued)
        self.topics.flush(self.row)
