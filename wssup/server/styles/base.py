"""What the styles share: the inbound queue, senders that wait, tasks, and whose fault what is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from trio_websocket import ConnectionClosed

from wssup import logs
from wssup.application import own_traceback, summary
from wssup.scoreboard import ClosedReason, HandshakeFailure
from wssup.server import handshake
from wssup.server.connection import Connection, State
from wssup.server.request import Request

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["BaseStyle", "Style", "fault_of"]

#: RFC 6455 section 7.4.1.
_INTERNAL_ERROR = 1011


class Style(Protocol):
    """An application, as the pump sees it."""

    plain: str
    """The hook that runs inside a turn; empty if none does."""

    forwards: bool
    """Whether a message may be given to the one task that waits for it without `deliver`."""

    def deliver(self, connection: Connection, message: Any) -> None:
        """A message came."""

    busy: int
    """Tasks of the application that run."""

    def begin(self, pump: Pump) -> None:
        """The pump that serves it."""

    @property
    def whole_budget(self) -> int:
        """How many frames may be decoded in a turn for a connection that has no queue."""

    def budget(self, connection: Connection) -> int:
        """The same for one that has a queue."""

    def requested(self, request: Request) -> None:
        """A client wants to connect."""

    def hand_over(self, connection: Connection, message: str | bytes) -> bool:
        """Give a message to the task that waits for one, if any does."""

    def drained(self, connection: Connection) -> None:
        """The outbound queue has room."""

    def ended(self, connection: Connection) -> None:
        """A connection is gone; called once for each that was adopted."""

    resumable: bool
    """Whether its connections can move to another worker."""
    moves_in_receive: bool
    """Whether a connection is quiet when a task of its own waits for a message."""

    def is_quiet(self, connection: Connection) -> bool:
        """Whether the application is in the middle of nothing about an open connection."""

    def suspend(self, connection: Connection) -> None:
        """Have the application let go of a connection that moves away; then call
        ``pump.handoff.suspended()``.
        """

    def resume(self, connection: Connection, messages: list[Any]) -> None:
        """Have the application go on with a connection, beginning with these messages; then call
        ``pump.handoff.resumed()`` or ``.failed()``.
        """


class BaseStyle:
    """What both styles share: tasks, the inbound queue, senders that wait, and faults."""

    plain = ""
    forwards = False
    pump: Pump

    def __init__(self) -> None:
        self.busy = 0
        self.idle: Callable[[], None] = lambda: None
        self._log = logs.get()

    def begin(self, pump: Pump) -> None:
        """See :class:`Style`."""
        self.pump = pump
        self._wake = pump.loop.wake

    @property
    def whole_budget(self) -> int:
        """What the inbound queue has room for when it is empty."""
        return self.pump.limits.inbound_messages

    def budget(self, connection: Connection) -> int:
        """As many as the inbound queue has room for."""
        return self.pump.limits.inbound_messages - len(connection.inbox or ())

    def hand_over(self, connection: Connection, message: str | bytes) -> bool:
        """Give a message to the task that waits for one, if any does."""
        waiter = connection.receiver
        if waiter is None:
            return False
        more = connection.more_receivers
        connection.receiver = more.pop(0) if more else None
        return self._wake(waiter, message) or self.hand_over(connection, message)

    def _queue(self, connection: Connection, item: Any) -> None:
        inbox = connection.inbox
        if inbox is None:
            inbox = connection.inbox = []
        inbox.append(item)
        if len(inbox) >= self.pump.limits.inbound_messages and not connection.paused:
            self.pump.pressure.pause(connection)

    def drained(self, connection: Connection) -> None:
        """Those who wait to send go first, in their order: the pump sends for them, so that none
        can be overtaken on its way back to its task.
        """
        pump = self.pump
        while connection.senders and (
            connection.closed is not None or connection.out_bytes < pump.limits.outbound_bytes
        ):
            waiter, message = connection.senders.pop(0)
            if connection.closed is not None:
                pump.loop.wake_error(waiter, ConnectionClosed(connection.closed))
            elif pump.loop.wake(waiter, None):
                # Out of the line meanwhile, or it would have to wait for itself.
                waiting, connection.senders = connection.senders, None
                connection.send_nowait(message)
                connection.senders = waiting or None
        self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        """Listen to a client again that takes what it is sent."""
        if connection.paused:
            self.pump.pressure.has_room(connection)

    async def _task(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await function(*arguments)
        finally:
            self.busy -= 1
            if not self.busy:
                self.idle()

    def _spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        self.busy += 1
        self.pump.loop.spawn(self._task, function, *arguments)

    def _failed(self, connection: Connection, error: BaseException, hook: str = "") -> None:
        """The application raised: say so, and end that connection."""
        self.pump.row.handler_error()
        if self.pump.handoff.failed(connection, error):
            return
        fields = {"hook": hook} if hook else {}
        self._log.error(
            "handler_failed",
            connection=connection.id,
            error=summary(error),
            **fields,
            exception=own_traceback(error),
        )
        if connection.status is State.PENDING:
            answer = handshake.text_response(500, "internal error")
            self.pump.opening.respond(connection, answer, HandshakeFailure.ERROR)
        else:
            self.pump.closing.close(
                connection, _INTERNAL_ERROR, "internal error", ClosedReason.ERROR
            )

    def _unanswered(self, connection: Connection) -> None:
        """An application that neither accepts nor rejects has rejected."""
        if connection.status is State.PENDING:
            answer = handshake.text_response(403, "not accepted")
            self.pump.opening.respond(connection, answer, HandshakeFailure.REJECTED)


def fault_of(
    error: BaseException, cancelled: type[BaseException]
) -> tuple[BaseException | None, BaseException | None]:
    """What of an exception out of an application is its fault, and what must go on (cancellation).

    ConnectionClosed is no fault: the handler has simply ended. Nurseries wrap both in groups.

    :param cancelled: the event loop's own exception.
    """
    if isinstance(error, BaseExceptionGroup):
        going_on, rest = error.split((cancelled, GeneratorExit))
        if rest is not None:
            _, rest = rest.split(ConnectionClosed)
        return rest, going_on
    if isinstance(error, (cancelled, GeneratorExit)):
        return None, error
    return (None, None) if isinstance(error, ConnectionClosed) else (error, None)
