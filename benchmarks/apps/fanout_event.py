"""The event style of wssup: a text that begins with ``go`` goes to everybody."""

from __future__ import annotations

from typing import Any


class FanOut:
    """A room that all are in."""

    def __init__(self) -> None:
        self.connected: set[Any] = set()

    def on_connect(self, ws: Any) -> None:
        """Somebody came."""
        self.connected.add(ws)

    def on_disconnect(self, ws: Any, _code: int) -> None:
        """Somebody left."""
        self.connected.discard(ws)

    def on_receive(self, ws: Any, data: str | bytes) -> None:
        """Tell everybody, or echo."""
        if data[:2] == "go":
            for other in self.connected:
                other.send_nowait(data)
        else:
            ws.send_nowait(data)


app = FanOut()
