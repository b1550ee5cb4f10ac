"""The task style of wssup: echo, with the number of the message from ``ws.state``."""

from __future__ import annotations

import os
from typing import Any

import wssup


@wssup.resumable
async def app(request: Any) -> None:
    """Every message comes back, after its number and the process that answers.

    After a reload this is called again in the new worker, for the connection that lives on.
    """
    ws = await request.accept()
    ws.state.setdefault("count", 0)
    while True:
        data = await ws.get_message()
        ws.state["count"] += 1
        await ws.send_message(f"{ws.state['count']:08} {os.getpid():08} {data}")
