"""wssup: runs WebSocket applications on Linux.

The API for applications. An application is a handler written for
``trio_websocket.serve_websocket``::

    async def app(request):
        ws = await request.accept()
        while True:
            await ws.send_message(await ws.get_message())

served by ``wssup serve module:app``.
"""

from __future__ import annotations

from wssup.identity import WorkerInfo, current_worker
from wssup.version import __version__

__all__ = ["WorkerInfo", "__version__", "current_worker"]
