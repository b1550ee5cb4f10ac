"""uvicorn on the status sockets, with an end to what clients can hold.

Whoever asks slowly, or takes slowly, is cut off: uvicorn itself waits for ever for the head of a
request, and for a client to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MOST", "Server"]

#: Connections at a time; those beyond are told 503, and twice as many are cut off at once.
MOST: Final = 200
#: Seconds for the head of a request, and for what is sent to be taken.
_PATIENCE: Final = 10.0
#: Seconds that a connection may be idle.
_IDLE: Final = 5
#: Bytes of the head of a request.
_LONGEST_HEAD: Final = 32 * 1024
#: Seconds between two looks, and for which responses may go on at the end.
_LOOK: Final = 1.0
_END_GRACE: Final = 0.3


class _Protocol(HttpToolsProtocol):
    """A connection.

    :ivar waits_since: since when it is not in a request; ``stuck_since``: since when it does not
        take what is sent, or ``None``; seconds of the loop's clock.
    """

    waits_since: float
    stuck_since: float | None = None
    _unparsed = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waits_since = self.loop.time()
        # Each write waits until the last one is taken, so that it shows when it is not.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > 2 * MOST:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > _LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.waits_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self.stuck_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stuck_since = None
        super().resume_writing()

    def overdue(self, before: float) -> bool:
        """Whether its client has not done its part since then."""
        if self.stuck_since is not None and self.stuck_since < before:
            return True
        in_request = self.cycle is not None and not self.cycle.response_complete
        return not in_request and self.waits_since < before


class Server(uvicorn.Server):
    """Serves until :meth:`end`. Signals are none of its business.

    :param patience: seconds for the head of a request, and for what is sent to be taken.
    :param started: called when clients are answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        patience: float = _PATIENCE,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_Protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST,
                backlog=128,
                timeout_keep_alive=_IDLE,
            )
        )
        self._patience = patience
        self._on_started = started
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Take no more requests, and let those under way end."""
        self.should_exit = True
        self._ended.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to the process."""
        yield

    async def main_loop(self) -> None:
        """Look after the connections until the end."""
        self._on_started()
        while not self.should_exit:
            await self.on_tick(0)
            before = asyncio.get_running_loop().time() - self._patience
            for connection in self._open():
                if connection.overdue(before):
                    connection.transport.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything; nobody waits long for an observer."""
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        for connection in self._open():
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_GRACE):
                while self.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
                    await asyncio.sleep(0.01)
        for connection in self._open():
            connection.transport.abort()

    def _open(self) -> list[Any]:
        return list(self.server_state.connections)
