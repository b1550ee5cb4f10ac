"""What the continuity oracle talks to: an application in four styles that numbers its answers from
``ws.state``.
"""

from __future__ import annotations

from typing import Final

_COMMON = '''\
import os
from pathlib import Path

import trio
import wssup

journal = Path(__file__).with_name("journal")


def note(what, ws):
    """One line for each thing that happens to a connection; a short write appends it whole."""
    worker = wssup.current_worker()
    with journal.open("ab", buffering=0) as file:
        file.write(f"{what} {ws.id} {worker.generation} {os.getpid()}\\n".encode())


def numbered(ws, data):
    number = ws.state["answers"]
    ws.state["answers"] = number + 1
    head = f"{number} {wssup.current_worker().generation} {os.getpid()} "
    return head + data if isinstance(data, str) else head.encode() + data
'''

#: Plain hooks of an object.
EVENT: Final = (
    _COMMON
    + """

class App:
    def on_connect(self, ws):
        assert not ws.resumed
        ws.state["answers"] = 0
        note("connect", ws)

    def on_suspend(self, ws):
        note("suspend", ws)

    def on_resume(self, ws):
        assert ws.resumed
        note("resume", ws)

    def on_receive(self, ws, data):
        if not ws.send_nowait(numbered(ws, data)):
            raise RuntimeError("an answer was not taken")

    def on_disconnect(self, ws, code):
        note("disconnect", ws)

app = App
"""
)

#: Async hooks of an object, which give way between counting and answering.
ASYNC: Final = EVENT.replace("    def on_", "    async def on_").replace(
    """\
        if not ws.send_nowait(numbered(ws, data)):
            raise RuntimeError("an answer was not taken")
""",
    """\
        answer = numbered(ws, data)
        await trio.lowlevel.checkpoint()
        await ws.send_message(answer)
""",
)

#: A task per connection, which would close it if it were told to.
TASK: Final = (
    _COMMON
    + """

@wssup.resumable
async def app(request):
    ws = await request.accept()
    assert request.resumed is ws.resumed
    if not ws.resumed:
        ws.state["answers"] = 0
    note("resume" if ws.resumed else "connect", ws)
    try:
        async with ws:
            while True:
                answer = numbered(ws, await ws.get_message())
                await trio.lowlevel.checkpoint()
                await ws.send_message(answer)
    except trio.Cancelled:
        note("suspend", ws)
        raise
    except wssup.ConnectionMoved:
        note("wrong", ws)
    except trio_websocket.ConnectionClosed:
        note("disconnect", ws)
    finally:
        with trio.CancelScope(shield=True):
            await ws.aclose()
"""
).replace("import trio\n", "import trio\nimport trio_websocket\n")

#: A Starlette application, in whose eyes a connection that moves is closed and opened.
ASGI: Final = (
    _COMMON
    + """

async def talk(websocket):
    extension = websocket.scope["extensions"]["wssup"]
    ws = extension["connection"]
    await websocket.accept()
    if not extension["resumed"]:
        extension["state"]["answers"] = 0
    note("resume" if extension["resumed"] else "connect", ws)
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            note("suspend" if event["code"] == 1012 else "disconnect", ws)
            await websocket.close()
            return
        answer = numbered(ws, event["text"] if "text" in event else event["bytes"])
        await trio.lowlevel.checkpoint()
        if isinstance(answer, str):
            await websocket.send_text(answer)
        else:
            await websocket.send_bytes(answer)


app = wssup.resumable(Starlette(routes=[WebSocketRoute("/{rest:path}", talk)]))
"""
).replace(
    "import wssup\n",
    "import wssup\nfrom starlette.applications import Starlette\n"
    "from starlette.routing import WebSocketRoute\n",
)

STYLES: Final = {"event": EVENT, "async": ASYNC, "task": TASK, "asgi": ASGI}
