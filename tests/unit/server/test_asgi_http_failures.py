"""HTTP applications that raise, or that break the protocol of ASGI."""

from __future__ import annotations

from pathlib import Path

import h11
import pytest

from tests.harness.http_client import Http, Message, Receive, Send, reply, routes
from tests.harness.served import served
from tests.unit.server.peer import OFF


async def index(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, b"fine")


async def raises(scope: Message, receive: Receive, send: Send) -> None:
    raise LookupError("a secret")


async def raises_late(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, b"begun", more=True)
    raise LookupError("a secret")


async def silent(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def unfinished(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, b"begun", more=True)


async def short(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, b"abc", headers=[(b"content-length", b"5")])


async def long(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, b"abc", headers=[(b"content-length", b"2")])


async def splits(scope: Message, receive: Receive, send: Send) -> None:
    await reply(send, b"abc", headers=[(b"x", b"a\r\nSet-Cookie: b")])


async def text(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": "text"})


async def twice(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def out_of_turn(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b""})


async def informs(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 101, "headers": []})


async def test_applications_that_fail(tmp_path: Path) -> None:
    """An application that raises, or breaks the protocol, before its response has begun is a 500
    that says nothing of why; later the response is cut off, so that nobody takes it for whole. Each
    is counted, the connection ends, and others live on.
    """
    early = {
        "raises": raises,
        "silent": silent,
        "short": short,
        "long": long,
        "splits": splits,
        "text": text,
        "twice": twice,
        "turn": out_of_turn,
        "informs": informs,
    }
    late = {"raises_late": raises_late, "unfinished": unfinished}
    app = routes(index=index, **early, **late)
    async with served(tmp_path, app, heartbeat=OFF) as server:
        for name in early:
            async with await Http.connect(server) as client:
                answer = await client.ask(f"/{name}")
                assert (answer.status, answer.body) == (500, b"internal error\n"), name
                assert await client.rest() == b""
        for name in late:
            async with await Http.connect(server) as client:
                await client.request(f"/{name}")
                with pytest.raises(h11.RemoteProtocolError):
                    await client.answer()
        async with await Http.connect(server) as client:
            assert (await client.ask()).body == b"fine"
        counts = await server.ended(http=len(early) + len(late) + 1)
        assert counts.handler_errors == len(early) + len(late)
        assert counts.http_errors == len(early)
