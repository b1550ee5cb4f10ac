"""A client that speaks HTTP/1.1 as h11 understands it, and an ASGI application to speak to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

import h11
import trio

from tests.harness.served import Served

__all__ = ["Answer", "Http", "body_of", "reply", "routes"]


class Answer(NamedTuple):
    """A response: names of fields are in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def get(self, name: bytes) -> bytes | None:
        """The value of the one field of that name."""
        values = [value for found, value in self.headers if found == name]
        assert len(values) <= 1
        return values[0] if values else None


class Http:
    """One connection.

    :ivar h11: what h11 makes of it; ``our_state`` and ``their_state`` say whether it can go on.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.h11 = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(cls, server: Served) -> Self:
        """Connect, and say nothing yet."""
        return cls(await trio.open_tcp_stream(*server.address))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stream.aclose()

    async def request(
        self,
        target: str = "/",
        *,
        method: str = "GET",
        version: bytes = b"1.1",
        headers: list[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> None:
        """Send a request."""
        fields = [("Host", "test"), *(headers or [])]
        if body and not any(name.lower() == "transfer-encoding" for name, _ in fields):
            fields.append(("Content-Length", str(len(body))))
        head = self.h11.send(h11.Request(method=method, target=target, headers=fields))
        assert head is not None
        data = head.replace(b"HTTP/1.1", b"HTTP/" + version, 1)
        if body:
            data += self.h11.send(h11.Data(data=body)) or b""
        data += self.h11.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(data)

    async def answer(self) -> Answer:
        """Receive the response, which must be in order."""
        head: h11.Response | None = None
        body = b""
        while True:
            event = self.h11.next_event()
            if event is h11.NEED_DATA:
                self.h11.receive_data(bytes(await self.stream.receive_some(65536)))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                assert isinstance(event, h11.InformationalResponse), event
        assert head is not None
        if self.h11.our_state is self.h11.their_state is h11.DONE:
            self.h11.start_next_cycle()
        return Answer(head.status_code, list(head.headers), body)

    async def ask(self, target: str = "/", **more: Any) -> Answer:
        """Send a request, and receive the response."""
        await self.request(target, **more)
        return await self.answer()

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        found, _ = self.h11.trailing_data
        found = bytes(found)
        try:
            while data := await self.stream.receive_some(65536):
                found += data
        except trio.BrokenResourceError:
            pass
        return found


Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Message, Receive, Send], Awaitable[None]]


def routes(**handlers: Handler) -> Handler:
    """An application with a handler for each first part of a path."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        name = scope["path"].strip("/").partition("/")[0] or "index"
        await handlers[name](scope, receive, send)

    return app


async def body_of(receive: Receive) -> bytes:
    """The whole body of a request."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        if not message["more_body"]:
            return body


async def reply(
    send: Send, body: bytes = b"", status: int = 200, headers: Any = (), *, more: bool = False
) -> None:
    """A response, all of it or its beginning."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})
