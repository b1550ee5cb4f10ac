"""Event style: hooks of an object.

``on_request(request)``, ``on_connect(ws)``, ``on_receive(ws, data)``, ``on_disconnect(ws, code)``,
each optional, plain or async. A plain hook runs inside the pump's turn. An async one runs in a task
that lives only while its connection has work; meanwhile everything else of that connection waits in
line, so that the hooks of one connection never run beside each other, and always in order.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

from trio_websocket import ConnectionClosed

from wssup.scoreboard import ClosedReason
from wssup.server.connection import Connection, State
from wssup.server.request import Request
from wssup.server.styles.base import BaseStyle, fault_of

__all__ = ["EventStyle"]

#: Messages that a plain hook gets in one turn.
_FRAMES = 64
#: What stands in a connection's queue besides messages.
_CONNECT: Final = object()


class EventStyle(BaseStyle):
    """Hooks of an object."""

    def __init__(self, application: object) -> None:
        super().__init__()
        self._on_request = _hook(application, "on_request")
        self._on_connect = _hook(application, "on_connect")
        self._on_receive = _hook(application, "on_receive")
        self._on_disconnect = _hook(application, "on_disconnect")
        self._receive_is_async = inspect.iscoroutinefunction(self._on_receive)
        if self._on_receive is not None and not self._receive_is_async:
            self.plain = "on_receive"

    @property
    def whole_budget(self) -> int:
        """With a plain hook nothing is kept, so it is a turn's work."""
        return super().whole_budget if self._receive_is_async else _FRAMES

    def requested(self, request: Request) -> None:
        """Ask ``on_request``; accept if it has nothing to say."""
        connection = request.connection
        self.pump.row.handler_run()
        hook = self._on_request
        if hook is None:
            self._accept(request)
        elif inspect.iscoroutinefunction(hook):
            self._spawn(self._ask, request, connection)
        elif self._call(connection, "on_request", hook, request):
            self._accept(request)
        if connection.status is State.OPEN:
            self._connected(connection)

    async def _ask(self, request: Request, connection: Connection) -> None:
        assert self._on_request is not None
        if await self._call_async(connection, "on_request", self._on_request, request):
            self._accept(request)
        if connection.status is State.OPEN:
            self._connected(connection)

    def _accept(self, request: Request) -> None:
        if not request.is_answered:
            try:
                request.accept_nowait()
            except ConnectionClosed:
                return

    def _connected(self, connection: Connection) -> None:
        hook = self._on_connect
        if hook is None:
            return
        if inspect.iscoroutinefunction(hook):
            self._queue(connection, _CONNECT)
            self._work(connection)
        else:
            self._call(connection, "on_connect", hook, connection)

    def deliver(self, connection: Connection, message: str | bytes) -> None:
        """Call ``on_receive``, or keep the message for when its turn comes: as long as a task of
        this connection is at work there is a queue.
        """
        if connection.inbox is not None or self._receive_is_async:
            self._queue(connection, message)
            if not connection.working and self._receive_is_async:
                self._work(connection)
            return
        hook = self._on_receive
        if hook is None:
            return
        try:
            hook(connection, message)
        except BaseException as error:  # noqa: BLE001 - the application's, sorted by fault_of()
            self._blame(connection, "on_receive", error)
        if connection.outbox is not None and self.pump.hold_back(connection):
            # What comes meanwhile is kept in a queue, also of what was read already.
            connection.inbox = []

    def drained(self, connection: Connection) -> None:
        """Go on with what was held back."""
        if self._receive_is_async or connection.working or connection.inbox is None:
            super().drained(connection)
            return
        held, connection.inbox = connection.inbox, None
        while held and connection.status is State.OPEN and connection.inbox is None:
            self.deliver(connection, held.pop(0))
        if connection.inbox is not None or held:
            connection.inbox = held  # it is held back again
        else:
            super().drained(connection)

    def ended(self, connection: Connection) -> None:
        """Call ``on_disconnect``, after all that came before."""
        if not isinstance(connection.verdict, ClosedReason):
            return
        if connection.working:
            return  # its task sees it when it has done what is left
        if self._on_disconnect is None:
            return
        if inspect.iscoroutinefunction(self._on_disconnect):
            self._spawn(self._say_goodbye, connection)
        else:
            self._disconnected(connection)

    def _disconnected(self, connection: Connection) -> None:
        assert connection.closed is not None
        if self._on_disconnect is not None:
            self._call(
                connection,
                "on_disconnect",
                self._on_disconnect,
                connection,
                connection.closed.code,
            )

    def _work(self, connection: Connection) -> None:
        connection.working = True
        self._spawn(self._work_off, connection)

    async def _work_off(self, connection: Connection) -> None:
        """Do a connection's work in order, until there is none."""
        try:
            while connection.inbox:
                item = connection.inbox.pop(0)
                if connection.paused:
                    self.pump.has_room(connection)
                if item is _CONNECT:
                    await self._call_async(connection, "on_connect", self._on_connect, connection)
                elif self._receive_is_async:
                    await self._call_async(
                        connection, "on_receive", self._on_receive, connection, item
                    )
                elif self._on_receive is not None:
                    self._call(connection, "on_receive", self._on_receive, connection, item)
            connection.inbox = None
        finally:
            # No await between the last look and here: what comes from now on finds nobody at work.
            connection.working = False
            if connection.fd < 0:
                await self._say_goodbye(connection)

    async def _say_goodbye(self, connection: Connection) -> None:
        hook = self._on_disconnect
        if inspect.iscoroutinefunction(hook):
            assert connection.closed is not None
            code = connection.closed.code
            await self._call_async(connection, "on_disconnect", hook, connection, code)
        else:
            self._disconnected(connection)

    def _call(self, connection: Connection, hook: str, function: Any, *arguments: Any) -> bool:
        """Call a plain hook; whether it returned."""
        try:
            function(*arguments)
        except BaseException as error:  # noqa: BLE001 - the application's, sorted by fault_of()
            self._blame(connection, hook, error)
            return False
        return True

    async def _call_async(
        self, connection: Connection, hook: str, function: Any, *arguments: Any
    ) -> bool:
        """Call an async hook; whether it returned."""
        try:
            await function(*arguments)
        except BaseException as error:  # noqa: BLE001 - the application's, sorted by fault_of()
            self._blame(connection, hook, error)
            return False
        return True

    def _blame(self, connection: Connection, hook: str, error: BaseException) -> None:
        fault, rest = fault_of(error, self.pump.loop.cancelled)
        if fault is not None:
            self._failed(connection, fault, hook)
        if rest is not None:
            self.pump.closing.lose(connection)
            raise rest from None


def _hook(application: object, name: str) -> Any:
    hook = getattr(application, name, None)
    return hook if callable(hook) else None
