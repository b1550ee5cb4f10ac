"""The task style of wssup: a handler, and a task, per connection. Echo."""

from __future__ import annotations

from trio_websocket import WebSocketRequest


async def app(request: WebSocketRequest) -> None:
    """Every message comes back, until the client leaves."""
    ws = await request.accept()
    while True:
        await ws.send_message(await ws.get_message())
