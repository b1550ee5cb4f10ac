"""trio-websocket's own server. ``python trio_websocket_app.py PORT``."""

import sys

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketServer,
)

connected: set[WebSocketConnection] = set()


async def handler(request: WebSocketRequest) -> None:
    """Every message comes back; one that begins with ``go`` goes to all."""
    ws = await request.accept()
    connected.add(ws)
    try:
        while True:
            message = await ws.get_message()
            if message.startswith("go"):
                for other in list(connected):
                    await other.send_message(message)
            else:
                await ws.send_message(message)
    except ConnectionClosed:
        pass
    finally:
        connected.discard(ws)


async def main() -> None:
    """Serve until killed."""
    listeners = await trio.open_tcp_listeners(int(sys.argv[1]), host="127.0.0.1", backlog=4096)
    server = WebSocketServer(handler, listeners)
    await server.run()


trio.run(main)
