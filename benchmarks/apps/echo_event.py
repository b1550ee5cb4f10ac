"""The event style of wssup: no task at all. Echo."""

from __future__ import annotations

from typing import Any


class Echo:
    """Every message comes back."""

    def on_receive(self, ws: Any, data: str | bytes) -> None:
        """Answer at once."""
        ws.send_nowait(data)


app = Echo()
