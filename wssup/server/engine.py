"""The engine: the connections of one worker, from accept to close, as the worker sees them."""

from __future__ import annotations

import random
import time
from collections.abc import Collection

import trio

from wssup.application import Application
from wssup.config.settings import Heartbeat, Limits
from wssup.scoreboard import ClosedReason, HandshakeFailure, RowWriter
from wssup.server.accepting import Accepting
from wssup.server.connection import State
from wssup.server.ending import Leave
from wssup.server.loops.trio import TrioLoop
from wssup.server.pump import Pump
from wssup.server.styles import EventStyle, TaskStyle

__all__ = ["Engine"]


class Engine:
    """Serves the connections of one worker, on trio.

    :param row: the worker's counters.
    :param accepting: where connections come from; told when one is closed.
    :param serial: the worker's number in its instance.
    :param keep_headers: names of request headers that connections keep; ``None`` for all.
    """

    def __init__(
        self,
        application: Application,
        *,
        limits: Limits,
        heartbeat: Heartbeat,
        row: RowWriter,
        accepting: Accepting,
        serial: int = 0,
        keep_headers: Collection[str] | None = None,
    ) -> None:
        self._accepting = accepting
        self._loop = TrioLoop()
        self._style: EventStyle | TaskStyle = (
            EventStyle(application.handler)
            if application.is_event_style
            else TaskStyle(application.handler)
        )
        self._pump = Pump(
            self._style,
            self._loop,
            limits=limits,
            beat=heartbeat,
            keep_headers=keep_headers,
            row=row,
            serial=serial,
            closed_one=self._closed_one,
        )
        self._style.idle = self._look
        self._empty = trio.Event()
        self._random = random.Random()  # noqa: S311 - spreads closes in time; made after the fork
        accepting.adopt = self._pump.adopt

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        try:
            await self._loop.run(task_status=task_status)
        finally:
            self._pump.close_descriptors()

    @property
    def count(self) -> int:
        """Sockets that are open."""
        return self._accepting.open

    def accept(self, *, on: bool) -> None:
        """Say whether the worker takes new connections, for health checks."""
        self._pump.accepting = on

    async def wait_empty(self) -> None:
        """Wait until no connection is left, and no task of the application that served one."""
        while self.count or self._style.busy:
            if self._empty.is_set():
                self._empty = trio.Event()
            await self._empty.wait()

    def close_all(self, code: int, why: str, reason: ClosedReason, window: float) -> None:
        """Have every connection closed with ``code``, spread evenly with jitter over ``window``
        seconds.

        What finishes its handshake later is closed within what is left of the window. A later order
        replaces an earlier one.
        """
        now = time.monotonic()
        pump = self._pump
        pump.leave = Leave(code, why, reason, now + window)
        there = [c for c in list(pump.connections.values()) if c.status is State.OPEN]
        self._random.shuffle(there)
        for index, connection in enumerate(there):
            when = now + window * (index + self._random.random()) / len(there)
            connection.leave = (when, code, why, reason)
            if window:
                pump.schedule(connection, when, sooner=True)
            else:
                pump.close(connection, code, why, reason)

    def keep_all(self) -> None:
        """Take an order to close everybody back, as far as it was not carried out."""
        self._pump.leave = None
        for connection in self._pump.connections.values():
            connection.leave = None

    def abort_all(self, reason: ClosedReason) -> None:
        """Cut off what is left, and what still comes out of the accept queue; cancel the
        application's tasks.
        """
        pump = self._pump
        pump.hurry = reason
        for connection in list(pump.connections.values()):
            if connection.status in {State.HANDSHAKE, State.PENDING}:
                pump.lose(connection, HandshakeFailure.DRAINING)
            else:
                if connection.status in {State.OPEN, State.CLOSING}:
                    connection.verdict = reason
                pump.lose(connection, reason)
        self._loop.cancel()

    def flush(self) -> None:
        """Write traffic counters to the scoreboard."""
        self._pump.flush_counters()

    def _closed_one(self) -> None:
        self._accepting.closed_one()
        self._look()

    def _look(self) -> None:
        if not self.count and not self._style.busy:
            self._empty.set()
