"""``/events``: server-sent events (HTML Standard, section 9.2): the state once a second, and what
happens as it happens.

One encoding of the state is shared by all who listen. Nothing is queued for one that is slow: it
gets the newest state when it has taken the last one, and the events that are still kept by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wssup.observer.guard import refusal
from wssup.observer.state import RECENT, State

__all__ = ["MOST", "Stream"]

#: Listeners at a time.
MOST: Final = 64
#: Seconds between two states; milliseconds after which a browser comes back that lost its
#: connection.
_EVERY: Final = 1.0
_RETRY_MS: Final = 2000


class Stream:
    """All who listen.

    :ivar listeners: how many.
    """

    def __init__(self, state: State) -> None:
        self.listeners = 0
        self.state = state
        self._beat = b""
        self._made_at = -_EVERY

    def answer(self, request: Request) -> Response:
        """The response to one who wants to listen.

        ``?past=N`` limits the events from before; ``?state=no`` leaves the states out. One who
        comes back says the last event it has (``Last-Event-ID``) and gets those after it.
        """
        if self.listeners >= MOST:
            return refusal(503, "too_many", f"{MOST} listen already; try later", retry_after="10")
        last = _number(request.headers.get("last-event-id"), 0)
        past = _number(request.query_params.get("past"), RECENT)
        events = self.state.since(last)
        first = events[-past:] if past else []
        states = request.query_params.get("state") != "no"
        return _Listening(self, first, self.state.last, states=states)

    def beat(self) -> bytes:
        """The newest state as an event; made once a second at most."""
        now = time.monotonic()
        if now >= self._made_at + _EVERY * 0.9:
            self._made_at = now
            self._beat = b"event: state\ndata: " + self.state.beat() + b"\n\n"
        return self._beat


class _Listening(Response):
    """The stream of one who listens.

    :param first: events from before.
    :param seen: the number of the newest event by now.
    """

    def __init__(
        self, stream: Stream, first: list[dict[str, Any]], seen: int, *, states: bool
    ) -> None:
        super().__init__(media_type="text/event-stream")
        # As no length is known yet, and a proxy is not to hold it back (nginx).
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"
        self._stream = stream
        self._first = first
        self._seen = seen
        self._states = states

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": list(self.raw_headers)}
        )
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        self._stream.listeners += 1
        leaving = asyncio.create_task(_left(receive))
        telling = asyncio.create_task(self._tell(send))
        try:
            # What ends first ends the other; a client that takes nothing is cut off (server.py).
            await asyncio.wait((leaving, telling), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stream.listeners -= 1
            for task in (leaving, telling):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _tell(self, send: Send) -> None:
        state = self._stream.state
        events, seen = self._first, self._seen
        text = f"retry: {_RETRY_MS}\n\n".encode()
        due = 0.0
        while True:
            text += b"".join(map(_event, events))
            now = time.monotonic()
            if now >= due:
                text += self._stream.beat() if self._states else b": alive\n\n"
                due = now + _EVERY
            if text:
                await send({"type": "http.response.body", "body": text, "more_body": True})
            if state.ending:
                await send({"type": "http.response.body"})
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await state.change()
            events, text = state.since(seen), b""
            seen = state.last


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(event: dict[str, Any]) -> bytes:
    data = msgspec.json.encode(event)
    return b"event: lifecycle\nid: %d\ndata: %b\n\n" % (event["seq"], data)


def _number(text: str | None, default: int) -> int:
    if text and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    return default
