"""uvicorn with websockets-sansio, uvloop and httptools. ``python uvicorn_app.py PORT``."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

connected: set[Send] = set()


async def app(_scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Every message comes back; one that begins with ``go`` goes to all."""
    await receive()
    await send({"type": "websocket.accept"})
    connected.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            text = event["text"]
            if text.startswith("go"):
                await asyncio.gather(
                    *[other({"type": "websocket.send", "text": text}) for other in connected]
                )
            else:
                await send({"type": "websocket.send", "text": text})
    finally:
        connected.discard(send)


uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    backlog=4096,
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    lifespan="off",
    access_log=False,
    log_level="warning",
)
