"""Task style: ``async def app(request)``, a task per connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from wssup.server.connection import Connection
from wssup.server.request import Request
from wssup.server.styles.base import BaseStyle, fault_of

__all__ = ["TaskStyle"]


class TaskStyle(BaseStyle):
    """A task per connection, from its request on."""

    def __init__(self, handler: Callable[[Request], Awaitable[object]]) -> None:
        super().__init__()
        self._handler = handler

    def requested(self, request: Request) -> None:
        """Call the handler."""
        self.busy += 1
        self.pump.row.handler_run()
        self.pump.loop.spawn(self._run, request, request.connection)

    async def _run(self, request: Request, connection: Connection) -> None:
        try:
            await self._handler(request)
        except BaseException as error:  # noqa: BLE001 - sorted by fault_of(), cancellation goes on
            fault, rest = fault_of(error, self.pump.loop.cancelled)
            if fault is not None:
                self._failed(connection, fault)
            if rest is not None:
                self.pump.closing.lose(connection)
                raise rest from None
        finally:
            self._unanswered(request, connection)
            self.pump.closing.close(connection, 1000, None)
            self.busy -= 1
            if not self.busy:
                self.idle()

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
