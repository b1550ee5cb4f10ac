"""The smallest application: every message comes back.

``wssup serve wssup.examples.echo:app``
"""

from __future__ import annotations

from trio_websocket import WebSocketRequest


async def app(request: WebSocketRequest) -> None:
    """Echo until the client leaves: the ConnectionClosed that get_message() raises then may go
    unhandled.
    """
    ws = await request.accept()
    while True:
        await ws.send_message(await ws.get_message())
