"""The task style of wssup: a text that begins with ``go`` goes to everybody."""

from __future__ import annotations

from trio_websocket import WebSocketConnection, WebSocketRequest

connected: set[WebSocketConnection] = set()


async def app(request: WebSocketRequest) -> None:
    """Tell everybody, or echo, until the client leaves."""
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
    finally:
        connected.discard(ws)
