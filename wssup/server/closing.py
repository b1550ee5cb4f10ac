"""Connections go: the closing handshake, violations, losses; and the count of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from trio_websocket import CloseReason

from wssup import logs
from wssup.scoreboard import (
    ClosedReason,
    HandoffRefusal,
    HandshakeFailure,
    HttpEnd,
    Label,
    RefusedReason,
    RowWriter,
)
from wssup.server import sockets
from wssup.server.connection import Connection, State
from wssup.server.described import MOVED
from wssup.server.frames import CLOSE, Violation, close_payload, encode
from wssup.server.loops import Loop

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["Closing", "Leave"]

#: RFC 6455 section 7.4.1: no close frame came; a message is too big.
_ABNORMAL = 1006
_NO_STATUS = 1005
_TOO_BIG = 1009
#: What a connection ends as that breaks before it is a WebSocket.
_LOST: dict[State, Label] = {
    State.HANDSHAKE: HandshakeFailure.DISCONNECTED,
    State.PENDING: HandshakeFailure.DISCONNECTED,
    State.KEPT: HttpEnd.CLOSED,
}


class Leave(NamedTuple):
    """An order to close connections.

    :ivar until: the end of its window, in seconds of ``time.monotonic()``.
    :ivar unmoved: why the connections cannot move to another worker instead, if that was wanted.
    :ivar spares: WebSockets are left alone, for they move: now, or when the application has done
        its work for them or has let go of them, when they have opened, or in a session to come.
    """

    code: int
    reason: str
    verdict: Label
    until: float
    unmoved: HandoffRefusal | None = None
    spares: bool = False


class Closing:
    """The ends of a worker's connections.

    :param closed_one: called for each socket that was closed.
    :ivar leave: who opens from now on is closed within what is left of its window.
    """

    def __init__(self, pump: Pump, closed_one: Callable[[], None]) -> None:
        self._pump = pump
        self.closed_one = closed_one
        self._doomed: list[Connection] = []
        self._log = logs.get()
        self._tells = logs.is_debug()
        self.leave: Leave | None = None

    def close(
        self,
        connection: Connection,
        code: int | None,
        reason: str | None,
        verdict: Label = ClosedReason.SERVER,
    ) -> None:
        """Begin the closing handshake of an open connection (RFC 6455 section 7.1.2)."""
        if connection.status is not State.OPEN:
            return
        pump = self._pump
        connection.decide(verdict)
        connection.closed = CloseReason(_NO_STATUS if code is None else code, reason)
        connection.inbox = None
        self._wake(connection)
        self._wait_for_end(connection, State.CLOSING)
        pump.transmit(connection, encode(CLOSE, close_payload(code, reason)))
        if connection.unfinished is not None and connection.unfinished.more:
            pump.again(connection)

    def closed_by_client(self, connection: Connection, code: int, reason: str) -> None:
        """The client began the closing handshake (section 7.1.3): finish it."""
        connection.by_client = True
        connection.decide(ClosedReason.CLIENT)
        connection.closed = CloseReason(code, reason or None)
        self._wake(connection)
        self._pump.send_control(connection, CLOSE, close_payload(code, reason))
        self.complete(connection)

    def violated(self, connection: Connection, violation: Violation) -> None:
        """The client broke the protocol, or a limit."""
        verdict = ClosedReason.TOO_BIG if violation.code == _TOO_BIG else ClosedReason.PROTOCOL
        self.fail(connection, violation.code, violation.reason, verdict)

    def fail(self, connection: Connection, code: int, reason: str, verdict: Label) -> None:
        """Close a connection whose bytes make no sense any more (section 7.1.7): what the client
        still sends is not looked at.
        """
        connection.decide(verdict)
        connection.closed = CloseReason(code, reason)
        connection.unfinished = None
        self._wake(connection)
        self._pump.send_control(connection, CLOSE, close_payload(code, reason))
        self.linger(connection)

    def complete(self, connection: Connection) -> None:
        """The closing handshake is complete: the server is the one to close (section 7.1.1)."""
        if connection.outbox is None:
            self.lose(connection)
        elif connection.status is not State.ENDED:
            self._wait_for_end(connection, State.LEAVING)

    def linger(self, connection: Connection) -> None:
        """Nothing more is sent but what is queued; then the socket is shut, and read to its end: to
        close it with unread bytes in it would reset the connection, and the client might never see
        our last words (RFC 9112 section 9.6).
        """
        if connection.status is State.ENDED:
            return
        if connection.outbox is not None:
            self._wait_for_end(connection, State.FLUSHING)
        elif sockets.shut(connection.fd):
            self._wait_for_end(connection, State.LINGERING)
        else:
            self.lose(connection)

    def flushed(self, connection: Connection) -> None:
        """All that was queued is written; what a connection that is not open does then."""
        if connection.status is State.LEAVING:
            self.lose(connection)
        elif connection.status is State.FLUSHING:
            self.linger(connection)

    def _wait_for_end(self, connection: Connection, status: State) -> None:
        connection.status = status
        connection.paused = False
        self._pump.watch(connection)
        self._pump.schedule(connection, time.monotonic() + self._pump.limits.close_timeout)

    def lose(self, connection: Connection, verdict: Label | None = None) -> None:
        """The connection has ended: tell all who wait, and close it at the end of the turn.

        :param verdict: why, if nothing was decided yet; ``None``: it broke.
        """
        if connection.status is State.ENDED:
            return
        if verdict is None:
            verdict = _LOST.get(connection.status, ClosedReason.LOST)
        connection.decide(verdict)
        connection.status = State.ENDED
        connection.tick = 0
        if connection.closed is None:
            connection.by_client = True
            connection.closed = CloseReason(_ABNORMAL, None)
        self._wake(connection, over=True)
        self._doomed.append(connection)
        self._pump.nudge()

    def moved(self, connection: Connection) -> None:
        """The connection lives on elsewhere: tell all who wait for something of it here."""
        connection.status = State.ENDED
        connection.tick = 0
        connection.closed = MOVED
        connection.ticket = None
        self._wake(connection, over=True)

    def _wake(self, connection: Connection, *, over: bool = False) -> None:
        """Tell all who want something of a connection that is being closed, or has moved."""
        if connection.joined is not None:
            self._pump.topics.left(connection)
        _wake(self._pump.loop, connection, over=over)

    # Orders.

    def is_open(self, connection: Connection) -> None:
        """A connection opened, perhaps while all are being closed."""
        order = self.leave
        if order is not None and not order.spares:
            now = time.monotonic()
            left = max(0.0, order.until - now)
            self.close_at(connection, now + self._pump.random.random() * left, order)

    def close_at(self, connection: Connection, when: float, order: Leave) -> None:
        """Have a connection closed at a moment."""
        connection.leave = (when, order)
        self._pump.schedule(connection, when, sooner=True)

    def close_all(self, order: Leave, chance: random.Random) -> None:
        """Close every WebSocket, spread evenly with jitter over what is left of the window; who
        opens later, too. HTTP connections between two requests are closed at once.
        """
        self.leave = order
        now = time.monotonic()
        window = order.until - now
        for connection in list(self._pump.connections.values()):
            if (
                connection.status is State.KEPT
                and not connection.head
                and connection.unfinished is None
            ):
                self.lose(connection)
        if order.spares:
            return
        there = [c for c in self._pump.connections.values() if c.status is State.OPEN]
        chance.shuffle(there)
        for index, connection in enumerate(there):
            if window > 0:
                when = now + window * (index + chance.random()) / len(there)
                self.close_at(connection, when, order)
            else:
                self.carry_out(connection, order)

    def carry_out(self, connection: Connection, order: Leave) -> None:
        """Close a connection because of an order."""
        if connection.status is State.OPEN:
            self._pump.handoff.left_behind(connection, order.unmoved)
            self.close(connection, order.code, order.reason, order.verdict)

    def keep_all(self) -> None:
        """Take an order back, as far as it was not carried out."""
        self.leave = None
        for connection in self._pump.connections.values():
            connection.leave = None

    def abort_all(self, verdict: Label) -> None:
        """Cut off everybody, without a word."""
        for connection in list(self._pump.connections.values()):
            if connection.status in {State.HANDSHAKE, State.PENDING}:
                self.lose(connection, HandshakeFailure.DRAINING)
            elif connection.status is State.KEPT:
                self.lose(connection)
            else:
                if connection.status in {State.OPEN, State.CLOSING, State.HELD}:
                    connection.verdict = verdict
                self.lose(connection)

    # The end of a turn.

    def bury(self) -> bool:
        """Close the descriptors of those that have ended, and count them; whether more have ended
        meanwhile.
        """
        doomed, self._doomed = self._doomed, []
        if doomed:
            # Who sees that they are gone sees what they have sent, too.
            self._pump.flush_counters()
        for connection in doomed:
            self._pump.handoff.forget(connection)
            # And that they are counted: close(2) wakes the client.
            _count(self._pump.row, connection)
            fd, connection.fd = connection.fd, -1
            self._pump.remove(connection, fd)
            connection.drop_queue(keep_first=False)
            connection.unfinished = connection.ticket = None
            if self._tells and connection.verdict is not None:
                self._log.debug("closed", reason=connection.verdict.label)
            self.closed_one()
            try:
                self._pump.style.ended(connection)
            except Exception as error:  # noqa: BLE001 - the boundary: one connection, whatever it did
                self._log.error("connection_failed", exc_info=error)
        return bool(self._doomed)


def _wake(loop: Loop, connection: Connection, *, over: bool = False) -> None:
    """Tell all who wait for something of a connection that it is being closed.

    :param over: it has ended, which is what those in ``aclose()`` wait for.
    """
    if connection.receiver is not None:
        waiting = [connection.receiver, *(connection.more_receivers or ())]
        connection.receiver = connection.more_receivers = None
        for waiter in waiting:
            loop.wake_error(waiter, connection.gone())
    if connection.senders:
        senders, connection.senders = connection.senders, None
        for waiter, _ in senders:
            loop.wake_error(waiter, connection.gone())
    if connection.pings:
        pings, connection.pings = connection.pings, None
        for waiter in pings.values():
            loop.wake_error(waiter, connection.gone())
    if over and connection.closers:
        closers, connection.closers = connection.closers, None
        for waiter in closers:
            loop.wake(waiter, None)


def _count(row: RowWriter, connection: Connection) -> None:
    """Write a connection's end to the scoreboard: exactly once, under what decided it."""
    verdict = connection.verdict
    assert verdict is not None
    match verdict:
        case HandshakeFailure():
            row.handshake_failed(verdict)
        case RefusedReason():
            row.refused(verdict)
        case HttpEnd():
            row.http_closed()
        case ClosedReason():
            assert connection.closed is not None
            lifetime = time.monotonic() - connection.opened
            row.closed(verdict, lifetime, connection.closed.code, by_client=connection.by_client)
