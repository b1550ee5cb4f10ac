"""A room: what one says, all hear who are connected to the same worker.

``wssup serve wssup.examples.room:app``
"""

from __future__ import annotations

import wssup


class Room:
    """An event-style application: plain hooks, no task for anybody."""

    def __init__(self) -> None:
        self._people: set[wssup.Connection] = set()

    def on_connect(self, ws: wssup.Connection) -> None:
        """Let everybody know."""
        self._people.add(ws)
        self._tell(f"{ws.id} is here, {len(self._people)} in the room")

    def on_receive(self, ws: wssup.Connection, data: str | bytes) -> None:
        """Pass on what was said; what is not text is not said aloud."""
        if isinstance(data, str):
            self._tell(f"{ws.id}: {data}")

    def on_disconnect(self, ws: wssup.Connection, code: int) -> None:
        """Let the others know."""
        self._people.discard(ws)
        self._tell(f"{ws.id} has left ({code})")

    def on_suspend(self, ws: wssup.Connection) -> None:
        """It moves to another worker, and takes its place in the room there."""
        self._people.discard(ws)

    def on_resume(self, ws: wssup.Connection) -> None:
        """It comes from another worker; nobody needs to know."""
        self._people.add(ws)

    def _tell(self, text: str) -> None:
        # False for those who are gone or do not take what they are sent: they miss it.
        for person in self._people:
            person.send_nowait(text)


app = Room()
