"""The event style of wssup: clients subscribe to topics, and publish to them."""

from __future__ import annotations

import os
from typing import Any

import wssup


class Topics:
    """``sub TOPIC``, ``pub TOPIC TEXT``, and who serves whom."""

    def on_receive(self, ws: Any, data: str | bytes) -> None:
        """Do what the client says."""
        what, _, rest = str(data).partition(" ")
        if what == "pub":
            topic, _, text = rest.partition(" ")
            wssup.publish(topic, text)
            return
        if what == "sub":
            ws.subscribe(rest)
        ws.send_nowait(f"ok {os.getpid()}")


app = Topics()
