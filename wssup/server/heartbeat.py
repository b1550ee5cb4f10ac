"""Deadlines of connections: the handshake's, the heartbeat, the closing handshake's, and slow
clients. Called by the wheel when a connection's deadline has come.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import msgspec

from wssup.config.settings import Heartbeat
from wssup.scoreboard import ClosedReason, HandshakeFailure
from wssup.server import handshake, sockets
from wssup.server.connection import Connection, State
from wssup.server.frames import PING

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["APP_PONG", "Heartbeats", "is_app_ping"]

APP_PONG = '{"type":"pong"}'
#: Whatever spaces its JSON has, a ping is not longer.
_LONGEST_APP_PING = 64

#: RFC 6455's registry: "internal error" is what others close silent peers with, "try again later"
#: what a slow client is told.
_SILENT = 1011
_SLOW = 1013
#: Multiples of the golden ratio fill an interval evenly, whatever their number.
_GOLDEN = 0.6180339887498949
#: Seconds after a connection's turn in which the wheel may come to it.
_LATE = 0.1


def is_app_ping(message: str) -> bool:
    """Whether a text is the JSON ``{"type": "ping"}`` and nothing more."""
    if len(message) > _LONGEST_APP_PING or '"ping"' not in message:
        return False
    try:
        return bool(msgspec.json.decode(message) == {"type": "ping"})
    except msgspec.DecodeError:
        return False


class Heartbeats:
    """Decides what to do with a connection whose deadline has come."""

    def __init__(self, pump: Pump, settings: Heartbeat) -> None:
        self._pump = pump
        self._interval = settings.ping_interval
        self._timeout = settings.ping_timeout

    def begin(self, connection: Connection, now: float) -> None:
        """A connection is open here from now on."""
        if self._interval:
            self._pump.schedule(connection, self._next_turn(connection, now), sooner=True)
            if connection.ping_sent:
                # Sent by the worker that it comes from; the pong may be on its way.
                self._pump.schedule(connection, connection.ping_sent + self._timeout, sooner=True)

    def _next_turn(self, connection: Connection, now: float) -> float:
        """When it is a connection's turn to be pinged. Each has a place of its own in the interval,
        told by its number, so that connections that came together are not pinged together, and
        nothing has to be remembered for it.
        """
        return now + self._interval - self._since_turn(connection, now)

    def _since_turn(self, connection: Connection, now: float) -> float:
        return (now - connection.id * _GOLDEN % 1.0 * self._interval) % self._interval

    def due(self, connection: Connection, now: float, lag: float) -> None:
        """A deadline has come.

        :param lag: by how many seconds this worker is late itself, which no client is blamed for.
        """
        pump = self._pump
        match connection.status:
            case State.HANDSHAKE:
                connection.decide(HandshakeFailure.TIMEOUT)
                if connection.head:
                    pump.transmit(connection, handshake.text_response(408, "too slow"))
                pump.closing.lose(connection)
            case State.OPEN:
                self._open(connection, now, lag)
            case State.KEPT:
                if connection.head:
                    pump.transmit(connection, handshake.text_response(408, "too slow"))
                pump.closing.lose(connection)
            case State.HELD:
                pump.handoff.overdue(connection, now, lag)
            case _:
                pump.closing.lose(connection)

    def _open(self, connection: Connection, now: float, lag: float) -> None:
        pump = self._pump
        leave = connection.leave
        if leave is not None:
            if leave[0] <= now:
                pump.closing.carry_out(connection, leave[1])
                return
            pump.schedule(connection, leave[0], sooner=True)
        if connection.outbox is not None and self._is_given_up(connection, now, lag):
            self.too_slow(connection)
            return
        if not self._interval:
            return
        if connection.paused:
            # A pong may lie behind what is not read: TCP decides meanwhile (SO_KEEPALIVE,
            # TCP_USER_TIMEOUT).
            connection.ping_sent = 0.0
            pump.schedule(connection, now + self._interval, sooner=True)
            return
        pump.schedule(connection, self._next_turn(connection, now), sooner=True)
        if connection.ping_sent and connection.heard < connection.ping_sent:
            given_up = connection.ping_sent + self._timeout + lag
            if given_up <= now:
                pump.row.ping_timeout()
                why = "keepalive ping timeout"
                pump.closing.fail(connection, _SILENT, why, ClosedReason.TIMEOUT)
                # Nobody is there to read it out.
                pump.closing.lose(connection)
            else:
                pump.schedule(connection, given_up, sooner=True)
        elif (
            self._since_turn(connection, now) <= _LATE + lag
            and now - connection.heard >= self._interval / 2
        ):
            connection.ping_sent = now
            pump.row.ping_sent()
            pump.send_control(connection, PING, struct.pack("!d", now))
            pump.schedule(connection, now + self._timeout, sooner=True)

    def _is_given_up(self, connection: Connection, now: float, lag: float) -> bool:
        """Whether a client has taken nothing of what waits for it for too long."""
        pump = self._pump
        given_up = connection.stuck + pump.limits.send_timeout + lag
        if given_up <= now:
            if sockets.untaken(connection.fd) >= connection.untaken:
                return True
            # It has taken some. The kernel asks for more only when a good part of its buffer is
            # free.
            pump.moved(connection)
            given_up = now + pump.limits.send_timeout
        pump.schedule(connection, given_up, sooner=True)
        return False

    def pong(self, connection: Connection, payload: bytes) -> None:
        """A pong came (RFC 6455 section 5.5.3): the heartbeat's, or the application's. It answers
        the application's earlier pings, too.
        """
        pump = self._pump
        if connection.ping_sent and payload == struct.pack("!d", connection.ping_sent):
            pump.row.round_trip(time.monotonic() - connection.ping_sent)
            connection.ping_sent = 0.0
            return
        pings = connection.pings
        if pings and payload in pings:
            for sent in list(pings):
                pump.loop.wake(pings.pop(sent), None)
                if sent == payload:
                    break

    def too_slow(self, connection: Connection) -> None:
        """A client that does not take what it is sent: what waits for it is thrown away, but for
        the frame that it may have a part of, and it is told to come back later.
        """
        pump = self._pump
        if connection.status is State.HELD:
            pump.handoff.too_slow(connection)
        if connection.status is not State.OPEN:
            return
        connection.drop_queue(keep_first=True)
        pump.closing.close(connection, _SLOW, "too slow", ClosedReason.SLOW_CLIENT)
