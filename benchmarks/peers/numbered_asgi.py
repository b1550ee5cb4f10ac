"""An ASGI application: echo, with the number of the message and the process that answers."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Every text comes back after them. The number has nowhere to go in a reload."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    count = 0
    while (event := await receive())["type"] == "websocket.receive":
        count += 1
        text = f"{count:08} {os.getpid():08} {event['text']}"
        await send({"type": "websocket.send", "text": text})
