"""websockets on asyncio and uvloop. ``python websockets_app.py PORT``."""

import logging
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

connected: set[ServerConnection] = set()


async def handler(ws: ServerConnection) -> None:
    """Every message comes back; one that begins with ``go`` goes to all."""
    connected.add(ws)
    try:
        async for message in ws:
            if message.startswith("go"):
                broadcast(connected, message)
            else:
                await ws.send(message)
    finally:
        connected.discard(ws)


async def main() -> None:
    """Serve until killed."""
    async with serve(
        handler, "127.0.0.1", int(sys.argv[1]), backlog=4096, compression=None
    ) as server:
        await server.serve_forever()


# A traceback for each client that resets its connection would cost more than serving it.
logging.getLogger("websockets").setLevel(logging.CRITICAL)
uvloop.run(main())
