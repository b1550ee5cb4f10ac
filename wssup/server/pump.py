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
import select
import socket
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from trio_websocket import CloseReason

from wssup import logs
from wssup.config.settings import Heartbeat, Limits
from wssup.scoreboard import (
    ClosedReason,
    HandshakeFailure,
    Label,
    RefusedReason,
    RowWriter,
)
from wssup.server import ending, handshake, heartbeat
from wssup.server.connection import Connection, State
from wssup.server.frames import (
    CLOSE,
    PONG,
    Close,
    Decoder,
    Event,
    Ping,
    Pong,
    Unfinished,
    Violation,
    close_payload,
    encode,
)
from wssup.server.loops import Loop
from wssup.server.request import Request
from wssup.server.wheel import Wheel
from wssup.server.wire import END, End, Wire

if TYPE_CHECKING:
    from wssup.server.styles import Style

__all__ = ["Pump"]

_IN, _OUT, _GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
#: Sockets looked at in a turn; who is left over comes first in the next one.
_SOCKETS = 256
#: Frames of one connection decoded in a turn.
FRAMES: Final = 64
#: Seconds of application code inside a turn that are worth a warning, and between two of them.
_SLOW = 0.1
_QUIET = 10.0

_OPEN = State.OPEN


class Pump(Wire):
    """Moves the bytes of all connections of a worker.

    :param style: the application.
    :param serial: the worker's number, from which connections get theirs.
    :param keep_headers: names of request headers that are kept; ``None`` for all.
    :param closed_one: called for each socket that was closed.
    :ivar connections: by descriptor.
    """

    def __init__(
        self,
        style: Style,
        loop: Loop,
        *,
        limits: Limits,
        beat: Heartbeat,
        keep_headers: Collection[str] | None,
        row: RowWriter,
        serial: int,
        closed_one: Callable[[], None],
    ) -> None:
        super().__init__(
            Decoder(message_bytes=limits.message_bytes, fragments=limits.fragments),
            read_bytes=limits.read_bytes,
            message_bytes=limits.message_bytes,
        )
        self.loop = loop
        self.style = style
        style.pump = self
        self.limits = limits
        self._whole_budget = style.whole_budget
        self.row = row
        self.random = random.Random()  # noqa: S311 - spreads things; made after the fork
        self.connections: dict[int, Connection] = {}
        self.accepting = False
        self.hurry: Label | None = None
        self.leave: ending.Leave | None = None
        self.heartbeat = heartbeat.Heartbeats(self, beat)
        self._keep_headers = keep_headers
        self._closed_one = closed_one
        self._number = serial << 32
        self._addresses: dict[bytes, int] = {}
        self._again: list[Connection] = []
        self._doomed: list[Connection] = []
        self._in_turn = False
        self._log = logs.get()
        self._quiet_until = 0.0
        self._reported = 0
        self._wheel = Wheel()
        self._set_timer = loop.timer(self._ring)
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        #: Wakes the loop for what no socket will tell.
        self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._nudge, _IN)
        self._deliver = self._deliver_or_answer if beat.app_ping else style.deliver
        loop.readable(self._epoll.fileno(), self.turn)

    def close_descriptors(self) -> None:
        """Give back the pump's own descriptors; nothing may be called afterwards."""
        self._epoll.close()
        os.close(self._nudge)

    # Connections come.

    def adopt(self, sock: socket.socket, address: object) -> None:
        """Take over an accepted socket."""
        peer = ending.packed(sock.family, address)
        fd = sock.detach()
        self._number += 1
        now = time.monotonic()
        connection = self.connections[fd] = Connection(self, fd, peer, self._number, now)
        if self.hurry is not None:
            self.lose(connection, HandshakeFailure.DRAINING)
            return
        self.schedule(connection, now + self.limits.handshake_timeout)
        self.watch(connection)
        most = self.limits.connections_per_address
        if most and peer:
            # Behind the address stands the port, which tells connections apart, not clients.
            count = self._addresses[peer[:-2]] = self._addresses.get(peer[:-2], 0) + 1
            if count > most:
                answer = handshake.response(429, b"too many connections\n", kind=b"text/plain")
                self.respond(connection, answer, RefusedReason.ADDRESS)

    def family_of(self, peer: bytes) -> tuple[int, int]:
        """The family and type of the socket that ``peer`` is at the other end of."""
        families = {0: socket.AF_UNIX, 6: socket.AF_INET}
        return families.get(len(peer), socket.AF_INET6), socket.SOCK_STREAM

    # A turn.

    def turn(self) -> bool:
        """Do what there is to do, each connection a bounded piece of it.

        :returns: whether there may be more at once.
        """
        self._in_turn = True
        try:
            again, self._again = self._again, []
            for left in again:
                if left.status is not State.ENDED:
                    self._serve(left, _IN)
            ready = self._poll(0, _SOCKETS)
            connections = self.connections
            monotonic, began = time.monotonic, time.monotonic()
            plain = self.style.plain
            for fd, bits in ready:
                connection = connections.get(fd)
                if connection is None:
                    os.eventfd_read(fd)  # nothing else is registered that is no connection
                    continue
                self._serve(connection, bits)
                now = monotonic()
                if bits & _IN:
                    connection.heard = now
                if now - began > _SLOW:
                    self._slow(connection, now - began, plain=plain)
                began = now
        finally:
            self._in_turn = False
            self._end_turn()
        return bool(ready) or bool(self._again)

    def _serve(self, connection: Connection, bits: int) -> None:  # noqa: C901 - the hot path
        """One connection's part of a turn, and the boundary for what goes wrong in it."""
        try:
            if bits != _IN and bits & _OUT:
                self._flush(connection)
                if not bits & ~_OUT:
                    return
            if connection.status is not _OPEN:
                self._serve_other(connection)
                return
            if connection.paused:
                # Only errors are reported of it, if anything.
                if bits & ~(_IN | _OUT):
                    self.lose(connection)
                return
            for event in connection.receive(
                self._whole_budget if connection.inbox is None else self.style.budget(connection)
            ):
                kind = type(event)
                if kind is str or kind is bytes:
                    self._deliver(connection, event)
                else:
                    self._control(connection, event)
                if connection.status is not _OPEN:
                    break
            else:
                unfinished = connection.unfinished
                if unfinished is not None and unfinished.more and not connection.paused:
                    self._again.append(connection)
        except Exception as error:  # noqa: BLE001 - the boundary: one connection, whatever it did
            self._log.error("connection_failed", exc_info=error)
            self.lose(connection, ClosedReason.ERROR)

    def _deliver_or_answer(self, connection: Connection, message: str | bytes) -> None:
        """Answer the pings of code that cannot send real ones."""
        if type(message) is str and heartbeat.is_app_ping(message):
            connection.send_nowait(heartbeat.APP_PONG)
        else:
            self.style.deliver(connection, message)

    def _serve_other(self, connection: Connection) -> None:
        """A connection that is not open: not yet, or not any more."""
        match connection.status:
            case State.HANDSHAKE:
                self._read_head(connection)
            case State.PENDING:
                # Registered for the peer's end only.
                self.lose(connection, HandshakeFailure.DISCONNECTED)
            case State.CLOSING:
                for event in connection.receive(FRAMES):
                    if event is END or isinstance(event, Violation):
                        self.lose(connection)
                    elif isinstance(event, Close):
                        self._leave(connection)
                if connection.unfinished is not None and connection.unfinished.more:
                    self._again.append(connection)
            case _:
                if ending.discard(connection.fd, self.buffers):
                    self.lose(connection)

    def _control(self, connection: Connection, event: Event | End) -> None:
        """What is no message, of an open connection."""
        match event:
            case Ping(payload):
                self.send_control(connection, PONG, payload)
            case Pong(payload):
                self.heartbeat.pong(connection, payload)
            case Close(code, reason):
                connection.by_client = True
                connection.decide(ClosedReason.CLIENT)
                connection.closed = CloseReason(code, reason or None)
                ending.wake_all(self.loop, connection)
                self.send_control(connection, CLOSE, close_payload(code, reason))
                self._leave(connection)
            case Violation(code, reason):
                kind = ClosedReason.TOO_BIG if code == 1009 else ClosedReason.PROTOCOL
                self.fail(connection, code, reason, kind)
            case _:
                self.lose(connection)

    def _read_head(self, connection: Connection) -> None:
        size = ending.read(connection.fd, self.buffers)
        if size == 0:
            self.lose(connection, HandshakeFailure.DISCONNECTED)
            return
        if size < 0:
            return
        seen = max(0, len(connection.head) - 3)
        connection.head += self.view[:size]
        end = connection.head.find(handshake.REQUEST_END, seen)
        if end < 0:
            if len(connection.head) > self.limits.header_bytes:
                self.refuse(connection, handshake.BadRequestError("the head is too long", 431))
            elif not handshake.could_be_head(connection.head):
                self.refuse(connection, handshake.BadRequestError("not an HTTP request"))
            return
        head, rest = connection.head[: end + 4], connection.head[end + 4 :]
        connection.head = head
        if len(head) > self.limits.header_bytes:
            self.refuse(connection, handshake.BadRequestError("the head is too long", 431))
            return
        self._take_request(connection, rest)

    def _take_request(self, connection: Connection, rest: bytes) -> None:
        try:
            head = handshake.examine(connection.head, self.limits.headers)
        except handshake.BadRequestError as error:
            self.refuse(connection, error)
            return
        except handshake.PlainHttpError as plain:
            self.respond(
                connection,
                handshake.plain_response(plain.head, accepting=self.accepting),
                HandshakeFailure.PLAIN_HTTP,
            )
            return
        if not handshake.is_origin_allowed(head.get(b"origin"), self.limits.origins):
            self.respond(
                connection,
                handshake.response(403, b"this origin may not connect\n", kind=b"text/plain"),
                RefusedReason.ORIGIN,
            )
            return
        if rest:
            connection.unfinished = Unfinished(rest)
        connection.status = State.PENDING
        connection.tick = 0
        self.watch(connection)
        self.style.requested(Request(connection, head))

    def _flush(self, connection: Connection) -> None:
        try:
            moved = connection.flush()
        except OSError:
            self.lose(connection)
            return
        if moved:
            connection.stuck = time.monotonic()
        if connection.outbox is None:
            if connection.status is State.LEAVING:
                self.lose(connection)
                return
            if connection.status is State.FLUSHING:
                self._linger(connection)
                return
            self.watch(connection)
        if connection.out_bytes <= self.limits.outbound_bytes // 2:
            self.style.drained(connection)

    # What is said to a connection.

    def upgrade(self, connection: Connection, answer: bytes) -> None:
        """Make a WebSocket of a connection whose request was accepted."""
        now = time.monotonic()
        connection.status = _OPEN
        connection.opened = connection.heard = now
        self.row.upgraded()
        if self._keep_headers is not None:
            connection.head = handshake.trimmed(connection.head, self._keep_headers)
        unfinished = connection.unfinished
        if unfinished is not None:
            # Sent before the answer to the handshake, which is early but not forbidden.
            unfinished.more = True
            self._again.append(connection)
            self.nudge()
        self.watch(connection)
        self._transmit(connection, answer)
        self.heartbeat.begin(connection)
        if self.leave is not None:
            self.leave_later(connection, self.leave)

    def reject(self, connection: Connection, answer: bytes) -> None:
        """The application turned a request down."""
        self.respond(connection, answer, HandshakeFailure.REJECTED)

    def refuse(self, connection: Connection, error: handshake.BadRequestError) -> None:
        """Tell a client what is wrong with its request."""
        body = f"{error}\n".encode("ascii", "replace")
        answer = handshake.response(error.status, body, error.headers, kind=b"text/plain")
        self.respond(connection, answer, HandshakeFailure.BAD_REQUEST)

    def respond(self, connection: Connection, answer: bytes, verdict: Label) -> None:
        """Give the last answer there is, and end."""
        connection.decide(verdict)
        connection.status = State.FLUSHING
        self._transmit(connection, answer)
        self._linger(connection)

    def close(
        self,
        connection: Connection,
        code: int | None,
        reason: str | None,
        verdict: Label = ClosedReason.SERVER,
    ) -> None:
        """Begin the closing handshake of an open connection (RFC 6455 section 7.1.2)."""
        if connection.status is not _OPEN:
            return
        connection.decide(verdict)
        connection.closed = CloseReason(1005 if code is None else code, reason)
        connection.status = State.CLOSING
        connection.inbox = None
        connection.paused = False
        ending.wake_all(self.loop, connection)
        self.watch(connection)
        self.schedule(connection, time.monotonic() + self.limits.close_timeout)
        self._transmit(connection, encode(CLOSE, close_payload(code, reason)))
        if connection.unfinished is not None and connection.unfinished.more:
            self._again.append(connection)
            self.nudge()

    def fail(self, connection: Connection, code: int, reason: str, verdict: Label) -> None:
        """Close a connection whose bytes make no sense any more (section 7.1.7): what the client
        still sends is not looked at.
        """
        connection.decide(verdict)
        connection.closed = CloseReason(code, reason)
        connection.unfinished = None
        ending.wake_all(self.loop, connection)
        self.send_control(connection, CLOSE, close_payload(code, reason))
        self._linger(connection)

    def send_control(self, connection: Connection, opcode: int, payload: bytes) -> None:
        """Send a control frame (section 5.5)."""
        self._transmit(connection, encode(opcode, payload))

    def _transmit(self, connection: Connection, data: bytes) -> None:
        if connection.fd < 0 or connection.status is State.ENDED:
            return
        try:
            if connection.transmit(data):
                self.must_flush(connection)
        except OSError:
            self.lose(connection)

    def must_flush(self, connection: Connection) -> None:
        """The kernel did not take all: go on when it does, or give up when it never does."""
        connection.stuck = now = time.monotonic()
        self.watch(connection)
        self.schedule(connection, now + self.limits.send_timeout, sooner=True)

    # Connections go.

    def _leave(self, connection: Connection) -> None:
        """The closing handshake is complete: the server is the one to close (section 7.1.1)."""
        if connection.outbox is None:
            self.lose(connection)
        elif connection.status is not State.ENDED:
            self._wait_for_end(connection, State.LEAVING)

    def _linger(self, connection: Connection) -> None:
        """Nothing more is sent but what is queued; then the socket is shut, and read to its end: to
        close it with unread bytes in it would reset the connection, and the client might never see
        our last words (RFC 9112 section 9.6).
        """
        if connection.status is State.ENDED:
            return
        if connection.outbox is not None:
            self._wait_for_end(connection, State.FLUSHING)
        elif ending.shut(connection.fd):
            self.lose(connection)
        else:
            self._wait_for_end(connection, State.LINGERING)

    def _wait_for_end(self, connection: Connection, status: State) -> None:
        connection.status = status
        connection.paused = False
        self.watch(connection)
        self.schedule(connection, time.monotonic() + self.limits.close_timeout)

    def lose(self, connection: Connection, verdict: Label = ClosedReason.LOST) -> None:
        """The connection has ended: tell all who wait, and close it at the end of the turn."""
        if connection.status is State.ENDED:
            return
        connection.decide(verdict)
        connection.status = State.ENDED
        if connection.closed is None:
            connection.by_client = True
            connection.closed = CloseReason(1006, None)
        connection.tick = 0
        ending.wake_all(self.loop, connection, over=True)
        self._doomed.append(connection)
        if not self._in_turn:
            self.nudge()

    def nudge(self) -> None:
        """Have a turn, although no socket has anything to say."""
        if not self._in_turn:
            os.eventfd_write(self._nudge, 1)

    def leave_later(self, connection: Connection, order: ending.Leave) -> None:
        """Close a connection at a moment of the order's window."""
        connection.leave = order.draw(self.random, time.monotonic())
        self.schedule(connection, connection.leave[0], sooner=True)

    def _end_turn(self) -> None:
        doomed, self._doomed = self._doomed, []
        for connection in doomed:
            self._bury(connection)
        self.flush_counters()
        if self._doomed:
            self.nudge()

    def _bury(self, connection: Connection) -> None:
        fd, connection.fd = connection.fd, -1
        if connection.mask:
            connection.mask = 0
            self._epoll.unregister(fd)
        del self.connections[fd]
        connection.drop_queue(keep_first=False)
        connection.unfinished = None
        os.close(fd)
        if self._addresses and connection.peer:
            address = connection.peer[:-2]
            left = self._addresses.get(address, 0) - 1
            if left > 0:
                self._addresses[address] = left
            else:
                self._addresses.pop(address, None)
        ending.count(self.row, connection)
        self._closed_one()
        try:
            self.style.ended(connection)
        except Exception as error:  # noqa: BLE001 - the boundary, as in _serve
            self._log.error("connection_failed", exc_info=error)

    # Waiting.

    def watch(self, connection: Connection) -> None:
        """Register a connection for what it waits for, and nothing else."""
        match connection.status:
            case State.ENDED:
                return
            case State.PENDING:
                mask = _GONE
            case State.OPEN if connection.paused:
                mask = 0
            case _:
                mask = _IN
        if connection.outbox is not None:
            mask |= _OUT
        if mask == connection.mask:
            return
        if not connection.mask:
            self._epoll.register(connection.fd, mask)
        elif mask:
            self._epoll.modify(connection.fd, mask)
        else:
            self._epoll.unregister(connection.fd)
        connection.mask = mask

    def pause(self, connection: Connection) -> None:
        """Read no more of a connection until `resume`: backpressure."""
        connection.paused = True
        self.watch(connection)

    def resume(self, connection: Connection) -> None:
        """Read again. What is left of the last read is not told by the socket."""
        if not connection.paused or connection.status is not _OPEN:
            return
        connection.paused = False
        connection.heard = time.monotonic()
        self.watch(connection)
        if connection.unfinished is not None and connection.unfinished.more:
            self._again.append(connection)
            self.nudge()

    def has_room(self, connection: Connection) -> None:
        """A message was taken from the inbound queue of a paused connection."""
        if len(connection.inbox or ()) <= self.limits.inbound_messages // 2:
            self.resume(connection)

    def is_full(self, connection: Connection) -> bool:
        """Whether a connection's outbound queue takes no more; decides what becomes of it."""
        if connection.out_bytes < self.limits.outbound_bytes and not connection.senders:
            return False
        if self.limits.slow_client == "close":
            self.heartbeat.too_slow(connection)
        else:
            self._warn("outbound_queue_full", hint="a slow client; see limits.slow_client")
        return True

    def must_wait(self, connection: Connection) -> bool:
        """Whether a sender has to wait until the outbound queue has room."""
        return self.limits.slow_client == "wait" and (
            connection.out_bytes >= self.limits.outbound_bytes or bool(connection.senders)
        )

    def schedule(self, connection: Connection, when: float, *, sooner: bool = False) -> None:
        """Set a connection's deadline.

        :param sooner: leave an earlier one as it is.
        """
        tick = self._wheel.tick_of(when)
        if sooner and 0 < connection.tick <= tick:
            return
        connection.tick = tick
        if self._wheel.enter(connection.fd, tick):
            self._set_timer(self._wheel.due)

    def _ring(self) -> None:
        """The timer: what is due."""
        now = time.monotonic()
        lag = max(0.0, now - self._wheel.due)
        if lag > _SLOW:
            # What arrived while this process stood still is looked at before anybody is judged.
            self.turn()
        self._in_turn = True
        try:
            for tick, bucket in self._wheel.take(now):
                for fd in bucket:
                    connection = self.connections.get(fd)
                    if connection is not None and connection.tick == tick:
                        connection.tick = 0
                        self.heartbeat.due(connection, now, lag)
        finally:
            self._in_turn = False
            self._end_turn()
        self._set_timer(self._wheel.due)

    # What is told.

    def flush_counters(self) -> None:
        """Write the counters of traffic to the scoreboard."""
        if self.messages_in or self.messages_out:
            self.row.traffic(self.messages_in, self.messages_out, self.bytes_in, self.bytes_out)
            self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        if self.queued != self._reported:
            self._reported = self.queued
            self.row.send_queue(self.queued)

    def _slow(self, connection: Connection, seconds: float, *, plain: str) -> None:
        self._warn(
            "application_blocks",
            seconds=round(seconds, 3),
            hook=plain or None,
            connection=connection.id,
            hint="a plain function runs inside the worker's turn and must not block; use async def",
        )

    def _warn(self, event: str, **fields: object) -> None:
        """Say it, but not with every message of a storm."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            self._log.warning(event, **fields)
