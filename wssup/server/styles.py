"""How an application is called: a task per connection, or hooks of an object.

- **task**: ``async def app(request)``, as ``trio_websocket.serve_websocket`` calls it.
- **event**: an object with ``on_request(request)``, ``on_connect(ws)``, ``on_receive(ws, data)``
  and ``on_disconnect(ws, code)``, each optional, plain or async. A plain hook runs inside the
  pump's turn. An async one runs in a task that lives only while its connection has work; meanwhile
  everything else of that connection waits in line, so that the hooks of one connection never run
  beside each other and always in order.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from trio_websocket import ConnectionClosed

from wssup import logs
from wssup.application import own_traceback, summary
from wssup.scoreboard import ClosedReason, HandshakeFailure
from wssup.server import handshake
from wssup.server.connection import Connection, State
from wssup.server.request import Request

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["EventStyle", "Style", "TaskStyle", "fault_of"]

#: RFC 6455 section 7.4.1.
_INTERNAL_ERROR = 1011
#: Messages that a plain hook gets in one turn.
_FRAMES = 64


class Style(Protocol):
    """An application, as the pump sees it."""

    pump: Pump
    plain: str
    """The hook that runs inside a turn; empty if none does."""

    def deliver(self, connection: Connection, message: Any) -> None:
        """A message came."""

    busy: int
    """Tasks of the application that run."""

    @property
    def whole_budget(self) -> int:
        """How many frames may be decoded in a turn for a connection that has no queue."""

    def budget(self, connection: Connection) -> int:
        """The same for one that has a queue."""

    def requested(self, request: Request) -> None:
        """A client wants to connect."""

    def drained(self, connection: Connection) -> None:
        """The outbound queue has room."""

    def ended(self, connection: Connection) -> None:
        """A connection is gone; called once for each that was adopted."""


class _Base:
    """What both styles share: tasks, the inbound queue, senders that wait, and faults."""

    plain = ""

    def __init__(self) -> None:
        self.pump: Pump
        self.busy = 0
        self.idle: Callable[[], None] = lambda: None
        self._log = logs.get()

    @property
    def whole_budget(self) -> int:
        """What the inbound queue has room for when it is empty."""
        return self.pump.limits.inbound_messages

    def budget(self, connection: Connection) -> int:
        """As many as the inbound queue has room for."""
        return self.pump.limits.inbound_messages - len(connection.inbox or ())

    def _queue(self, connection: Connection, item: Any) -> None:
        inbox = connection.inbox
        if inbox is None:
            inbox = connection.inbox = []
        inbox.append(item)
        if len(inbox) >= self.pump.limits.inbound_messages and not connection.paused:
            self.pump.pause(connection)

    def drained(self, connection: Connection) -> None:
        """Those who wait to send go first, in their order: the pump sends for them, so that none
        can be overtaken on its way back to its task.
        """
        pump = self.pump
        while connection.senders and (
            connection.closed is not None or connection.out_bytes < pump.limits.outbound_bytes
        ):
            waiter, message = connection.senders.pop(0)
            waiting, connection.senders = connection.senders, None
            try:
                sent = connection.send_nowait(message)
            except UnicodeEncodeError as error:
                pump.loop.wake_error(waiter, error)
                sent = True
            else:
                if sent:
                    pump.loop.wake(waiter, None)
                else:
                    pump.loop.wake_error(waiter, ConnectionClosed(connection.closed))
            connection.senders = waiting or None

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
        fields = {"hook": hook} if hook else {}
        self._log.error(
            "handler_failed", error=summary(error), **fields, exception=own_traceback(error)
        )
        if connection.status is State.PENDING:
            answer = handshake.response(500, b"internal error\n", kind=b"text/plain")
            self.pump.respond(connection, answer, HandshakeFailure.ERROR)
        else:
            self.pump.close(connection, _INTERNAL_ERROR, "internal error", ClosedReason.ERROR)

    def _unanswered(self, request: Request, connection: Connection) -> None:
        """An application that neither accepts nor rejects has rejected."""
        if not request.is_answered:
            answer = handshake.response(403, b"not accepted\n", kind=b"text/plain")
            self.pump.respond(connection, answer, HandshakeFailure.REJECTED)


class TaskStyle(_Base):
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
                self.pump.lose(connection)
                raise rest from None
        finally:
            self._unanswered(request, connection)
            self.pump.close(connection, 1000, None)
            self.busy -= 1
            if not self.busy:
                self.idle()

    def deliver(self, connection: Connection, message: str | bytes) -> None:
        """Give a message to the task that waits for one, or keep it."""
        waiter = connection.receiver
        if waiter is not None:
            more = connection.more_receivers
            connection.receiver = more.pop(0) if more else None
            if self.pump.loop.wake(waiter, message):
                return
        self._queue(connection, message)

    def ended(self, connection: Connection) -> None:
        """The handler learns it where it waits."""


#: What stands in a connection's queue besides messages.
_CONNECT: Final = object()


class EventStyle(_Base):
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
        """Call ``on_receive``, or keep the message for when its turn comes: there is a queue as long
        as a task of this connection is at work.
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
        if connection.outbox is not None:
            self._hold_back(connection)

    def _hold_back(self, connection: Connection) -> None:
        """A client that does not take what it is sent is not listened to either: the answers to
        what it says would have nowhere to go.
        """
        if (
            connection.out_bytes >= self.pump.limits.outbound_bytes
            and connection.status is State.OPEN
            and self.pump.limits.slow_client == "wait"
        ):
            connection.inbox = []
            self.pump.pause(connection)

    def drained(self, connection: Connection) -> None:
        """Go on with what was held back."""
        super().drained(connection)
        if connection.paused and not connection.working and not self._receive_is_async:
            held, connection.inbox = connection.inbox or [], None
            while held and connection.status is State.OPEN and connection.inbox is None:
                self.deliver(connection, held.pop(0))
            if held:
                connection.inbox = held
            else:
                self.pump.resume(connection)

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
            self.pump.lose(connection)
            raise rest from None


def _hook(application: object, name: str) -> Any:
    hook = getattr(application, name, None)
    return hook if callable(hook) else None


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
