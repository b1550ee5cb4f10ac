"""HTTP by uvicorn, a connection at a time: the engine has accepted it and read its first request,
and gets it back when a later one asks for a WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from enum import Enum
from typing import TYPE_CHECKING, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wssup.server import handshake, sockets
from wssup.server.opening import HttpSocket

if TYPE_CHECKING:
    from wssup.server.uvicorn_worker.front import Front

__all__ = ["Http", "ProxiedHttp", "Upgraded"]


class Due(Enum):
    """What a client is waited for; the limit."""

    HEAD = "handshake_timeout"
    BODY = "body_timeout"
    TAKING = "send_timeout"


def _same(mark: object, other: object) -> bool:
    """Whether nothing has come. (Bytes that are equal are not the same ones.)"""
    return mark == other if type(mark) is int else mark is other


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
        #: What was received last.
        self._data = b""
        #: The body so far, and whose it is.
        self._size = 0
        self._sized: object = None
        #: What its client is waited for, at which point, and since when.
        self._due: tuple[Due, object, float] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's; then its first request, which no socket will tell of."""
        super().connection_made(transport)
        self._front.connections.add(self)
        data = self.found.data
        self.found = self.found._replace(data=b"", head=None)
        self.data_received(data)
        if self._front.cuts_off:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's."""
        self._data = data
        _received(self, data)
        if self._front.leaves and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """As uvicorn's, up to ``limits.body_bytes``."""
        cycle = self.cycle
        if self._sized is not cycle:
            self._sized, self._size = cycle, 0
        self._size += len(body)
        if self._size <= self._front.limits.body_bytes:
            super().on_body(body)
        elif self.is_ours and not self.transport.is_closing():
            self._refuse(413, "the body is too large")

    def _refuse(self, status: int, why: str) -> None:
        """Say what is wrong with a request, if no answer to it was begun, and end."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(handshake.text_response(status, why))
        left = self._leave_uvicorn()
        if left is not None:
            # Closed with unread bytes in it, it would be reset before the client sees our words.
            self._front.linger(self, left)

    def _leave_uvicorn(self) -> HttpSocket | None:
        """Take the socket out of its transport, for which the client is gone then; ``None`` if it
        cannot be had, and is closed.
        """
        transport = self.transport
        if transport.get_write_buffer_size():
            transport.close()
            return None
        try:
            fd = os.dup(transport.get_extra_info("socket").fileno())
        except OSError:  # out of descriptors
            transport.abort()
            return None
        self.is_ours = False
        transport.abort()
        return self.found._replace(fd=fd)

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        super().connection_lost(exc)
        if self.is_ours:
            self.is_ours = False
            self._front.ended(self)

    def look(self, now: float) -> None:
        """From time to time: cut off a client that is waited for too long. (uvicorn itself waits
        for ever, but between two requests.)
        """
        found = self._waits_for()
        if found is None:
            self._due = None
            return
        due, mark = found
        was = self._due
        if was is None or was[0] is not due or not _same(mark, was[1]):
            self._due = (due, mark, now)
        elif now - was[2] > getattr(self._front.limits, due.value):
            if due is Due.TAKING:
                self.transport.abort()
            else:
                self._refuse(408, "too slow")

    def _waits_for(self) -> tuple[Due, object] | None:
        """What is due from the client, and how far it has come."""
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            with contextlib.suppress(OSError):
                unsent += sockets.untaken(self.transport.get_extra_info("socket").fileno())
            return Due.TAKING, unsent
        if self.transport.is_closing():
            return None
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if self.timeout_keep_alive_task is None:
                return Due.HEAD, cycle
            self._data = b""  # it may be large
        elif cycle.more_body and not (self.flow.read_paused or cycle.waiting_for_100_continue):
            return Due.BODY, self._data
        return None

    def hand_back(self, head: bytes) -> None:
        """Give the engine a connection whose next request asks for a WebSocket.

        :param head: that request's.
        """
        rest = b""
        told = sys.exc_info()[1]
        if isinstance(told, httptools.HttpParserUpgrade):
            # uvicorn forgets what came behind the head.
            rest = self._data[told.args[0] :]
        if self.cycle is not None and not self.cycle.response_complete:
            # Asked for before its last answer was there: no client does that in earnest.
            self.cycle.keep_alive = False
            return
        left = self._leave_uvicorn()
        if left is not None:
            self._front.give_back(self, left._replace(data=head + rest))


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
        self._http = self._kept = found

    def data_received(self, data: bytes) -> None:
        """The head; what comes later is the engine's, or nobody's."""
        http, self._http = self._http, None
        if http is not None:
            http.hand_back(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of a connection that stayed uvicorn's to its end."""
        self._kept.connection_lost(exc)
