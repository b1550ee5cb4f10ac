"""Applications of asyncio frameworks do the same under ``wssup serve --worker uvicorn`` as under
uvicorn alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.typing import Subprotocol

from tests.harness import processes
from tests.harness.asgi_sides import PATIENCE, SIDES, asked, got, opened, served
from tests.harness.instance import Instance
from tests.harness.raw import Raw

Start = Callable[..., Instance]

FASTAPI = """\
import asyncio
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi import WebSocketDisconnect, WebSocketException

left = []

@asynccontextmanager
async def lifespan(app):
    yield {"queue": asyncio.Queue()}

app = FastAPI(lifespan=lifespan)

def token(ws: WebSocket, token: str = ""):
    if token == "bad":
        raise WebSocketException(code=1008, reason="bad token")
    return token

@app.get("/left")
async def who_left():
    return left

@app.api_route("/echo", methods=["GET", "POST", "HEAD"])
async def echo(request: Request):
    scope = request.scope
    return {
        "method": scope["method"], "path": scope["path"], "raw_path": str(scope["raw_path"]),
        "query": str(scope["query_string"]), "http": scope["http_version"],
        "scheme": scope["scheme"], "root_path": scope["root_path"],
        "headers": [[str(n), str(v)] for n, v in scope["headers"]],
        "body": str(await request.body()),
    }

@app.websocket("/scope/{name}")
async def show(ws: WebSocket):
    scope = ws.scope
    await ws.accept(subprotocol=(ws.scope["subprotocols"] or [None])[0],
                    headers=[(b"x-own", b"1"), (b"set-cookie", b"a=b")])
    await ws.send_json({
        "path": scope["path"], "raw_path": str(scope["raw_path"]),
        "query": str(scope["query_string"]), "scheme": scope["scheme"],
        "http": scope["http_version"], "root_path": scope["root_path"],
        "subprotocols": list(scope["subprotocols"]), "params": ws.path_params,
        "asgi": scope["asgi"]["version"], "queue": isinstance(ws.state.queue, asyncio.Queue),
        "headers": sorted([str(n), str(v)] for n, v in scope["headers"]),
        "client": len(scope["client"]), "server": scope["server"][0],
    })
    await ws.close(4001, "enough")

@app.websocket("/ws")
async def talk(ws: WebSocket, token: str = Depends(token)):
    await ws.accept()
    try:
        while True:
            event = await ws.receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event["code"])
            if event.get("text") is not None:
                await ws.send_text(event["text"] + token)
            else:
                await ws.send_bytes(event["bytes"][::-1])
    except WebSocketDisconnect as end:
        left.append(end.code)

@app.websocket("/no")
async def refuse(ws: WebSocket):
    await ws.close(4003)

@app.websocket("/denied")
async def deny(ws: WebSocket):
    await ws.send_denial_response(Response("not you", 418, {"x-why": "teapot"}))

@app.websocket("/unauthorised")
async def unauthorised(ws: WebSocket):
    raise HTTPException(401, "who are you?")

@app.websocket("/raises")
async def raises(ws: WebSocket):
    await ws.accept()
    raise RuntimeError("of its own")

@app.websocket("/returns")
async def returns(ws: WebSocket):
    await ws.accept()
"""

#: Close codes that uvicorn's websockets-sansio has otherwise: of a handler that raised, or returned
#: without closing (it cuts the connection: 1006), and what a handler is told of a client that has
#: vanished (1005).
OTHERWISE = {"/raises": 1011, "/returns": 1000, "vanished": 1006}

CHANNELS = """\
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="test", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path

def index(request):
    return JsonResponse({"method": request.method, "body": request.body.decode(), "q": request.GET})

async def asynchronous(request):
    return JsonResponse({"secure": request.is_secure(), "host": request.get_host()})

def streamed(request):
    return StreamingHttpResponse(f"line {number}" for number in range(3))

urlpatterns = [path("", index), path("async", asynchronous), path("stream", streamed)]

class Room(AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        if self.room == "closed":
            await self.close(4003)
            return
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept("chat" if "chat" in self.scope["subprotocols"] else None)

    async def receive_json(self, content):
        if content == "bye":
            await self.close(4000)
        else:
            await self.channel_layer.group_send(self.room, {"type": "said", "what": content})

    async def said(self, event):
        await self.send_json(event["what"])

    async def disconnect(self, code):
        if self.room != "closed":
            await self.channel_layer.group_discard(self.room, self.channel_name)
            await self.channel_layer.group_send(self.room, {"type": "said", "what": f"left {code}"})

class Threaded(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=text_data.upper())

app = ProtocolTypeRouter({
    "http": get_asgi_application(),
    "websocket": URLRouter([
        path("room/<room>", Room.as_asgi()), path("threaded", Threaded.as_asgi()),
    ]),
})
"""


def _end(ws: ClientConnection) -> tuple[int | None, str | None]:
    """How the server closed it."""
    with pytest.raises(ConnectionClosed):
        ws.recv(PATIENCE)
    return ws.close_code, ws.close_reason


def _refused(address: str, path: str) -> tuple[int, bytes, str | None]:
    """How a handshake was refused."""
    with pytest.raises(InvalidStatus) as refusal:
        opened(address, path)
    answer = refusal.value.response
    return answer.status_code, answer.body or b"", answer.headers.get("x-why")


def _fastapi(address: str) -> dict[str, Any]:
    """All that a client sees."""
    seen: dict[str, Any] = {}
    host = {"Host": "test", "Accept_Encoding": "none"}
    for path in ("/echo", "/echo?a=b&c=%20d", "/%65cho"):
        seen[path] = got(address, path, **host)
    seen["post"] = got(address, "/echo", "POST", b"body", **host)
    seen["chunked"] = got(address, "/echo", "POST", (part for part in (b"a", b"b")), **host)
    seen["head"] = got(address, "/echo", "HEAD", **host)
    seen["missing"] = got(address, "/missing", **host)
    seen["wrong method"] = got(address, "/echo", "DELETE", **host)
    chosen = [Subprotocol("b"), Subprotocol("a")]
    with opened(
        address,
        "/scope/%C3%A9%20?x=1",
        subprotocols=chosen,
        user_agent_header=None,
        compression=None,
    ) as ws:
        shown = json.loads(ws.recv(PATIENCE))
        # What differs from one connection to the next.
        differing = {"b'sec-websocket-key'", "b'host'"}
        shown["headers"] = [pair for pair in shown["headers"] if pair[0] not in differing]
        assert ws.response is not None
        own = [ws.response.headers.get(name) for name in ("x-own", "set-cookie")]
        seen["scope"] = (shown, own, ws.subprotocol, _end(ws))
    with opened(address, "/ws?token=!") as ws:
        ws.send("text")
        ws.send(b"\x00\x01\x02")
        ws.send(["in ", "parts"])
        seen["messages"] = [ws.recv(PATIENCE) for _ in range(3)]
        ws.close(3005, "goodbye")
    with opened(address, "/ws") as ws:
        ws.close()
    processes.until(lambda: len(asked(address, "/left")) == 2, 20, "two goodbyes")
    seen["left"] = asked(address, "/left")
    seen["refusals"] = [
        _refused(address, path)
        for path in ("/no", "/denied", "/unauthorised", "/ws?token=bad", "/0")
    ]
    for path in ("/raises", "/returns"):
        with opened(address, path) as ws:
            seen[path] = _end(ws)[0]
    with Raw(address) as client:
        client.open("/ws")
    processes.until(lambda: len(asked(address, "/left")) == 3, 20, "another goodbye")
    seen["vanished"] = asked(address, "/left")[-1]
    return seen


def _channels(address: str) -> dict[str, Any]:
    """All that a client sees."""
    seen: dict[str, Any] = {}
    host = {"Host": "test"}
    for path in ("/?a=1", "/async", "/stream", "/missing"):
        seen[path] = got(address, path, **host)
    seen["post"] = got(address, "/", "POST", b"body", **host)
    chat = [Subprotocol("chat")]
    with (
        opened(address, "/room/one", subprotocols=chat) as ada,
        opened(address, "/room/one") as bob,
    ):
        seen["subprotocols"] = (ada.subprotocol, bob.subprotocol)
        ada.send('"hello"')
        seen["said"] = [ada.recv(PATIENCE), bob.recv(PATIENCE)]
        ada.close(3001)
        seen["left"] = bob.recv(PATIENCE)
        bob.send('"bye"')
        seen["closed"] = _end(bob)
    with opened(address, "/threaded") as ws:
        ws.send("loud")
        seen["threaded"] = ws.recv(PATIENCE)
    seen["refused"] = _refused(address, "/room/closed")
    return seen


@pytest.mark.parametrize(
    ("source", "client"), [(FASTAPI, _fastapi), (CHANNELS, _channels)], ids=["fastapi", "channels"]
)
def test_clients_see_no_difference(
    start: Start, tmp_path: Path, source: str, client: Callable[[str], dict[str, Any]]
) -> None:
    """A FastAPI and a Django Channels application do the same for their clients in all respects
    that are looked at: scopes, HTTP requests and answers, messages, refusals, and who closes how,
    but for three close codes.
    """
    found = {}
    for side in SIDES:
        with served(side, start, tmp_path, source) as address:
            found[side] = client(address)
    assert found["wssup"].keys() == found["uvicorn"].keys()
    for what, seen in found["uvicorn"].items():
        assert found["wssup"][what] == OTHERWISE.get(what, seen), what
