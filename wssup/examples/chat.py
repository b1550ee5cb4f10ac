"""A chat: rooms that are one room on all workers, with those who are in it, and what was said.

``wssup serve wssup.examples.chat:app --workers 2 --history 100`` serves the WebSockets on port
8000 and the page on the next one (8001; PAGE_PORT and PAGE_HOST say otherwise). Open it twice, run
``wssup reload``, and talk meanwhile. With ``--bus redis://127.0.0.1:6379`` it is one chat on all
instances that share this Redis.

What the page and the application say to each other are objects in JSON, told apart by ``type``:

=========  ==================================  ================================================
to here    ``join``  ``room, name, since``     the last position that the page knows
..         ``..``    ``again``                 whether it has been there before
..         ``say``   ``text, id``              ``id``: the page's own, to know its message again
..         ``who``
from here  ``served``                          by which worker; after each move once more
..         ``joined``  ``room, name, position, recovered, missed``
..         ``people``  ``room, count, names, complete``
..         ``came``, ``went``                  from the room's door
..         ``refused``  ``why, id``
=========  ==================================  ================================================

and what is said in a room comes with its position, as topics give it.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec

import wssup
from wssup.examples import onepage

_PAGE = Path(__file__).with_suffix(".html").read_text()
#: Characters of one message from a page, of what is said with it, and of names.
_LONGEST: Final = 16384
_LONGEST_TEXT: Final = 2000
_LONGEST_NAME: Final = 32
#: Messages per second that one connection may send for long, and at once.
_RATE: Final = 5.0
_BURST: Final = 20.0
#: So many refused messages are taken for an attack.
_PATIENCE: Final = 50
#: Names that are told of a room at most; how many there are is told in any case.
_NAMES: Final = 200
#: RFC 6455 section 7.4.1.
_POLICY_VIOLATION: Final = 1008

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Join(msgspec.Struct, tag="join", tag_field="type", frozen=True):
    """Come into a room, out of the one before."""

    room: _Name
    name: _Name
    since: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    again: bool = False


class Say(msgspec.Struct, tag="say", tag_field="type", frozen=True):
    """Say something in it."""

    text: Annotated[str, msgspec.Meta(max_length=_LONGEST_TEXT)]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]


class Who(msgspec.Struct, tag="who", tag_field="type", frozen=True):
    """Ask who is in it."""


_decode = msgspec.json.Decoder(Join | Say | Who).decode


class Chat:
    """Where somebody is, and as whom, is in ``ws.state``; it moves with the connection, and so do
    its subscriptions.
    """

    def on_connect(self, ws: wssup.Connection) -> None:
        """Say who serves."""
        ws.state.update(tokens=_BURST, at=time.monotonic(), refused=0)
        _served(ws)

    def on_resume(self, ws: wssup.Connection) -> None:
        """Say who serves now. Nothing else has changed."""
        _served(ws)

    async def on_receive(self, ws: wssup.Connection, data: str | bytes) -> None:
        """Do what the page asks for, if it may."""
        too_fast = _is_too_fast(ws)
        try:
            asked = _understand(data)
        except ValueError as error:
            _refuse(ws, str(error))
            return
        about = asked.id if isinstance(asked, Say) else ""
        if too_fast:
            _refuse(ws, "that was too much at once: wait a little", about)
        elif isinstance(asked, Join):
            await self._join(ws, asked)
        elif "room" not in ws.state:
            _refuse(ws, "join a room first", about)
        elif isinstance(asked, Say):
            _say(ws, asked)
        else:
            await _people(ws)

    def on_disconnect(self, ws: wssup.Connection, code: int) -> None:  # noqa: ARG002 - a hook's
        """Let the others know; what it was subscribed to is over already."""
        if "room" in ws.state:
            _door(ws, "went")

    async def _join(self, ws: wssup.Connection, asked: Join) -> None:
        room, name = asked.room, _tidy(asked.name)
        if room != _tidy(room) or not name:
            _refuse(ws, "a room or a person with a name that cannot be shown")
            return
        if "room" in ws.state:
            ws.unsubscribe(_topic(ws))
            ws.unsubscribe(_topic(ws, "door"))
            if ws.state["room"] != room:
                _door(ws, "went")
        ws.state.update(room=room, name=name)
        try:
            ws.subscribe(_topic(ws, "door"))
            # What was missed is on its way when subscribe() returns; or, if a server has to be
            # asked for it, when it is settled.
            here = ws.subscribe(_topic(ws), since=asked.since, positions=True, member=name)
        except wssup.SubscriptionLimitError:
            ws.unsubscribe(_topic(ws, "door"))
            del ws.state["room"]
            _refuse(ws, "there are too many rooms")
            return
        recovered = await here.settled()
        await _tell(
            ws,
            type="joined",
            room=room,
            name=name,
            position=here.position,
            recovered=recovered,
            missed=here.missed,
        )
        _door(ws, "came", again=asked.again)
        await _people(ws)


def _served(ws: wssup.Connection) -> None:
    worker = wssup.current_worker()._asdict()
    ws.send_nowait(_json(type="served", resumed=ws.resumed, **worker))


def _say(ws: wssup.Connection, asked: Say) -> None:
    if not asked.text.strip():
        return
    said = {"id": asked.id, "name": ws.state["name"], "text": asked.text, "at": time.time()}
    wssup.publish(_topic(ws), _json(**said))


def _door(ws: wssup.Connection, what: str, *, again: bool = False) -> None:
    """Let the others in the room know that somebody came or went, so that they ask who is there."""
    told = _json(type=what, room=ws.state["room"], name=ws.state["name"], again=again)
    wssup.publish(_topic(ws, "door"), told, exclude=ws)


async def _people(ws: wssup.Connection) -> None:
    found = await wssup.presence(_topic(ws), ids=True, limit=_NAMES)
    room, names = ws.state["room"], sorted(found.ids)
    await _tell(
        ws, type="people", room=room, count=found.count, names=names, complete=found.complete
    )


def _topic(ws: wssup.Connection, kind: str = "chat") -> str:
    return f"{kind}:{ws.state['room']}"


async def _tell(ws: wssup.Connection, **what: object) -> None:
    await ws.send_message(_json(**what))


def _json(**what: object) -> str:
    return msgspec.json.encode(what).decode()


# What comes from a page may come from anybody.


def _is_too_fast(ws: wssup.Connection) -> bool:
    """Whether it sends faster than it may: a bucket of tokens that fills again with time."""
    now = time.monotonic()
    tokens = ws.state["tokens"] + (now - ws.state["at"]) * _RATE
    ws.state["tokens"] = max(0.0, min(_BURST, tokens) - 1)
    ws.state["at"] = now
    return bool(tokens < 1)


def _understand(data: str | bytes) -> Join | Say | Who:
    """What it asks for.

    :raises ValueError: saying what is wrong with it.
    """
    if not isinstance(data, str) or len(data) > _LONGEST:
        raise ValueError(f"a message is text of at most {_LONGEST} characters")
    try:
        asked: Join | Say | Who = _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)[:200]) from None
    return asked


def _refuse(ws: wssup.Connection, why: str, about: str = "") -> None:
    """Say no, and which message it is about; in the end close the connection."""
    ws.state["refused"] += 1
    if ws.state["refused"] > _PATIENCE:
        ws.close_nowait(_POLICY_VIOLATION, "too much that makes no sense")
    else:
        ws.send_nowait(_json(type="refused", why=why, id=about))


def _tidy(name: str) -> str:
    """A name as people see it: without what is not shown or changes the direction of writing."""
    shown = "".join(letter for letter in name if letter.isprintable())
    return " ".join(shown.split())[:_LONGEST_NAME].strip()


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Serve the page beside the WebSockets."""
    host, port = os.environ.get("PAGE_HOST", "127.0.0.1"), os.environ.get("PAGE_PORT", "8001")
    async with onepage.serving(_PAGE, host, int(port)):
        yield


app = Chat()
