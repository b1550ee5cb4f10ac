"""HTTP/1.1 for ASGI applications, on trio: a task per request.

The pump reads heads, and has the connections between two requests. A complete head leaves it with
its descriptor; when it is answered the descriptor goes back. What is between is here: one request,
its body as the application asks for it, and its response as fast as the client takes it. Nothing is
kept in memory but what one read gives.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

import trio

from wssup import logs
from wssup.server import handshake, sockets
from wssup.server.asgi import bodies, responses, scopes
from wssup.server.asgi.faults import is_farewell
from wssup.server.asgi.places import places
from wssup.server.asgi.responses import Framing
from wssup.server.asgi.stream import Stream
from wssup.server.opening import HttpSocket
from wssup.server.styles.base import fault_of
from wssup.tracebacks import own_traceback, summary

if TYPE_CHECKING:
    from wssup.server.asgi.websocket import AsgiStyle
    from wssup.server.pump import Pump

__all__ = ["HttpServer"]

Message = MutableMapping[str, Any]

#: What of a body that nobody wants is read, so that the connection can go on, and for how long.
_UNWANTED: Final = 64 << 10
_UNWANTED_SECONDS: Final = 1.0
_INTERNAL_ERROR: Final = 500
#: What a client may send behind a request before its response is there.
_AHEAD: Final = 64 << 10


class HttpServer:
    """The HTTP requests of a worker."""

    def __init__(self, style: AsgiStyle, pump: Pump) -> None:
        self.style = style
        self.pump = pump
        self._running: set[_Exchange] = set()
        self._log = logs.get()
        self._date = (0, b"")

    def take(self, socket: HttpSocket) -> None:
        """Serve a request; see ``Opening.http``."""
        self.style.spawn(self._serve, socket)

    def hang_up(self) -> None:
        """Tell the applications that wait for their clients to leave that they did: the worker ends
        soon.
        """
        for exchange in list(self._running):
            exchange.hang_up()

    def date(self) -> bytes:
        """What time it is (RFC 9110 section 6.6.1)."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, responses.date(time.gmtime(now)))
        return self._date[1]

    async def _serve(self, socket: HttpSocket) -> None:
        exchange = _Exchange(self, socket)
        self._running.add(exchange)
        try:
            if await exchange.prepare():
                returned = await self._call(exchange)
                await exchange.end(returned=returned)
        except Exception as error:  # noqa: BLE001 - the boundary: one request, whatever it did
            self._log.error("http_failed", exc_info=error)
        finally:
            self._running.discard(exchange)
            exchange.abort()

    async def _call(self, exchange: _Exchange) -> bool:
        """Call the application; whether it has returned, and not raised."""
        self.pump.row.handler_run()
        try:
            await self.style.app(exchange.scope(), exchange.receive, exchange.send)
        except BaseException as error:  # noqa: BLE001 - sorted by fault_of(), cancellation goes on
            fault, rest = fault_of(error, self.pump.loop.cancelled)
            if fault is not None and not (exchange.is_gone and is_farewell(fault)):
                self.pump.row.handler_error()
                self._log.error(
                    "handler_failed",
                    error=summary(fault),
                    path=exchange.head.target.decode("latin-1"),
                    exception=own_traceback(fault),
                )
            if rest is not None:
                raise rest from None
            return fault is None
        return True

    def blame(self, what: str, head: handshake.Head) -> None:
        """The application has returned, and something was still due."""
        self.pump.row.handler_error()
        self._log.error("handler_failed", error=what, path=head.target.decode("latin-1"))


class _Exchange:
    """One request and its response.

    :ivar is_gone: the client is; nobody is there to say anything to.
    """

    def __init__(self, server: HttpServer, socket: HttpSocket) -> None:
        self._server = server
        self._socket = socket
        self._limits = server.pump.limits
        self._stream = Stream(socket.fd, self._limits.send_timeout)
        end = socket.data.index(handshake.HEAD_END) + len(handshake.HEAD_END)
        self.head = socket.head or handshake.parse(socket.data[:end])
        #: What was received and is not the application's yet, or another request's.
        self._buffer = bytearray(socket.data[end:])
        self._body: bodies.Body = bodies.Sized(0)
        self._told_body = False
        self._continues = False
        self._start: responses.Start | None = None
        self._framing: Framing | None = None
        self._left = 0
        self._keep = self._client_keeps()
        self._done = False
        self._refused = False
        self.is_gone = False
        self._hung_up = False
        self._reading = trio.Lock()
        self._scope = trio.CancelScope()

    def _client_keeps(self) -> bool:
        """RFC 9112 section 9.3."""
        options = [option.lower() for option in self.head.tokens(b"connection")]
        if self.head.version == "1.0":
            return "keep-alive" in options
        return "close" not in options

    async def prepare(self) -> bool:
        """Look at what the request's fields ask for; whether the application is to be called."""
        try:
            if self.head.version == "1.1" and self.head.get(b"host") is None:
                raise handshake.BadRequestError("no Host")
            if self.head.method == "CONNECT":
                raise handshake.BadRequestError("this is no proxy", 501)
            self._body = bodies.body_of(self.head, self._limits.body_bytes)
            self._continues = bodies.wants_continue(self.head)
        except handshake.BadRequestError as error:
            await self._refuse(error.status, str(error))
            return False
        return True

    def scope(self) -> dict[str, Any]:
        """What the application is called with."""
        style = self._server.style
        client, server = places(self._stream.fd, self._socket.peer)
        # A proxy's connection carries the requests of many.
        told = self._server.pump.opening.trusted.client(self._socket.peer, self.head.headers)
        if told is not None:
            client = sockets.unpacked(told.peer) if told.peer else None
        return scopes.http(
            self.head,
            client=client,
            server=server,
            scheme="https" if told is not None and told.secure else "http",
            root_path=style.root_path,
            state=style.lifespan_state,
        )

    # What the application receives.

    async def receive(self) -> Message:
        """The next part of the body; when there is none any more, the client's end, or ours."""
        async with self._reading:
            if self._is_over:
                return _DISCONNECT.copy()
            if self._told_body:
                await self._wait_for_end()
                return _DISCONNECT.copy()
            try:
                part = await self._read_body()
            except handshake.BadRequestError as error:
                await self._refuse(error.status, str(error))
                return _DISCONNECT.copy()
            if self._is_over or part is None:
                return _DISCONNECT.copy()
            self._told_body = self._body.is_complete
            return {"type": "http.request", "body": part, "more_body": not self._told_body}

    @property
    def _is_over(self) -> bool:
        return self._done or self.is_gone or self._hung_up

    async def _read_body(self) -> bytes | None:
        """The next part of the body, empty only if it is the last; ``None``: the client is gone.

        :raises BadRequestError: it makes no sense, or is late.
        """
        while True:
            part = self._body.take(self._buffer)
            if part or self._body.is_complete:
                return part
            if self._continues and self._framing is None:
                self._continues = False
                if not await self._stream.write([responses.CONTINUE]):
                    self.is_gone = True
                    return None
            if not await self._read(self._limits.body_timeout):
                if self._is_over:
                    return None
                raise handshake.BadRequestError("the body is late", 408)

    async def _read(self, seconds: float) -> bool:
        """Read once; whether anything came in time. It may be over afterwards."""
        while True:
            data = self._stream.read_some()
            if data is not None:
                break
            with trio.CancelScope() as self._scope:
                self._scope.deadline = trio.current_time() + seconds
                await self._stream.wait_readable()
            # The descriptor may be another's by now.
            if self._is_over or self._scope.cancelled_caught:
                return False
        self._buffer += data
        self.is_gone = self.is_gone or not data
        return bool(data)

    async def _wait_for_end(self) -> None:
        """Wait until the client is gone, or the response is complete."""
        while not self._is_over and len(self._buffer) < _AHEAD:
            await self._read(float("inf"))
        if not self._is_over:
            with trio.CancelScope() as self._scope:
                await trio.sleep_forever()

    def hang_up(self) -> None:
        """Tell who receives that it is over."""
        self._hung_up = True
        self._scope.cancel()

    # What it sends.

    async def send(self, message: Message) -> None:
        """The application's response, or a part of it. To a client that is gone nothing is sent.

        :raises RuntimeError: it is not its turn, or does not fit the response.
        :raises ValueError: it cannot be sent.
        """
        kind = message["type"]
        if self.is_gone:
            await trio.lowlevel.checkpoint()
        elif self._done:
            raise RuntimeError(f"{kind!r} after the response was complete")
        elif self._start is None:
            _expect(kind, "http.response.start")
            self._start = responses.start(message["status"], message.get("headers") or ())
        else:
            _expect(kind, "http.response.body")
            await self._send_body(
                self._start, message.get("body") or b"", more=message.get("more_body", False)
            )

    async def _send_body(self, start: responses.Start, body: bytes, *, more: bool) -> None:
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError("the body of a response must be bytes")
        head, framing, left = b"", self._framing, self._left
        if framing is None:
            head, framing, keep = responses.begin(
                start,
                method=self.head.method,
                version=self.head.version,
                whole=None if more else len(body),
                keep=self._keep and self._server.pump.opening.accepting,
                date=self._server.date(),
            )
            left = start.length if start.length is not None else len(body)
        else:
            keep = self._keep
        if framing is Framing.LENGTH:
            left -= len(body)
            if left < 0 or (left and not more):
                raise RuntimeError("the body of the response is not as long as its Content-Length")
        self._framing, self._left, self._keep = framing, left, keep
        parts = [head]
        if framing is Framing.CHUNKED:
            parts += responses.chunk(body)
            if not more:
                parts.append(responses.LAST_CHUNK)
        elif framing is not Framing.NONE:
            parts.append(body)
        if not await self._stream.write(parts):
            self.is_gone = True
            self._scope.cancel()
        if more or self.is_gone:
            await trio.lowlevel.checkpoint()  # others have their turn
        else:
            await self._complete(start.status)

    async def _complete(self, status: int) -> None:
        """The response is written: give the connection back, although the application may have more
        to do.
        """
        # What is refused is no error of the application: any client can ask for what there is not.
        self._server.pump.row.http_request(0 if self._refused else status)
        self._done = True
        self._scope.cancel()
        if self._keep and not self._body.is_complete:
            self._keep = not self._continues and await self._skip_body()
        if self._stream.fd < 0:
            return
        opening, keep = self._server.pump.opening, self._keep
        data = bytes(self._buffer) if keep else b""
        socket = self._socket._replace(fd=self._stream.release(), data=data, head=None)
        if keep:
            opening.from_http(socket)
        else:
            opening.leave_http(socket)

    async def _skip_body(self) -> bool:
        """Read the rest of a body that the application did not want, if that is little; whether it
        was.
        """
        skipped = 0
        with trio.move_on_after(_UNWANTED_SECONDS):
            while skipped <= _UNWANTED:
                try:
                    skipped += len(self._body.take(self._buffer))
                except handshake.BadRequestError:
                    return False
                if self._body.is_complete:
                    return True
                data = self._stream.read_some()
                if data is None:
                    await self._stream.wait_readable()
                elif not data:
                    return False
                else:
                    self._buffer += data
        return False

    async def _refuse(self, status: int, text: str) -> None:
        """Answer in the application's place, and end the connection."""
        if self._framing is not None:
            self.is_gone = True  # the response has begun: there is nothing to say any more
            return
        body = f"{text}\n".encode("ascii", "replace")
        self._keep = False
        self._refused = status != _INTERNAL_ERROR
        start = responses.start(status, [(b"Content-Type", b"text/plain")])
        self._start = start
        await self._send_body(start, body, more=False)
        self.is_gone = True

    # The end.

    async def end(self, *, returned: bool) -> None:
        """The application is done.

        :param returned: as far as it is concerned, all is well.
        """
        if self._done or self.is_gone:
            return
        if returned and not self._hung_up:
            self._server.blame("it returned before its response was complete", self.head)
        if self._framing is None:
            await self._refuse(_INTERNAL_ERROR, "internal error")

    def abort(self) -> None:
        """Close the connection if it is still here: its response is not complete and never will
        be.
        """
        if self._stream.fd >= 0:
            fd = self._stream.release()
            trio.lowlevel.notify_closing(fd)
            # Counted first: close(2) wakes the client.
            self._server.pump.opening.http_ended(self._socket.peer)
            os.close(fd)


_DISCONNECT: Final = {"type": "http.disconnect"}


def _expect(kind: str, due: str) -> None:
    if kind != due:
        raise RuntimeError(f"{kind!r} where {due!r} is due")
