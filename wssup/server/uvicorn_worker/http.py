"""HTTP by uvicorn, a connection at a time: the engine has accepted it and read its first request,
and gets it back when a later one asks for a WebSocket.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wssup.server import sockets
from wssup.server.opening import HttpSocket

if TYPE_CHECKING:
    from wssup.server.uvicorn_worker.front import Front

__all__ = ["Http", "ProxiedHttp", "Upgraded"]


#: Looked up for each request.
_received = HttpToolsProtocol.data_received


class Http(HttpToolsProtocol):
    """uvicorn's protocol for a connection whose first request is there already.

    :ivar found: the connection, as the engine gave it away.
    :ivar is_ours: whether it was neither closed nor given back.
    """

    transport: asyncio.Transport

    def __init__(self, front: Front, found: HttpSocket) -> None:
        super().__init__(front.config, front.server_state, front.app_state)
        self.found = found
        self._front = front
        self.is_ours = True
        self._data = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's; then its first request, which no socket will tell of."""
        super().connection_made(transport)
        self._front.connections.add(self)
        data = self.found.data
        self.found = self.found._replace(data=b"", head=None)
        self.data_received(data)
        if self._front.leaves:
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's."""
        self._data = data
        _received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        super().connection_lost(exc)
        if self.is_ours:
            self.is_ours = False
            self._front.ended(self)

    def hand_back(self, head: bytes) -> None:
        """Give the engine a connection whose next request asks for a WebSocket.

        :param head: that request's.
        """
        rest = b""
        told = sys.exc_info()[1]
        if isinstance(told, httptools.HttpParserUpgrade):
            # uvicorn forgets what came behind the head.
            rest = self._data[told.args[0] :]
        transport = self.transport
        if self.cycle is not None and not self.cycle.response_complete:
            # Asked for before its last answer was there: no client does that in earnest.
            self.cycle.keep_alive = False
            return
        if transport.get_write_buffer_size():
            transport.close()
            return
        try:
            fd = os.dup(transport.get_extra_info("socket").fileno())
        except OSError:  # out of descriptors
            transport.abort()
            return
        self.is_ours = False
        transport.abort()
        self._front.give_back(self, self.found._replace(fd=fd, data=head + rest))


class ProxiedHttp(Http):
    """The same where proxies are believed: a connection of theirs carries requests of many."""

    def on_headers_complete(self) -> None:
        """As uvicorn's; the client is whom the proxy says it is."""
        client = self._front.trusted.client(self.found.peer, self.headers)
        if client is not None:
            self.scope["client"] = sockets.unpacked(client.peer) if client.peer else None
            self.scope["scheme"] = "https" if client.secure else "http"
        super().on_headers_complete()


class Upgraded(asyncio.Protocol):
    """What uvicorn makes for an upgrade (``Config(ws=…)``): gives it to the engine."""

    def __init__(self, **_: object) -> None:
        self._http: Http | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is still that of the connection's HTTP."""
        found = cast("asyncio.Transport", transport).get_protocol()
        assert isinstance(found, Http)
        self._http = found

    def data_received(self, data: bytes) -> None:
        """The head; what comes later is the engine's, or nobody's."""
        http, self._http = self._http, None
        if http is not None:
            self._kept = http
            http.hand_back(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of a connection that stayed uvicorn's to its end."""
        self._kept.connection_lost(exc)
