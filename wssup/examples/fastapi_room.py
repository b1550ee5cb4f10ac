"""A room for FastAPI, written for uvicorn: what one says, all hear who are in it.

``uvicorn wssup.examples.fastapi_room:app`` runs it, with one worker: the room is a set of
WebSockets then. ``wssup serve wssup.examples.fastapi_room:app --worker uvicorn --asgi-resumable``
runs it, too, with as many workers as there are processors: the room is a topic, and who is in it
stays through a reload. Either way the page is on port 8000, beside the WebSockets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse

import wssup

#: What it is deployed as; the page shows it.
VERSION: Final = "1"
_PAGE: Final = Path(__file__).with_suffix(".html").read_text()
_Name = Annotated[str, Query(min_length=1, max_length=40)]
#: The code of a WebSocket that lives on in another worker; there its handler is called again.
_MOVED: Final = 1012

app = FastAPI()


class Room:
    """Those who are here, if there is only one worker."""

    def __init__(self) -> None:
        self._people: set[WebSocket] = set()

    def enter(self, ws: WebSocket, topic: str) -> None:
        """Let somebody hear what is said."""
        extension = of_wssup(ws)
        if extension is None:
            self._people.add(ws)
        elif not extension["resumed"]:
            # What it is subscribed to moves with a connection.
            extension["subscribe"](topic)

    def leave(self, ws: WebSocket) -> None:
        """A subscription ends with its connection."""
        self._people.discard(ws)

    async def say(self, ws: WebSocket, topic: str, text: str) -> None:
        """Let all hear it."""
        if of_wssup(ws) is not None:
            wssup.publish(topic, text)
            return
        for person in list(self._people):
            if person.query_params.get("room", "lobby") == topic:
                await person.send_text(text)


def of_wssup(ws: WebSocket) -> dict[str, Any] | None:
    """What wssup has to say of a WebSocket; ``None`` in other servers."""
    extensions: dict[str, Any] = ws.scope.get("extensions") or {}
    return extensions.get("wssup")


room = Room()


@app.get("/")
async def page() -> HTMLResponse:
    """The page that people see."""
    return HTMLResponse(_PAGE)


@app.websocket("/ws")
async def talk(ws: WebSocket, name: _Name, topic: Annotated[_Name, Query(alias="room")]) -> None:
    """One person: in, until it leaves."""
    await ws.accept()
    room.enter(ws, topic)
    extension = of_wssup(ws)
    resumed = extension is not None and extension["resumed"]
    await ws.send_text(f"served {VERSION} {os.getpid()} {int(resumed)}")
    if not resumed:
        await room.say(ws, topic, f"* {name} comes in")
    moved = False
    try:
        while True:
            await room.say(ws, topic, f"{name}: {await ws.receive_text()}")
    except WebSocketDisconnect as end:
        moved = end.code == _MOVED
    finally:
        room.leave(ws)
        if not moved:
            await room.say(ws, topic, f"* {name} leaves")
