"""The settings about what an application is, and which event loop it runs on. Part of the table of
settings, and written like it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from wssup.config.forms import ROOT_PATH
from wssup.config.kinds import Choice, Flag
from wssup.config.spec import Spec

__all__ = ["AsgiResumable", "Factory", "Interface", "RootPath", "WorkerClass"]

Interface = Annotated[
    Literal["auto", "task", "event", "asgi"],
    Spec(
        Choice(("auto", "task", "event", "asgi")),
        "Application",
        "What the application is: a handler of requests, an object with hooks, or an ASGI 3 "
        "application; auto: what it looks like.",
    ),
]
Factory = Annotated[
    bool,
    Spec(
        Flag(),
        "Application",
        "Whether app names a function without parameters that returns the application.",
    ),
]
AsgiResumable = Annotated[
    bool,
    Spec(
        Flag(),
        "Application",
        "Whether the WebSockets of an ASGI application move to new workers: its handler ends "
        "with websocket.disconnect (1012) and begins there with websocket.connect again.",
    ),
]
RootPath = Annotated[
    str,
    Spec(
        ROOT_PATH,
        "Application",
        "The part of the path that a proxy cuts off, for ASGI applications.",
        default_text="none",
    ),
]
WorkerClass = Annotated[
    Literal["trio", "uvicorn"],
    Spec(
        Choice(("trio", "uvicorn")),
        "Application",
        "The event loop that workers run. uvicorn: asyncio, with uvloop if that is installed, for "
        "ASGI applications that need it; uvicorn serves their HTTP and lifespan.",
    ),
]
