"""A client's handshake, as the application has it: trio-websocket's interface and a little more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_websocket import CloseReason, ConnectionClosed, Endpoint

from wssup.scoreboard import HandshakeFailure
from wssup.server import handshake
from wssup.server.connection import Connection, State
from wssup.server.handshake import Headers

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["Request"]


#: RFC 6455 section 7.4.1.
_POLICY_VIOLATION = 1008


class Request:
    """A request to open a WebSocket, in order as far as RFC 6455 goes.

    The parsed head is dropped with the answer, and made again from its bytes when it is asked for:
    a handler keeps its request as long as its connection.
    """

    __slots__ = ("_answered", "_connection", "_head")

    def __init__(self, connection: Connection, head: handshake.Head | None) -> None:
        self._connection = connection
        self._head = head
        self._answered = False

    def __repr__(self) -> str:
        return f"<wssup.Request {self.path} of {self._connection!r}>"

    @property
    def connection(self) -> Connection:
        """The connection, which is no WebSocket before it is accepted."""
        return self._connection

    @property
    def resumed(self) -> bool:
        """Whether its WebSocket was accepted in another worker and came from there. To accept it
        gives the connection as it is; to reject it closes that with 1008.
        """
        return self._connection.resumed

    @property
    def _pump(self) -> Pump:
        return self._connection.wire

    @property
    def parsed(self) -> handshake.Head:
        """Its head."""
        return self._head or handshake.parse(self._connection.head)

    @property
    def headers(self) -> Headers:
        """The headers, names in lower case, in their order."""
        return list(self.parsed.headers)

    def get(self, name: str) -> str | None:
        """The first header called ``name``, or ``None``; bytes beyond ASCII read as Latin-1."""
        value = self.parsed.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    @property
    def path(self) -> str:
        """The requested path, with its query."""
        return self._connection.path

    @property
    def proposed_subprotocols(self) -> tuple[str, ...]:
        """What the client proposes, the best first."""
        return tuple(self.parsed.tokens(b"sec-websocket-protocol"))

    subprotocols = proposed_subprotocols

    @property
    def local(self) -> Endpoint | str:
        """Where the client connected to."""
        return self._connection.local

    @property
    def remote(self) -> Endpoint | str:
        """Where the client is."""
        return self._connection.remote

    @property
    def is_answered(self) -> bool:
        """Whether it was accepted or rejected, or its client is gone."""
        return self._connection.status is not State.PENDING

    def accept_nowait(
        self,
        *,
        subprotocol: str | None = None,
        extra_headers: Headers | None = None,
    ) -> Connection:
        """Accept without waiting; for event-style applications.

        :param subprotocol: one of `proposed_subprotocols`.
        :param extra_headers: for the response.
        :raises ConnectionClosed: the client is gone.
        :raises RuntimeError: it was answered before.
        :raises ValueError: a subprotocol that was not proposed, or a header that cannot be sent.
        """
        self._check()
        if self.resumed:
            self._answered = True
            return self._connection
        answer = handshake.accept_response(
            self.parsed, subprotocol=subprotocol, extra_headers=extra_headers
        )
        self._head, self._answered = None, True
        self._connection.subprotocol = subprotocol
        self._pump.opening.upgrade(self._connection, answer)
        if self._connection.status is State.ENDED:
            raise ConnectionClosed(self._connection.closed)
        return self._connection

    def reject_nowait(
        self,
        status_code: int,
        *,
        extra_headers: Headers | None = None,
        body: bytes | None = None,
    ) -> None:
        """Reject without waiting; for event-style applications.

        :param status_code: 300 to 599.
        :raises RuntimeError: it was answered before.
        :raises ValueError: another status, or a header that cannot be sent.
        """
        self._check()
        if not 300 <= status_code <= 599:
            raise ValueError(f"status {status_code} rejects nothing: use 300 to 599")
        if self.resumed:
            self._answered = True
            self._connection.close_nowait(_POLICY_VIOLATION, "rejected")
            return
        answer = handshake.response(status_code, body or b"", extra_headers or ())
        self._head, self._answered = None, True
        self._pump.opening.respond(self._connection, answer, HandshakeFailure.REJECTED)

    async def accept(
        self,
        *,
        subprotocol: str | None = None,
        extra_headers: Headers | None = None,
    ) -> Connection:
        """Accept, and get the connection; see `accept_nowait`."""
        await self._pump.loop.cancel_point()
        connection = self.accept_nowait(subprotocol=subprotocol, extra_headers=extra_headers)
        await self._pump.loop.schedule_point()
        return connection

    async def reject(
        self,
        status_code: int,
        *,
        extra_headers: Headers | None = None,
        body: bytes | None = None,
    ) -> None:
        """Reject; see `reject_nowait`."""
        await self._pump.loop.cancel_point()
        self.reject_nowait(status_code, extra_headers=extra_headers, body=body)
        await self._pump.loop.schedule_point()

    def _check(self) -> None:
        if self._answered:
            raise RuntimeError("this request was answered already")
        if self.is_answered and not (self.resumed and self._connection.status is State.OPEN):
            raise ConnectionClosed(self._connection.closed or CloseReason(1006, None))
