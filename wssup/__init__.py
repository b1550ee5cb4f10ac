"""wssup: runs WebSocket applications on Linux.

The API for applications. An application is a handler written for
``trio_websocket.serve_websocket``::

    async def app(request):
        ws = await request.accept()
        while True:
            await ws.send_message(await ws.get_message())

or an object with hooks, which costs less per connection and per message::

    class Echo:
        def on_receive(self, ws, data):
            ws.send_nowait(data)

    app = Echo()

served by ``wssup serve module:app``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from wssup.identity import WorkerInfo, current_worker
from wssup.version import __version__

if TYPE_CHECKING:
    from wssup.application import resumable
    from wssup.server.connection import Connection
    from wssup.server.described import ConnectionMoved
    from wssup.server.request import Request
    from wssup.server.topics.api import position, presence, publish, subscribers
    from wssup.server.topics.subscription import Presence, Subscription, SubscriptionLimitError

__all__ = [
    "Connection",
    "ConnectionMoved",
    "Presence",
    "Request",
    "Subscription",
    "SubscriptionLimitError",
    "WorkerInfo",
    "__version__",
    "current_worker",
    "position",
    "presence",
    "publish",
    "resumable",
    "subscribers",
]

_LAZY = {
    "Connection": "wssup.server.connection",
    "ConnectionMoved": "wssup.server.described",
    "Presence": "wssup.server.topics.subscription",
    "Request": "wssup.server.request",
    "Subscription": "wssup.server.topics.subscription",
    "SubscriptionLimitError": "wssup.server.topics.subscription",
    "position": "wssup.server.topics.api",
    "presence": "wssup.server.topics.api",
    "publish": "wssup.server.topics.api",
    "resumable": "wssup.application",
    "subscribers": "wssup.server.topics.api",
}


def __getattr__(name: str) -> object:
    """The engine's types, imported when they are asked for: the master and the commands import this
    package too, and none of the engine.
    """
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LAZY[name]), name)
    # The next time it is found without this function, which takes longer than a publish() itself.
    globals()[name] = found
    return found
