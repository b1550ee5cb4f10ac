"""Starlette on trio: a page and WebSockets on one port, with anyio for what waits.

``wssup serve wssup.examples.starlette_rooms:app --asgi-resumable`` serves both on port 8000:
``curl localhost:8000/rooms`` says how many are in which room, and everybody who connects to
``/rooms/NAME`` hears what is said there.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import wssup

_ROOMS = ("lobby", "kitchen", "garden")


async def rooms(request: Request) -> JSONResponse:  # noqa: ARG001 - Starlette's
    """How many are in each room, in all workers."""
    return JSONResponse({room: wssup.subscribers(f"room:{room}") for room in _ROOMS})


async def talk(ws: WebSocket) -> None:
    """One person in a room."""
    room = ws.path_params["room"]
    if room not in _ROOMS:
        await ws.close()  # before it is accepted: status 403
        return
    await ws.accept()
    own: dict[str, Any] = ws.scope["extensions"]["wssup"]
    # What it is subscribed to, and this dictionary, move with it to another worker.
    if not own["resumed"]:
        own["subscribe"](f"room:{room}")
    async for text in ws.iter_text():
        own["state"]["said"] = own["state"].get("said", 0) + 1
        wssup.publish(f"room:{room}", f"{own['id']} ({own['state']['said']}): {text}")


app = Starlette(routes=[Route("/rooms", rooms), WebSocketRoute("/rooms/{room}", talk)])
