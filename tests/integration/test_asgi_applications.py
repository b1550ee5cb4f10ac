"""Applications that were written for other servers run on trio as they are: the same is said to
them here and there, and they say the same.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.harness import processes
from tests.harness.asgi_sides import PATIENCE, UVICORN, asked, elsewhere, got, opened
from tests.harness.instance import Instance
from tests.harness.oracle_sockets import counts

Start = Callable[..., Instance]

STARLETTE: Final = """\
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

ended = []


@asynccontextmanager
async def lifespan(app):
    async with anyio.create_task_group():
        yield {"motto": "hello"}


async def index(request):
    return JSONResponse({"motto": request.state.motto, "q": request.query_params.getlist("q")})


async def size(request):
    total = 0
    async for part in request.stream():
        total += len(part)
    return JSONResponse({"size": total})


async def stream(request):
    async def parts():
        for number in range(5):
            await anyio.sleep(0.001)
            yield f"part {number} "
    return StreamingResponse(parts())


async def large(request):
    return Response(bytes(2_000_000), headers={"X-Kind": "zeros"})


async def broken(request):
    raise ValueError("of its own")


async def later(request):
    async def note():
        await anyio.sleep(0.01)
        ended.append("later")
    return PlainTextResponse("soon", background=BackgroundTask(note))


async def endings(request):
    return JSONResponse(ended)


class Echo(WebSocketEndpoint):
    async def on_connect(self, websocket):
        offered = websocket.scope["subprotocols"]
        chosen = offered[-1] if offered else None
        await websocket.accept(subprotocol=chosen, headers=[(b"x-a", b"b")])

    async def on_receive(self, websocket, data):
        text = data.decode() if isinstance(data, bytes) else data
        if text == "close":
            await websocket.close(4321, "as you like")
        elif isinstance(data, bytes):
            await websocket.send_bytes(data)
        else:
            await websocket.send_text(f"{websocket.state.motto} {data}")

    async def decode(self, websocket, message):
        return message["text"] if message.get("text") is not None else message["bytes"]

    async def on_disconnect(self, websocket, code):
        ended.append(code)


async def refuse(websocket):
    await websocket.close()


async def deny(websocket):
    await websocket.send_denial_response(PlainTextResponse("not you", 418))


async def names(request, call_next):
    response = await call_next(request)
    response.headers["X-Through"] = "middleware"
    return response


app = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(BaseHTTPMiddleware, dispatch=names)],
    routes=[
        Route("/", index),
        Route("/size", size, methods=["POST"]),
        Route("/stream", stream),
        Route("/large", large),
        Route("/broken", broken),
        Route("/later", later),
        Route("/endings", endings),
        WebSocketRoute("/echo", Echo),
        WebSocketRoute("/refuse", refuse),
        WebSocketRoute("/deny", deny),
    ],
)
"""

FASTAPI: Final = """\
from contextlib import asynccontextmanager

import anyio
from fastapi import BackgroundTasks, FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

ended = []


@asynccontextmanager
async def lifespan(app):
    yield {"motto": "hello"}

app = FastAPI(lifespan=lifespan)


@app.get("/")
def index(request: Request):  # in a thread
    return {"motto": request.state.motto, "q": request.query_params.getlist("q")}


@app.post("/size")
async def size(request: Request):
    return {"size": len(await request.body())}


@app.get("/stream")
async def stream():
    async def parts():
        for number in range(5):
            await anyio.sleep(0.001)
            yield f"part {number} "
    return StreamingResponse(parts())


@app.get("/large")
async def large():
    return Response(bytes(2_000_000), headers={"X-Kind": "zeros"})


@app.get("/broken")
async def broken():
    raise ValueError("of its own")


@app.get("/later")
async def later(background: BackgroundTasks):
    background.add_task(ended.append, "later")
    return Response("soon")


@app.get("/endings")
async def endings():
    return ended


@app.websocket("/echo")
async def echo(websocket: WebSocket):
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol=offered[-1] if offered else None, headers=[(b"x-a", b"b")])
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            if message.get("text") == "close":
                await websocket.close(4321, "as you like")
            elif message.get("text") is not None:
                await websocket.send_text(f"{websocket.state.motto} {message['text']}")
            else:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect as error:
        ended.append(error.code)


@app.websocket("/refuse")
async def refuse(websocket: WebSocket):
    await websocket.close()


@app.websocket("/deny")
async def deny(websocket: WebSocket):
    await websocket.send_denial_response(Response("not you", 418))
"""

QUART: Final = """\
import trio
from quart import Response, abort, jsonify, request, websocket
from quart_trio import QuartTrio

ended = []
app = QuartTrio(__name__)


@app.before_serving
async def start():
    app.config["MOTTO"] = "hello"


@app.route("/")
async def index():
    return jsonify({"motto": app.config["MOTTO"], "q": request.args.getlist("q")})


@app.post("/size")
async def size():
    return jsonify({"size": len(await request.get_data())})


@app.route("/stream")
async def stream():
    async def parts():
        for number in range(5):
            await trio.sleep(0.001)
            yield f"part {number} ".encode()
    return parts()


@app.route("/large")
async def large():
    return Response(bytes(2_000_000), headers={"X-Kind": "zeros"})


@app.route("/broken")
async def broken():
    raise ValueError("of its own")


@app.route("/later")
async def later():
    async def note():
        ended.append("later")
    app.add_background_task(note)
    return "soon"


@app.route("/endings")
async def endings():
    return jsonify(ended)


@app.websocket("/echo")
async def echo():
    offered = websocket.requested_subprotocols
    await websocket.accept(subprotocol=offered[-1] if offered else None, headers={"x-a": "b"})
    try:
        while True:
            data = await websocket.receive()
            if data == "close":
                await websocket.close(4321, "as you like")
            elif isinstance(data, str):
                await websocket.send(f"{app.config['MOTTO']} {data}")
            else:
                await websocket.send(data)
    finally:
        ended.append("over")


@app.websocket("/refuse")
async def refuse():
    await websocket.close(1000)


@app.websocket("/deny")
async def deny():
    abort(418)
"""

#: Each with the server that it was written for.
APPLICATIONS: Final = {
    "starlette": (STARLETTE, UVICORN),
    "fastapi": (FASTAPI, UVICORN),
    "quart-trio": (QUART, ["hypercorn", "application:app", "-w", "0", "-k", "trio", "--bind"]),
}


def conversation(address: str) -> dict[str, Any]:
    """Everything that an application of this kind is asked, and what it says."""
    said: dict[str, Any] = {}
    said["index"] = asked(address, "/?q=1&q=%C3%A4")
    said["head"] = got(address, "/", "HEAD")
    said["size"] = got(address, "/size", "POST", bytes(300_000))
    said["chunks"] = got(address, "/size", "POST", iter([b"abc", bytes(100_000), b"d"]))
    said["nothing"] = got(address, "/size", "POST")
    said["stream"] = got(address, "/stream")
    status, body = got(address, "/large")
    said["large"] = status, len(body)
    said["missing"] = got(address, "/no/such/thing")[0]
    said["not allowed"] = got(address, "/size")[0]
    said["broken"] = got(address, "/broken")[0]
    said["later"] = got(address, "/later")
    said["kept"] = _kept(address)
    said["websocket"] = _websocket(address)
    said["refused"] = [_refused(address, path) for path in ("/refuse", "/deny", "/no/such/socket")]
    # It tells of the ends of its connections when it has come to them.
    processes.until(lambda: len(asked(address, "/endings")) == 4, PATIENCE, "all endings")
    said["endings"] = sorted(asked(address, "/endings"), key=str)
    return said


def _kept(address: str) -> list[Any]:
    """Several requests on one connection."""
    client = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        client.connect()
        port = client.sock.getsockname()[1]
        said: list[Any] = []
        for path in ("/", "/stream", "/no/such/thing", "/large", "/"):
            client.request("GET", path)
            answer = client.getresponse()
            said.append((answer.status, len(answer.read()), answer.getheader("X-Kind")))
            assert client.sock.getsockname()[1] == port
        return said
    finally:
        client.close()


def _websocket(address: str) -> list[Any]:
    with opened(address, "/echo", subprotocols=["v1", "v2"]) as one:
        assert one.response is not None
        said = [one.subprotocol, one.response.headers["x-a"]]
        for message in ("text", "\N{SNOWMAN}" * 1000, b"bytes"):
            one.send(message)
            said.append(one.recv(PATIENCE))
    with opened(address, "/echo") as two:
        said.append(two.subprotocol)
    with opened(address, "/echo") as three:
        three.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            three.recv(PATIENCE)
        assert caught.value.rcvd is not None
        said += [caught.value.rcvd.code, caught.value.rcvd.reason]
    return said


def _refused(address: str, path: str) -> Any:
    with pytest.raises(InvalidStatus) as caught, opened(address, path):
        pass
    return caught.value.response.status_code


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_same_here_and_there(start: Start, tmp_path: Path, name: str) -> None:
    """HTTP in all its forms, WebSockets and the lifespan of an application are the same under
    ``wssup serve`` as under the server that it was written for, on one port, without a word to
    wssup of what it is. Here everything is counted, and its own errors are the only ones.
    """
    source, command = APPLICATIONS[name]
    (home := tmp_path / "elsewhere").mkdir()
    with elsewhere(home, source, command) as address:
        there = conversation(address)
    instance = start(source, workers=1)
    instance.running()
    here = conversation(instance.address())
    assert here == there
    found = counts(instance)
    assert found.http_errors == 1  # "broken"
    assert found.closed == 3
    # Quart keeps its exceptions to itself.
    assert found.handler_errors == (name != "quart-trio")
