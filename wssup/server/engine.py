"""The engine: trio-websocket's ``WebSocketServer``. All that knows trio-websocket stands in this
file.

It adds what the library lacks: an exception boundary around every connection (a hostile handshake
raises out of trio-websocket's connection task and would end the process), counting, and a way to
close connections from outside. Counting hooks into the public methods of the stream, the request
and the connection, one instance at a time.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, WebSocketServer
from wsproto.connection import ConnectionState

from wssup import logs
from wssup.application import own_traceback, summary
from wssup.config.settings import Limits
from wssup.scoreboard import ClosedReason, HandshakeFailure, RowWriter
from wssup.server.accepting import Accepting

__all__ = ["Engine"]

Handler = Callable[[WebSocketRequest], Awaitable[object]]

#: RFC 6455 section 7.4.1.
_INTERNAL_ERROR = 1011
_ABNORMAL = 1006
_TOO_BIG = 1009
#: Seconds a client gets to answer our close frame.
_CLOSE_HANDSHAKE = 5.0

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Connection:
    """One accepted socket, from accept to close."""

    __slots__ = (
        "answered",
        "began",
        "closed_by",
        "eof",
        "failure",
        "handled",
        "opened",
        "reason",
        "scope",
        "stream",
        "ws",
    )

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.scope = trio.CancelScope()
        self.ws: WebSocketConnection | None = None
        self.began = trio.current_time()
        self.opened = 0.0
        #: How it ends, when that is decided before the close handshake tells.
        self.reason: ClosedReason | None = None
        self.failure: HandshakeFailure | None = None
        #: The handler was called: from now on it is the one that ends.
        self.handled = False
        self.eof = False
        self.answered = False
        self.closed_by: ClosedReason | None = None


_current: contextvars.ContextVar[_Connection] = contextvars.ContextVar("connection")


class Engine:
    """Serves WebSocket connections of one worker.

    :param handler: the application.
    :param row: the worker's counters.
    :param accepting: where connections come from; told when one is closed.
    """

    def __init__(
        self, handler: Handler, *, limits: Limits, row: RowWriter, accepting: Accepting
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._row = row
        self._accepting = accepting
        self._connections: set[_Connection] = set()
        self._empty = trio.Event()
        self._closing: tuple[int, str, ClosedReason, float] | None = None
        self._aborting: ClosedReason | None = None
        self._nursery: trio.Nursery | None = None
        self._messages_in = self._messages_out = self._bytes_in = self._bytes_out = 0
        self._random = random.Random()  # noqa: S311 - spreads closes in time; made after the fork
        self._log = logs.get()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as self._nursery:
            server = WebSocketServer(
                self._handle,
                # The library only calls accept() and aclose() of it.
                cast("Any", [self._accepting]),
                handler_nursery=cast("Any", self),
                max_message_size=self._limits.message_bytes,
                connect_timeout=self._limits.handshake_timeout,
                disconnect_timeout=_CLOSE_HANDSHAKE,
            )
            self._nursery.start_soon(server.run)
            task_status.started()
            await trio.sleep_forever()

    def start_soon(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """What ``trio.serve_listeners`` calls for each connection: our stand-in for its nursery."""
        assert self._nursery is not None
        self._nursery.start_soon(self._guard, function, args)

    @property
    def count(self) -> int:
        """Sockets that are open."""
        return self._accepting.open

    async def wait_empty(self) -> None:
        """Wait until no connection is left."""
        while self.count:
            if self._empty.is_set():
                self._empty = trio.Event()
            await self._empty.wait()

    async def close_all(self, code: int, why: str, reason: ClosedReason, window: float) -> None:
        """Close every connection with ``code``, spread evenly with jitter over ``window`` seconds.

        What finishes its handshake later is closed within what is left of the window.
        """
        began = trio.current_time()
        self._closing = (code, why, reason, began + window)
        waiting = [c for c in self._connections if c.ws is not None]
        self._random.shuffle(waiting)
        async with trio.open_nursery() as nursery:
            for index, connection in enumerate(waiting):
                await trio.sleep_until(
                    began + window * (index + self._random.random()) / len(waiting)
                )
                nursery.start_soon(self._close, connection, code, why, reason)

    def abort_all(self, reason: ClosedReason) -> None:
        """Cut off what is left, and what still comes out of the accept queue."""
        self._aborting = reason
        for connection in self._connections:
            self._abort(connection, reason)

    def _abort(self, connection: _Connection, reason: ClosedReason) -> None:
        connection.reason = reason
        connection.failure = HandshakeFailure.DRAINING
        connection.scope.cancel()

    def flush(self) -> None:
        """Write traffic counters to the scoreboard."""
        traffic = (self._messages_in, self._messages_out, self._bytes_in, self._bytes_out)
        if any(traffic):
            self._messages_in = self._messages_out = self._bytes_in = self._bytes_out = 0
            self._row.traffic(*traffic)

    async def _guard(self, function: Callable[..., Awaitable[None]], args: tuple[Any, ...]) -> None:
        """The boundary around one connection: whatever happens inside ends it alone, and is
        counted.
        """
        stream: trio.SocketStream = args[0]
        connection = _Connection(stream)
        self._connections.add(connection)
        _current.set(connection)
        self._watch_stream(connection)
        if self._aborting is not None:
            self._abort(connection, self._aborting)
        try:
            with connection.scope:
                await function(*args)
        except Exception as error:  # noqa: BLE001 - the boundary: see the file's docstring
            self._escaped(connection, error)
        finally:
            stream.socket.close()
            self._connections.discard(connection)
            self._count_end(connection)
            self._accepting.closed_one()
            if not self.count:
                self._empty.set()

    def _escaped(self, connection: _Connection, error: Exception) -> None:
        """An exception came out of trio-websocket itself (the handler's are caught in _handle)."""
        if connection.ws is not None:
            connection.reason = connection.reason or ClosedReason.PROTOCOL
            self._log.warning("connection_failed", exc_info=error)
            return
        connection.failure = connection.failure or HandshakeFailure.BAD_REQUEST
        self._log.debug("handshake_failed", error=repr(error))

    def _count_end(self, connection: _Connection) -> None:
        if connection.ws is None:
            self._row.handshake_failed(connection.failure or HandshakeFailure.BAD_REQUEST)
            return
        reason = connection.reason or _reason(connection)
        self._row.closed(reason, time.monotonic() - connection.opened)
        self._log.debug("closed", reason=reason.name.lower())

    def _watch_stream(self, connection: _Connection) -> None:
        """Count bytes, and notice a client that is gone before the handler knows of it."""
        stream = connection.stream
        receive, send, close = stream.receive_some, stream.send_all, stream.aclose

        async def receive_some(max_bytes: int | None = None) -> bytes:
            try:
                data = await receive(max_bytes)
            except trio.BrokenResourceError:
                self._left(connection)
                raise
            self._bytes_in += len(data)
            if not data:
                self._left(connection)
            return bytes(data)

        async def send_all(data: bytes) -> None:
            connection.answered = True
            await send(data)
            self._bytes_out += len(data)

        async def aclose() -> None:
            # The library closes the stream by itself after a request that is none, and after a
            # frame that is none.
            if not connection.handled:
                late = trio.current_time() >= connection.began + self._limits.handshake_timeout
                connection.failure = connection.failure or (
                    HandshakeFailure.TIMEOUT if late else HandshakeFailure.BAD_REQUEST
                )
                if connection.failure is HandshakeFailure.BAD_REQUEST and not connection.answered:
                    # The library raised instead of answering. Best effort: the buffer of a new
                    # socket has room, and if not, the client learns by the close.
                    connection.answered = True
                    with contextlib.suppress(OSError):
                        os.write(stream.socket.fileno(), _BAD_REQUEST)
                connection.scope.cancel()
            elif connection.ws is not None and _broke_protocol(connection.ws):
                connection.closed_by = connection.closed_by or ClosedReason.PROTOCOL
            await close()

        for name, method in (
            ("receive_some", receive_some),
            ("send_all", send_all),
            ("aclose", aclose),
        ):
            setattr(stream, name, method)

    def _left(self, connection: _Connection) -> None:
        connection.eof = True
        if not connection.handled:
            # The library would wait for the rest of the handshake until its timeout.
            connection.failure = connection.failure or HandshakeFailure.DISCONNECTED
            connection.scope.cancel()

    async def _handle(self, request: WebSocketRequest) -> None:
        connection = _current.get()
        connection.handled = True
        accept, reject = request.accept, request.reject

        async def counted_accept(**options: Any) -> WebSocketConnection:
            ws = await accept(**options)
            self._upgraded(connection, ws)
            return ws

        async def counted_reject(status_code: int, **options: Any) -> None:
            connection.failure = HandshakeFailure.REJECTED
            await reject(status_code, **options)

        setattr(request, "accept", counted_accept)  # noqa: B010 - the type forbids it, the object does not
        setattr(request, "reject", counted_reject)  # noqa: B010
        self._row.handler_run()
        try:
            await self._handler(request)
        except BaseException as error:  # noqa: BLE001 - sorted by _fault(), cancellation goes on
            fault, rest = _fault(error)
            if fault is not None:
                await self._failed(connection, reject, fault)
            if rest is not None:
                raise rest from None
        if connection.ws is None:
            if connection.failure is None:
                gone = connection.eof
                connection.failure = (
                    HandshakeFailure.DISCONNECTED if gone else HandshakeFailure.REJECTED
                )
            await self._dismiss(connection)

    async def _dismiss(self, connection: _Connection) -> None:
        """End a connection that was turned down: the library waits for the client to do it."""
        connection.scope.deadline = trio.current_time() + _CLOSE_HANDSHAKE
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await connection.stream.send_eof()

    async def _failed(
        self, connection: _Connection, reject: Callable[..., Awaitable[None]], error: BaseException
    ) -> None:
        self._row.handler_error()
        self._log.error(
            "handler_failed",
            error=summary(error),
            exception=own_traceback(error),
        )
        with trio.move_on_after(_CLOSE_HANDSHAKE):
            if connection.ws is not None:
                connection.reason = ClosedReason.ERROR
                await connection.ws.aclose(_INTERNAL_ERROR, "internal error")
            else:
                connection.failure = HandshakeFailure.ERROR
                try:
                    await reject(500)
                except ConnectionClosed:
                    self._log.debug("handshake_failed", error="the client left")

    def _upgraded(self, connection: _Connection, ws: WebSocketConnection) -> None:
        connection.ws = ws
        connection.opened = time.monotonic()
        self._row.upgraded()
        get, send, close = ws.get_message, ws.send_message, ws.aclose

        async def get_message() -> str | bytes:
            message = await get()
            self._messages_in += 1
            return message

        async def send_message(message: str | bytes) -> None:
            await send(message)
            self._messages_out += 1

        async def aclose(code: int = 1000, reason: str | None = None) -> None:
            if ws.closed is None:
                connection.closed_by = connection.closed_by or ClosedReason.SERVER
            await close(code, reason)

        for name, method in (
            ("get_message", get_message),
            ("send_message", send_message),
            ("aclose", aclose),
        ):
            setattr(ws, name, method)
        if self._closing is not None:
            assert self._nursery is not None
            self._nursery.start_soon(self._close_late, connection)

    async def _close_late(self, connection: _Connection) -> None:
        assert self._closing is not None
        code, why, reason, until = self._closing
        left = max(0.0, until - trio.current_time())
        await trio.sleep(self._random.random() * left)
        await self._close(connection, code, why, reason)

    async def _close(
        self, connection: _Connection, code: int, why: str, reason: ClosedReason
    ) -> None:
        if connection not in self._connections or connection.ws is None:
            return
        if connection.ws.closed is None:
            connection.reason = connection.reason or reason
        with trio.move_on_after(_CLOSE_HANDSHAKE):
            try:
                await connection.ws.aclose(code, why)
            except Exception as error:  # noqa: BLE001 - the boundary: one connection may not end a drain
                self._log.warning("close_failed", exc_info=error)
            else:
                return
        connection.scope.cancel()


def _broke_protocol(ws: WebSocketConnection) -> bool:
    """Whether the library closes a connection because of what the client sent.

    It takes some frames that are none for a close frame with 1002 or 1007; wsproto, which has seen
    no close frame, then still has the connection open.
    """
    return ws.closed is None or ws._wsproto.state is ConnectionState.OPEN  # noqa: SLF001


def _reason(connection: _Connection) -> ClosedReason:
    """How an upgraded connection came to its end."""
    assert connection.ws is not None
    closed = connection.ws.closed
    if connection.closed_by is not None:
        return connection.closed_by
    if closed is None or closed.code == _ABNORMAL:
        return ClosedReason.LOST
    if closed.code == _TOO_BIG and not connection.eof:
        return ClosedReason.TOO_BIG
    return ClosedReason.CLIENT


def _fault(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What of an exception out of a handler is its fault, and what must go on (cancellation).

    ConnectionClosed is no fault: the handler has simply ended. Nurseries wrap both in groups.
    """
    if isinstance(error, BaseExceptionGroup):
        cancelled, rest = error.split((trio.Cancelled, GeneratorExit))
        if rest is not None:
            _, rest = rest.split(ConnectionClosed)
        return rest, cancelled
    if isinstance(error, trio.Cancelled | GeneratorExit):
        return None, error
    return (None, None) if isinstance(error, ConnectionClosed) else (error, None)
