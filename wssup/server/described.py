"""What a connection says of itself: where it comes from, what it asked for, and why it ended."""

from __future__ import annotations

from typing import Any, Final

from trio_websocket import CloseReason, ConnectionClosed, Endpoint

from wssup.server import handshake, sockets
from wssup.server.wire import WireConnection

__all__ = ["MOVED", "ConnectionMoved", "Described"]


class ConnectionMoved(ConnectionClosed):
    """Of a connection that lives on in another worker: it is not this one's any more."""


#: What ``closed`` says of such a connection.
MOVED: Final = CloseReason(1012, "moved to another worker")


class Described(WireConnection):
    """The part of a connection that is read only."""

    __slots__ = ("_state", "head", "peer", "secure")

    head: bytes
    peer: bytes
    secure: bool
    closed: CloseReason | None
    _state: dict[str, Any] | None

    is_client: Final = False
    is_server: Final = True

    @property
    def state(self) -> dict[str, Any]:
        """The application's own data about this connection. It moves with it to another worker if
        it is like JSON: None, bool, int, float, str, bytes, list and dict with str keys.
        """
        if self._state is None:
            self._state = {}
        return self._state

    def gone(self) -> ConnectionClosed:
        """What those are told who want something of a connection that is closed or has moved."""
        if self.closed is MOVED:
            return ConnectionMoved(self.closed)
        return ConnectionClosed(self.closed)

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed or being closed."""
        return self.closed is not None

    @property
    def path(self) -> str:
        """The requested path, with its query."""
        return target_of(self.head)

    @property
    def handshake_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of the client's request, names in lower case; with ``keep_headers`` only
        those that it names.
        """
        return tuple(handshake.parse(self.head).headers)

    @property
    def remote(self) -> Endpoint | str:
        """Where the client is; ``"unix:"`` on a unix socket. Known after the end, too.

        Behind a trusted proxy it is what that says: the client's address, its port or 0, and
        whether it uses TLS.
        """
        if not self.peer:
            return "unix:"
        return Endpoint(*sockets.unpacked(self.peer), is_ssl=self.secure)

    @property
    def local(self) -> Endpoint | str:
        """Where the client connected to; ``"unix:/path"`` on a unix socket.

        :raises ConnectionClosed: the connection has ended.
        """
        if self.fd < 0:
            raise self.gone()
        address = sockets.local_address(self.fd)
        if isinstance(address, str):
            return f"unix:{address}"
        return Endpoint(*address, is_ssl=False)


def target_of(head: bytes) -> str:
    """The request target of a head that was parsed before."""
    return head[head.index(b" ") + 1 : head.index(b" ", head.index(b" ") + 1)].decode("latin-1")
