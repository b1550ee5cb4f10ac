"""Event style: hooks of an object.

``on_request(request)``, ``on_connect(ws)``, ``on_receive(ws, data)``, ``on_disconnect(ws, code)``,
each optional, plain or async. A plain hook runs inside the pump's turn. An async one runs in a task
that lives only while its connection has work; meanwhile everything else of that connection waits in
line, so that the hooks of one connection never run beside each other, and always in order.
"""

from __future__ import annotations

import inspect
import time
from typing import Any, Final

from trio_websocket import ConnectionClosed

from wssup.scoreboard import ClosedReason, HandshakeFailure, RefusedReason
from wssup.server.connection import Connection, State
from wssup.server.pump import FRAMES
from wssup.server.request import Request
from wssup.server.styles.base import BaseStyle, fault_of

__all__ = ["EventStyle"]

#: What stands in a connection's queue besides messages.
_CONNECT: Final = object()
_RESUME: Final = object()


class EventStyle(BaseStyle):
    """Hooks of an object."""

    resumable = True
    moves_in_receive = False

    def __init__(self, application: object) -> None:
        super().__init__()
        self._on_request = _hook(application, "on_request")
        self._on_connect = _hook(application, "on_connect")
        self._on_receive = _hook(application, "on_receive")
        self._on_disconnect = _hook(application, "on_disconnect")
        self._on_suspend = _hook(application, "on_suspend")
        self._on_resume = _hook(application, "on_resume")
        self._receive_is_async = _is_async(self._on_receive)
        if self._on_receive is not None and not self._receive_is_async:
            self.plain = "on_receive"

    @property
    def whole_budget(self) -> int:
        """With a plain hook nothing is kept, so it is a turn's work."""
        return super().whole_budget if self._receive_is_async else FRAMES

    def requested(self, request: Request) -> None:
        """Ask ``on_request``; accept if it has nothing to say."""
        connection = request.connection
        self.pump.row.handler_run()
        hook = self._on_request
        if _is_async(hook):
            # Until it has ended nothing else of this connection is done.
            connection.working = True
            connection.inbox = []
            self._spawn(self._ask, request, connection)
            return
        if hook is None or self._call(connection, "on_request", hook, request):
            self._accept(request)
        else:
            self._unanswered(connection)
        if connection.status is not State.OPEN or self._on_connect is None:
            return
        if _is_async(self._on_connect):
            self._queue(connection, _CONNECT)
            self._work(connection)
        else:
            self._call(connection, "on_connect", self._on_connect, connection)

    async def _ask(self, request: Request, connection: Connection) -> None:
        fine = False
        try:
            fine = await self._call_async(connection, "on_request", self._on_request, request)
            if fine:
                self._accept(request)
        finally:
            self._unanswered(connection)
            if isinstance(connection.verdict, HandshakeFailure | RefusedReason):
                connection.working = False
                connection.inbox = None
            else:
                connection.inbox = [_CONNECT, *(connection.inbox or ())] if fine else None
                await self._work_off(connection)

    def _accept(self, request: Request) -> None:
        if not request.is_answered:
            try:
                request.accept_nowait()
            except ConnectionClosed:
                return

    def deliver(self, connection: Connection, message: str | bytes) -> None:
        """Call ``on_receive``, or keep the message for when its turn comes: as long as a task of
        this connection is at work there is a queue.
        """
        if connection.inbox is not None or self._receive_is_async:
            # A hook may wait for the next message itself.
            if self.hand_over(connection, message):
                return
            self._queue(connection, message)
            if not connection.working and self._receive_is_async:
                self._work(connection)
            return
        hook = self._on_receive
        if hook is None:
            return
        if connection.outbox is not None and self.pump.pressure.hold_back(connection):
            self._queue(connection, message)
            return
        try:
            hook(connection, message)
        except BaseException as error:  # noqa: BLE001 - the application's, sorted by fault_of()
            self._blame(connection, "on_receive", error)

    def _go_on(self, connection: Connection) -> None:
        """Deliver what was held back."""
        held = connection.inbox
        if held is not None and not self._receive_is_async and not connection.working:
            connection.inbox = None
            while held and connection.status is State.OPEN and connection.inbox is None:
                self.deliver(connection, held.pop(0))
            again: list[Any] | None = connection.inbox
            if again is not None:
                again += held
                return
        super()._go_on(connection)

    def ended(self, connection: Connection) -> None:
        """Call ``on_disconnect``, after all that came before."""
        if not isinstance(connection.verdict, ClosedReason):
            return
        if connection.working:
            return  # its task sees it when it has done what is left
        if self._on_disconnect is None:
            return
        if _is_async(self._on_disconnect):
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
                    self.pump.pressure.has_room(connection)
                if item is _CONNECT:
                    await self._connected(connection)
                elif item is _RESUME:
                    await self._resumed(connection)
                elif self._receive_is_async:
                    await self._call_async(
                        connection, "on_receive", self._on_receive, connection, item
                    )
                elif self._on_receive is not None:
                    self._call(connection, "on_receive", self._on_receive, connection, item)
                if self.pump.watchful and self.pump.handoff.wants(connection):
                    break  # the rest moves with it
            connection.inbox = connection.inbox or None
        finally:
            # No await between the last look and here: what comes from now on finds nobody at work.
            connection.working = False
            if connection.fd < 0:
                await self._say_goodbye(connection)
            elif self.pump.watchful:
                self.pump.handoff.quiet(connection)

    # What moves.

    def is_quiet(self, connection: Connection) -> bool:
        """No task is at work for it; what waits in its queue moves with it."""
        return not connection.working

    def suspend(self, connection: Connection) -> None:
        """Call ``on_suspend``."""
        hook = self._on_suspend
        if _is_async(hook):
            self._spawn(self._suspend_async, connection)
            return
        fine = hook is None or self._call(connection, "on_suspend", hook, connection)
        self.pump.handoff.suspended(connection, failed=not fine)

    async def _suspend_async(self, connection: Connection) -> None:
        # If it takes so long that the connection is read again, messages wait for its end.
        connection.working = True
        connection.inbox = connection.inbox or []
        fine = False
        try:
            fine = await self._call_async(connection, "on_suspend", self._on_suspend, connection)
        finally:
            connection.working = False
            if connection.fd < 0:
                await self._say_goodbye(connection)
            else:
                self.pump.handoff.suspended(connection, failed=not fine)

    def resume(self, connection: Connection, messages: list[Any]) -> None:
        """Call ``on_resume``, then deliver what was received before the move."""
        hook = self._on_resume
        self.pump.row.handler_run()
        if _is_async(hook) or (messages and self._receive_is_async):
            for item in (_RESUME, *messages):
                self._queue(connection, item)
            self._work(connection)
            return
        if hook is not None:
            self._call(connection, "on_resume", hook, connection)
        self.pump.handoff.resumed(connection)
        if messages and connection.status is State.OPEN:
            connection.inbox = messages
            self._go_on(connection)

    async def _resumed(self, connection: Connection) -> None:
        hook = self._on_resume
        if _is_async(hook):
            await self._call_async(connection, "on_resume", hook, connection)
        elif hook is not None:
            self._call(connection, "on_resume", hook, connection)
        self.pump.handoff.resumed(connection)

    async def _connected(self, connection: Connection) -> None:
        if _is_async(self._on_connect):
            await self._call_async(connection, "on_connect", self._on_connect, connection)
        elif self._on_connect is not None:
            self._call(connection, "on_connect", self._on_connect, connection)

    async def _say_goodbye(self, connection: Connection) -> None:
        hook = self._on_disconnect
        if _is_async(hook):
            assert connection.closed is not None
            code = connection.closed.code
            await self._call_async(connection, "on_disconnect", hook, connection, code)
        else:
            self._disconnected(connection)

    def _call(self, connection: Connection, hook: str, function: Any, *arguments: Any) -> bool:
        """Call a plain hook; whether it returned."""
        began = time.monotonic()
        try:
            function(*arguments)
        except BaseException as error:  # noqa: BLE001 - the application's, sorted by fault_of()
            self._blame(connection, hook, error)
            return False
        finally:
            self.pump.complaints.took(connection, hook, time.monotonic() - began)
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


def _is_async(hook: Any) -> bool:
    """Whether a hook must be awaited: an async function, one that is decorated, or an object that
    is called as one.
    """
    if hook is None:
        return False
    return any(
        inspect.iscoroutinefunction(function)
        for function in (hook, inspect.unwrap(hook), getattr(hook, "__call__", None))  # noqa: B004
    )
