"""websockets with its ``broadcast`` in one process. ``python topics_websockets.py PORT``."""

import logging
import os
import sys
from collections import defaultdict

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

subscribers: dict[str, set[ServerConnection]] = defaultdict(set)


async def handler(ws: ServerConnection) -> None:
    """``sub TOPIC``, ``pub TOPIC TEXT``, and who serves whom."""
    topics = []
    try:
        async for message in ws:
            what, _, rest = str(message).partition(" ")
            if what == "pub":
                topic, _, text = rest.partition(" ")
                broadcast(subscribers[topic], text)
                continue
            if what == "sub":
                subscribers[rest].add(ws)
                topics.append(rest)
            await ws.send(f"ok {os.getpid()}")
    finally:
        for topic in topics:
            subscribers[topic].discard(ws)


async def main() -> None:
    """Serve until killed."""
    async with serve(
        handler, "127.0.0.1", int(sys.argv[1]), backlog=4096, compression=None
    ) as server:
        await server.serve_forever()


# A traceback for each client that resets its connection would cost more than serving it.
logging.getLogger("websockets").setLevel(logging.CRITICAL)
uvloop.run(main())
