"""uvicorn, and a loop over the subscribers in its process. ``python topics_uvicorn.py PORT``."""

import os
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

subscribers: dict[str, set[Send]] = defaultdict(set)


async def app(_scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """``sub TOPIC``, ``pub TOPIC TEXT``, and who serves whom."""
    await receive()
    await send({"type": "websocket.accept"})
    topics = []
    try:
        while (event := await receive())["type"] == "websocket.receive":
            what, _, rest = event["text"].partition(" ")
            if what == "pub":
                topic, _, text = rest.partition(" ")
                # Quicker than a task for each: nobody is slow here.
                message = {"type": "websocket.send", "text": text}
                for other in list(subscribers[topic]):
                    await other(message)
                continue
            if what == "sub":
                subscribers[rest].add(send)
                topics.append(rest)
            await send({"type": "websocket.send", "text": f"ok {os.getpid()}"})
    finally:
        for topic in topics:
            subscribers[topic].discard(send)


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
