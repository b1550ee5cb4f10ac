"""Task style: ``async def app(request)``, a task per connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

from wssup.server.connection import Connection
from wssup.server.request import Request
from wssup.server.styles.base import BaseStyle, fault_of

__all__ = ["TaskStyle"]


class TaskStyle(BaseStyle):
    """A task per connection, from its request on."""

    moves_in_receive = forwards = True

    def __init__(
        self, handler: Callable[[Request], Awaitable[object]], *, resumable: bool = False
    ) -> None:
        super().__init__()
        self._handler = handler
        self.resumable = resumable

    def requested(self, request: Request) -> None:
        """Call the handler."""
        self.busy += 1
        self.pump.row.handler_run()
        self.pump.loop.spawn(self._run, request, request.connection)

    async def _run(self, request: Request, connection: Connection) -> None:
        # No call more than it needs: each is another frame to go through with each message.
        try:
            with self.pump.loop.scope() if self.resumable else nullcontext() as connection.scope:
                try:
                    await self._handler(request)
                except BaseException as error:  # noqa: BLE001 - sorted, cancellation goes on
                    self._raised(connection, error)
        finally:
            connection.scope = None
            self._over(connection)

    def _raised(self, connection: Connection, error: BaseException) -> None:
        """The handler has raised; raises what must go on."""
        fault, rest = fault_of(error, self.pump.loop.cancelled)
        if fault is not None:
            self._failed(connection, fault)
        if rest is not None:
            if not self.pump.handoff.has(connection):
                self.pump.closing.lose(connection)
            raise rest from None

    def _over(self, connection: Connection) -> None:
        """The handler has ended."""
        self._unanswered(connection)
        if self.pump.handoff.has(connection):
            self.pump.handoff.suspended(connection)
        else:
            self.pump.handoff.resumed(connection)
            self.pump.closing.close(connection, 1000, None)
        self.busy -= 1
        if not self.busy:
            self.idle()

    # What moves.

    def is_quiet(self, connection: Connection) -> bool:
        """Its handler, or a task of it, waits for a message."""
        return connection.receiver is not None

    def suspend(self, connection: Connection) -> None:
        """Cancel its handler, which waits for a message."""
        if connection.scope is not None:
            connection.scope.cancel()

    def resume(self, connection: Connection, messages: list[Any]) -> None:
        """Call the handler again."""
        for message in messages:
            self._queue(connection, message)
        self.requested(Request(connection, None))

    def deliver(self, connection: Connection, message: str | bytes) -> None:
        """Give a message to the task that waits for one, or keep it."""
        waiter = connection.receiver
        if waiter is not None and connection.more_receivers is None:
            # The usual case, without a call more than it needs.
            connection.receiver = None
            if self._wake(waiter, message):
                return
        if not self.hand_over(connection, message):
            self._queue(connection, message)

    def ended(self, connection: Connection) -> None:
        """The handler learns it where it waits."""
