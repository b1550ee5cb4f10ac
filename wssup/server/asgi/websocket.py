"""WebSockets of an ASGI application: a task per connection that calls it.

Loop-neutral, as the engine is: on trio, and on asyncio beside uvicorn.

A connection that moves to another worker ends here for its application like any other: receive()
gives ``websocket.disconnect``, with code 1012. When the application has returned, the connection
leaves; in the new worker it begins with ``websocket.connect``, and its acceptance is swallowed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from enum import IntEnum
from typing import Any, Final

from trio_websocket import CloseReason, ConnectionClosed

from wssup.scoreboard import HandshakeFailure
from wssup.server import handshake
from wssup.server.asgi import scopes
from wssup.server.asgi.faults import ClientGoneError, is_farewell
from wssup.server.asgi.places import places
from wssup.server.connection import Connection, State
from wssup.server.described import MOVED, ConnectionMoved
from wssup.server.request import Request
from wssup.server.styles.task import TaskStyle

__all__ = ["Application", "AsgiStyle"]

Message = MutableMapping[str, Any]
Application = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[object],
]

#: RFC 6455 section 7.4.1: normal closure; the connection broke.
_NORMAL: Final = 1000
_ABNORMAL: Final = 1006
#: Messages sent in a row after which others have their turn.
_TURN: Final = 64


class AsgiStyle(TaskStyle):
    """Calls an ASGI application for each WebSocket.

    :param app: ``async def app(scope, receive, send)``.
    :param resumable: whether its connections can move to another worker.
    :param root_path: what a proxy has cut off the path.
    :ivar lifespan_state: what the lifespan has put into its scope's ``state``; each scope has a
        copy.
    """

    def __init__(self, app: Application, *, resumable: bool = False, root_path: str = "") -> None:
        super().__init__(_no_handler, resumable=resumable)
        self.app = app
        self.root_path = root_path
        self.lifespan_state: dict[str, Any] = {}

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run something in a task that counts as the application's."""
        self._spawn(function, *arguments)

    def suspend(self, connection: Connection) -> None:
        """Tell who waits for a message that the client is gone."""
        if connection.receiver is None:
            return  # who asks next is told
        waiting = [connection.receiver, *(connection.more_receivers or ())]
        connection.receiver = connection.more_receivers = None
        for waiter in waiting:
            self.pump.loop.wake_error(waiter, ConnectionMoved(MOVED))

    async def _run(self, request: Request, connection: Connection) -> None:
        # One coroutine between the task and the application, as each costs memory.
        session = _Session(request)
        try:
            # The request goes with its parsed head as soon as it is answered.
            scope, request = self._scope(request), None  # type: ignore[assignment]
            await self.app(scope, session.receive, session.send)
            session.check()
        except BaseException as error:  # noqa: BLE001 - sorted by _raised(), cancellation goes on
            if not (session.is_over and is_farewell(error)):
                self._raised(connection, error)
        finally:
            self._over(connection)

    def _scope(self, request: Request) -> dict[str, Any]:
        connection = request.connection
        client, server = places(connection.fd, connection.peer)
        return scopes.websocket(
            request.parsed,
            client=client,
            server=server,
            scheme="wss" if connection.secure else "ws",
            root_path=self.root_path,
            state=self.lifespan_state,
            own={
                "resumed": request.resumed,
                "id": connection.id,
                "state": connection.state,
                "connection": connection,
                "subscribe": connection.subscribe,
                "unsubscribe": connection.unsubscribe,
            },
        )


async def _no_handler(_: Request) -> None:
    """What takes the place of a handler of requests."""


class _Phase(IntEnum):
    CONNECTING = 0
    OPEN = 1
    DENYING = 2  # its own response is not complete
    CLOSED = 3  # the application has ended it


class _Session:
    """What one call of the application receives and sends.

    :ivar told: whether it was told of the end.
    """

    __slots__ = ("_answer", "_begun", "_connection", "_request", "_sent", "phase", "told")

    def __init__(self, request: Request) -> None:
        self._request: Request | None = request
        self._connection = request.connection
        self._begun = False
        self._sent = 0
        self._answer: tuple[int, list[tuple[bytes, bytes]], bytearray] | None = None
        self.phase = _Phase.CONNECTING
        self.told = False

    @property
    def is_over(self) -> bool:
        """Whether the client is gone, as far as the application can know."""
        return self.told or self._connection.closed is not None

    def check(self) -> None:
        """The application has returned.

        :raises RuntimeError: something is still due.
        """
        if self.phase is _Phase.DENYING:
            raise RuntimeError("the application returned before its denial response was complete")
        waits = self._connection.status in {State.PENDING, State.OPEN}
        if self.phase is _Phase.CONNECTING and waits:
            raise RuntimeError("the application returned and has neither accepted nor closed")

    async def receive(self) -> Message:
        """The next event: the request, a message, or the end; from then on always the end."""
        connection = self._connection
        pump = connection.wire
        if not self._begun:
            self._begun = True
            return {"type": "websocket.connect"}
        if (
            self.told
            or self.phase is _Phase.CLOSED
            or (pump.watchful and pump.handoff.receives(connection))
        ):
            await pump.cancel_point()
            await pump.schedule_point()
            return self._end()
        try:
            if connection.inbox or connection.closed is not None or connection.receiver is not None:
                message = await connection.get_message()
            else:
                # The same without a coroutine more, of which there is one for each idle connection.
                connection.receiver = pump.waiter()
                message = await pump.rest(connection)
        except ConnectionClosed:
            return self._end()
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    def _end(self) -> Message:
        self.told = True
        closed = self._connection.closed
        if closed is None:
            # It moves, or its own response goes out.
            moves = self.phase is _Phase.OPEN or self._connection.resumed
            closed = MOVED if moves else CloseReason(_ABNORMAL, None)
        return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason or ""}

    async def send(self, message: Message) -> None:
        """What the application answers, sends, or closes with.

        :raises ClientGoneError: the client is gone.
        :raises RuntimeError: it is not its turn.
        """
        if self.phase is _Phase.OPEN and message["type"] == "websocket.send":
            connection = self._connection
            data: Any = message.get("bytes")
            if data is None:
                data = message.get("text")
            if connection.outbox is not None:
                await self._send_behind(data)
            elif not connection.send_nowait(data):
                raise ClientGoneError(connection.closed)
            else:
                self._sent += 1
                if not self._sent % _TURN:
                    await connection.wire.cancel_point()
                    await connection.wire.schedule_point()
            return
        if self.phase is _Phase.OPEN:
            self._close(message)
        elif self.phase is _Phase.CONNECTING:
            self._reply(message)
        elif self.phase is _Phase.DENYING:
            self._deny(message)
        else:
            raise RuntimeError(f"{message['type']!r} after the application has closed")
        await self._connection.wire.cancel_point()
        await self._connection.wire.schedule_point()

    async def _send_behind(self, data: Any) -> None:
        """Behind what the client has not taken yet."""
        try:
            await self._connection.send_message(data)
        except ConnectionClosed:
            raise ClientGoneError(self._connection.closed) from None

    def _close(self, message: Message) -> None:
        _expect(message, "websocket.send", "websocket.close")
        code = message.get("code")
        # Of a client that is gone, or moves, nothing is left to close.
        self._connection.close_nowait(_NORMAL if code is None else code, message.get("reason"))
        self.phase = _Phase.CLOSED

    def _reply(self, message: Message) -> None:
        """Accept, or not."""
        _expect(message, "websocket.accept", "websocket.close", "websocket.http.response.start")
        request, kind = self._request, message["type"]
        assert request is not None
        if not request.resumed and request.is_answered:
            raise ClientGoneError(self._connection.closed)
        if kind == "websocket.accept":
            try:
                request.accept_nowait(
                    subprotocol=message.get("subprotocol") or None, extra_headers=_headers(message)
                )
            except ConnectionClosed:
                raise ClientGoneError(self._connection.closed) from None
            self._request, self.phase = None, _Phase.OPEN
        elif kind == "websocket.close" or request.resumed:
            request.reject_nowait(403)
            self._request, self.phase = None, _Phase.CLOSED
        else:
            status = message["status"]
            kept = [pair for pair in _headers(message) if pair[0].lower() not in _FRAMING]
            handshake.response(status, b"", kept)  # what cannot be sent is said now
            self._answer = (status, kept, bytearray())
            self.phase = _Phase.DENYING

    def _deny(self, message: Message) -> None:
        """A response of the application's own (the extension ``websocket.http.response``)."""
        _expect(message, "websocket.http.response.body")
        connection = self._connection
        assert self._answer is not None
        status, headers, body = self._answer
        body += message.get("body", b"")
        most = connection.wire.limits.outbound_bytes
        if len(body) > most:
            raise RuntimeError(f"a denial response is larger than limits.outbound_bytes ({most})")
        if message.get("more_body", False):
            return
        self._answer = self._request = None
        self.phase = _Phase.CLOSED
        if connection.status is not State.PENDING:
            raise ClientGoneError(connection.closed)
        answer = handshake.response(status, bytes(body), headers)
        connection.wire.opening.respond(connection, answer, HandshakeFailure.REJECTED)


#: How a response is framed is not the application's to say.
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding", b"upgrade"})


def _headers(message: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]


def _expect(message: Message, *kinds: str) -> None:
    if message["type"] not in kinds:
        raise RuntimeError(f"{message['type']!r} where {' or '.join(kinds)} is due")
