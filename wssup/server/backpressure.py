"""Backpressure both ways: who is not read from, and who has to wait to send.

A connection is not read from while its application does not take what came (the inbound queue), or
its client does not take what it is sent (the outbound one). Its heartbeat is suspended meanwhile: a
pong may lie behind what is not read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wssup.server.connection import Connection, State

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["Backpressure"]


class Backpressure:
    """Decides when connections are read from, and when senders wait."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        limits = pump.limits
        self._inbound = limits.inbound_messages
        self._outbound = limits.outbound_bytes
        self._closes = limits.slow_client == "close"

    # Inbound.

    def pause(self, connection: Connection) -> None:
        """Read no more of a connection."""
        connection.paused = True
        self._pump.watch(connection)

    def hold_back(self, connection: Connection) -> bool:
        """Do not listen to a client that does not take what it is sent: the answers to what it says
        would have nowhere to go.

        :returns: whether it is not listened to; with ``slow_client = "close"`` it never comes to
            that.
        """
        if self._closes or not self._has_no_room(connection):
            return False
        if connection.status is not State.OPEN:
            return False
        if connection.inbox is None:
            connection.inbox = []  # what was read already waits, too
        if not connection.paused:
            self.pause(connection)
        return True

    def has_room(self, connection: Connection) -> None:
        """Something was taken from a queue of a paused connection: read it again if both have room.
        What is left of the last read is not told by the socket.
        """
        if (
            not connection.paused
            or connection.status is not State.OPEN
            or len(connection.inbox or ()) > self._inbound // 2
            or connection.out_bytes > self._outbound // 2
        ):
            return
        if not connection.inbox and not connection.working:
            connection.inbox = None
        connection.paused = False
        connection.heard = time.monotonic()
        self._pump.watch(connection)
        if connection.unfinished is not None and connection.unfinished.more:
            self._pump.again(connection)

    # Outbound.

    def _has_no_room(self, connection: Connection) -> bool:
        return connection.out_bytes >= self._outbound or bool(connection.senders)

    def must_wait(self, connection: Connection) -> bool:
        """Whether a sender has to wait until the outbound queue has room."""
        return not self._closes and self._has_no_room(connection)

    def is_full(self, connection: Connection) -> bool:
        """Whether a connection's outbound queue takes no more; decides what becomes of it."""
        if not self._has_no_room(connection):
            return False
        if self._closes:
            self._pump.heartbeat.too_slow(connection)
        else:
            self._pump.complaints.warn(
                "outbound_queue_full", hint="a slow client; see limits.slow_client"
            )
        return True

    def flushed(self, connection: Connection) -> None:
        """Something has left the outbound queue of an open connection."""
        if connection.out_bytes <= self._outbound // 2:
            self._pump.style.drained(connection)
