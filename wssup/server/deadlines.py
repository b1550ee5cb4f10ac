"""The deadlines of connections: one timer for all of a worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wssup.server.complaints import SLOW
from wssup.server.connection import Connection
from wssup.server.wheel import Wheel

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["Deadlines"]

#: Turns that are had at least after this process stood still.
_TURNS = 2
#: Sockets that a turn looks at, about.
_SOCKETS = 256


class Deadlines:
    """When each connection is looked at next."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._wheel = Wheel()
        self._set_timer = pump.loop.timer(self._ring)

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
        pump = self._pump
        now = time.monotonic()
        lag = max(0.0, now - self._wheel.due)
        if lag > SLOW:
            # What arrived while this process stood still is looked at before anybody is judged.
            for _ in range(_TURNS + len(pump.connections) // _SOCKETS):
                if not pump.turn():
                    break
        pump.aside(lambda: self._look(now, lag))
        self._set_timer(self._wheel.due)

    def _look(self, now: float, lag: float) -> None:
        pump = self._pump
        for tick, bucket in self._wheel.take(now):
            for fd in bucket:
                connection = pump.connections.get(fd)
                if connection is not None and connection.tick == tick:
                    connection.tick = 0
                    pump.heartbeat.due(connection, now, lag)
