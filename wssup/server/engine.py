"""The engine: the connections of one worker, from accept to close, as the worker sees them."""

from __future__ import annotations

import math
import random
import socket
import time
from collections.abc import Callable, Collection
from typing import Any

from wssup import logs
from wssup.application import Application
from wssup.config.settings import Heartbeat, Limits
from wssup.config.topics import Topics
from wssup.messages import CloseConnections, HandOver, Inspect, Message, TakeOver
from wssup.scoreboard import ClosedReason, HandoffRefusal, RowWriter
from wssup.server import inspecting
from wssup.server.asgi.http import HttpServer
from wssup.server.asgi.websocket import AsgiStyle
from wssup.server.closing import Leave
from wssup.server.forwarded import TrustedProxies
from wssup.server.handoff.receiving import Receiver
from wssup.server.handoff.sending import Sender
from wssup.server.handoff.sessions import Sessions
from wssup.server.listening import Listening
from wssup.server.loops import Loop
from wssup.server.loops.bell import Bell
from wssup.server.loops.trio import TrioLoop
from wssup.server.opening import Opening
from wssup.server.pump import Pump
from wssup.server.styles import EventStyle, Style, TaskStyle
from wssup.server.topics.hub import Hub

__all__ = ["Engine", "style_for"]


class Engine:
    """Serves the connections of one worker.

    :param row: the worker's counters.
    :param accepting: where connections come from; told when one is closed.
    :param serial: the worker's number in its instance.
    :param keep_headers: names of request headers that connections keep; ``None`` for all.
    :param topics: what its connections can subscribe to; ``None``: topics of its own.
    :param trusted: proxies that are believed where a client comes from.
    :param loop: what it runs on; ``None``: on trio, see :meth:`run`.
    """

    def __init__(
        self,
        application: Application,
        *,
        limits: Limits,
        heartbeat: Heartbeat,
        row: RowWriter,
        accepting: Listening,
        serial: int = 0,
        keep_headers: Collection[str] | None = None,
        topics: Hub | None = None,
        trusted: TrustedProxies | None = None,
        loop: Loop | None = None,
    ) -> None:
        self._accepting = accepting
        self._loop = loop or TrioLoop()
        self._style = style_for(application)
        self._pump = Pump(
            self._style,
            self._loop,
            limits=limits,
            beat=heartbeat,
            keep_headers=keep_headers,
            row=row,
            serial=serial,
            closed_one=self._closed_one,
            took_one=accepting.took_one,
            room=accepting.room,
            topics=topics or Hub(Topics(), serial=serial, message_bytes=limits.message_bytes),
        )
        self._pump.opening.trusted = trusted or TrustedProxies()
        self._style.idle = self._look
        self._empty = Bell(self._loop)
        self._moving = Bell(self._loop)
        self._pump.handoff.sessions.changed = self._moving.ring
        self._random = random.Random()  # noqa: S311 - spreads closes in time; made after the fork
        self._http: HttpServer | None = None
        if isinstance(self._style, AsgiStyle) and isinstance(self._loop, TrioLoop):
            self._http = HttpServer(self._style, self._pump)
            self._pump.opening.http = self._http.take
            self._hang_up_at = self._loop.timer(self._http.hang_up)
        accepting.adopt = self._pump.opening.adopt
        accepting.turn_away = self._pump.opening.turn_away
        self._pump.opening.turned_away = accepting.turned_away

    async def run(self, *, task_status: Any = None) -> None:
        """Serve until cancelled, on trio.

        :param task_status: a ``trio.TaskStatus``.
        """
        assert isinstance(self._loop, TrioLoop)
        try:
            if task_status is None:
                await self._loop.run()
            else:
                await self._loop.run(task_status=task_status)
        finally:
            self.close()

    def close(self) -> None:
        """End what is left of handoffs, and give the pump's descriptors back."""
        self._sessions.abandon(ClosedReason.ERROR)
        self._pump.close_descriptors()

    @property
    def style(self) -> Style:
        """How the application is called."""
        return self._style

    @property
    def opening(self) -> Opening:
        """The handshakes, and what comes that is no WebSocket."""
        return self._pump.opening

    @property
    def topics(self) -> Hub:
        """What its connections can subscribe to."""
        return self._pump.topics

    @property
    def count(self) -> int:
        """Sockets that are open."""
        return self._accepting.open

    def accept(self, *, on: bool) -> None:
        """Say whether the worker takes new connections, for health checks."""
        self._pump.opening.accepting = on

    async def wait_empty(self) -> None:
        """Wait until no connection is left, and no task of the application that served one."""
        while self.count or self._style.busy:
            await self._empty.wait()

    # Handoff.

    @property
    def _sessions(self) -> Sessions:
        return self._pump.handoff.sessions

    @property
    def is_resumable(self) -> bool:
        """Whether the application's connections can move."""
        return self._style.resumable

    def hand_over(
        self, order: HandOver, end: socket.socket, post: Callable[[Message], None]
    ) -> None:
        """Move connections to the worker at the other end of a link, which is owned from now on.

        :param post: tells the master.
        """
        self._sessions.begin(Sender(self._pump.handoff, order, end, post))

    def take_over(
        self, order: TakeOver, end: socket.socket, post: Callable[[Message], None]
    ) -> None:
        """Take connections from the worker at the other end of a link; as `hand_over`."""
        Receiver(self._pump.handoff, order, end, post)

    def recall(self, session: int) -> None:
        """End a session in which connections are handed over."""
        self._sessions.recall(session)

    def take_no_more(self) -> None:
        """End all sessions in which connections are taken over."""
        self._sessions.take_no_more()

    def hurry_handoffs(self) -> None:
        """Wait for other workers no more before connections are handed over to one."""
        self._pump.topics.bus.hurry()

    def give_up_silent(self, seconds: float) -> None:
        """Hand over no more to workers that have been silent for so long about what was sent."""
        self._sessions.give_up_silent(time.monotonic() - seconds)

    def end_handoffs(self) -> None:
        """End all sessions in which connections are handed over."""
        self._sessions.end_all("")

    def moves(self, *, follows: bool) -> bool:
        """Whether all connections that can are being handed over, or will be.

        :param follows: another session follows one whose receiver is lost.
        """
        sessions = self._sessions
        return sessions.rest is not None or (follows and not sessions.is_hopeless)

    async def wait_moved(self, *, follows: bool) -> None:
        """Wait until no connection is left, as `wait_empty`, or none moves any more, as `moves`."""
        while (self.count or self._style.busy) and self.moves(follows=follows):
            await self._moving.wait()

    async def wait_swept(self) -> None:
        """Wait until all that can be moved at once is."""
        while not self._sessions.is_swept:
            await self._moving.wait()

    def ask(self, question: Inspect | CloseConnections, post: Callable[[Message], None]) -> None:
        """Answer a question about single connections, when others have had their turns.

        :param post: tells the master.
        """
        self._loop.spawn(self.answer, question, post)

    async def answer(
        self, question: Inspect | CloseConnections, post: Callable[[Message], None]
    ) -> None:
        """See `ask`."""
        try:
            post(await inspecting.answer(self._pump, question))
        except Exception as error:  # noqa: BLE001 - the boundary: who asks gets no answer, and all others live on
            logs.get().error("question_failed", exc_info=error)

    # The end.

    def close_all(
        self,
        code: int,
        why: str,
        reason: ClosedReason,
        window: float,
        *,
        unmoved: HandoffRefusal | None = None,
        spares: bool = False,
    ) -> None:
        """Have every WebSocket closed with ``code``, spread evenly with jitter over ``window``
        seconds.

        What finishes its handshake later is closed within what is left of the window. A later order
        replaces an earlier one. HTTP requests go on; at the window's end applications that wait for
        their clients to leave are told that they did.

        :param unmoved: why connections are closed that should have moved.
        :param spares: leave WebSockets alone, for they move.
        """
        order = Leave(code, why, reason, time.monotonic() + window, unmoved, spares)
        self._pump.closing.close_all(order, self._random)
        if self._http is not None:
            self._hang_up_at(order.until)

    def keep_all(self) -> None:
        """Take an order to close everybody back, as far as it was not carried out."""
        self._pump.closing.keep_all()
        if self._http is not None:
            self._hang_up_at(math.inf)

    def abort_all(self, reason: ClosedReason) -> None:
        """Cut off what is left, and what still comes out of the accept queue; cancel the
        application's tasks.
        """
        self._sessions.abandon(reason)
        self._pump.opening.hurry = True
        self._pump.closing.abort_all(reason)
        self._loop.cancel()

    def flush(self) -> None:
        """Write traffic counters to the scoreboard; to be called from time to time."""
        now = time.monotonic()
        self._pump.topics.beat(now)
        self._pump.flush_counters()
        self._pump.handoff.look(now)

    def _closed_one(self) -> None:
        self._accepting.closed_one()
        self._look()

    def _look(self) -> None:
        if not self.count and not self._style.busy:
            self._empty.ring()
            self._moving.ring()


def style_for(application: Application) -> EventStyle | TaskStyle:
    """How an application is called."""
    if application.is_asgi:
        return AsgiStyle(
            application.handler,
            resumable=application.is_resumable,
            root_path=application.root_path,
        )
    if application.is_event_style:
        return EventStyle(application.handler)
    return TaskStyle(application.handler, resumable=application.is_resumable)
