"""WebSocket applications that raise, or that break the protocol of ASGI."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.harness import raw
from tests.harness.http_client import Handler, Message, Receive, Send, routes
from tests.harness.served import served
from tests.unit.server.peer import OFF, Peer
from tests.unit.server.test_asgi_websocket import echo


async def _returns(scope: Message, receive: Receive, send: Send) -> None:
    await receive()


def sends(*messages: Message) -> Handler:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)
        await trio.sleep_forever()

    return app


ACCEPT: Message = {"type": "websocket.accept"}
EARLY = {
    "raises": sends({}),
    "returns": _returns,
    "early": sends({"type": "websocket.send", "text": "x"}),
    "unknown": sends({"type": "websocket.hello"}),
    "subprotocol": sends({**ACCEPT, "subprotocol": "not proposed"}),
    "header": sends({**ACCEPT, "headers": [(b"x", b"a\r\nb")]}),
    "status": sends({"type": "websocket.http.response.start", "status": 101, "headers": []}),
    "denial": sends(
        {"type": "websocket.http.response.start", "status": 400, "headers": []},
        {"type": "websocket.http.response.body", "body": bytes(2 << 20), "more_body": True},
    ),
    "mixed": sends({"type": "websocket.http.response.start", "status": 400}, ACCEPT),
}
LATE = {
    "twice": sends(ACCEPT, ACCEPT),
    "nothing": sends(ACCEPT, {"type": "websocket.send"}),
    "number": sends(ACCEPT, {"type": "websocket.send", "text": 5}),
    "code": sends(ACCEPT, {"type": "websocket.close", "code": 1006}),
    "http": sends(ACCEPT, {"type": "http.response.start", "status": 200}),
}


async def test_applications_that_fail(tmp_path: Path) -> None:
    """An application that raises, or breaks the protocol, before it has accepted is a 500; later
    it is a close with 1011. Each is counted, and others live on.
    """
    app = routes(index=echo, **EARLY, **LATE)
    async with served(tmp_path, app, heartbeat=OFF) as server:
        for name in EARLY:
            stream, answer = await server.send(raw.request(f"/{name}"))
            await stream.aclose()
            assert answer.startswith(b"HTTP/1.1 500 "), (name, answer)
        for name in LATE:
            async with await Peer.open(server, f"/{name}") as peer:
                assert await peer.code() == 1011, name
        await server.works()
        counts = await server.until(lambda c: not c.open)
        assert counts.handshake_failures_by_reason["error"] == len(EARLY)
        assert counts.closed_by_reason["error"] == len(LATE)
        assert counts.handler_errors == len(EARLY) + len(LATE)
