"""The event style of wssup: echo, with the number of the message from ``ws.state``."""

from __future__ import annotations

import os
from typing import Any


class Numbered:
    """Every message comes back, after its number and the process that answers."""

    def on_connect(self, ws: Any) -> None:
        """Begin to count: what is in ``ws.state`` survives a reload."""
        ws.state["count"] = 0

    def on_receive(self, ws: Any, data: str | bytes) -> None:
        """Answer at once."""
        ws.state["count"] += 1
        ws.send_nowait(f"{ws.state['count']:08} {os.getpid():08} {data!s}")


app = Numbered()
