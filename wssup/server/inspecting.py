"""Answers the master's questions about single connections: which ones there are, and to close some.

It goes through all of a worker's connections, a slice at a time, with everybody else's turn in
between. Nothing is kept for it, and nothing counted, per connection or message.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from wssup.messages import CloseConnections, ConnectionsClosing, Inspect, Inspected
from wssup.questions import LONGEST_FORWARDED, LONGEST_PATH, MOST_CONNECTIONS, ConnectionSeen
from wssup.scoreboard import ClosedReason, HandshakeFailure
from wssup.server import handshake
from wssup.server.connection import Connection, State
from wssup.server.described import target_of
from wssup.server.frames import close_payload

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["answer"]

#: Connections looked at before others have their turn: a fraction of a millisecond.
_SLICE: Final = 512
#: The same of connections that are told of in detail.
_DETAILED: Final = 20
_FORWARDED: Final = b"x-forwarded-for"
#: What stands for a query, which may hold a token.
_QUERY: Final = "?…"

_STATES: Final = {
    State.HANDSHAKE: "handshake",
    State.PENDING: "pending",
    State.OPEN: "open",
    State.CLOSING: "closing",
    State.LEAVING: "closing",
    State.FLUSHING: "closing",
    State.LINGERING: "closing",
    State.HELD: "moving",
    State.KEPT: "http",
}
_KEYS: Final[dict[str, Callable[[Connection], float]]] = {
    "oldest": lambda connection: connection.opened,
    "newest": lambda connection: -connection.opened,
    "idle": lambda connection: connection.heard,
    "queue": lambda connection: -connection.out_bytes,
}


async def answer(
    pump: Pump, question: Inspect | CloseConnections
) -> Inspected | ConnectionsClosing:
    """What the master is to be told. It takes the time of some turns."""
    if isinstance(question, Inspect):
        return await _inspect(pump, question)
    return await _close(pump, question)


async def _inspect(pump: Pump, question: Inspect) -> Inspected:
    limit = min(question.limit, MOST_CONNECTIONS)
    key = _KEYS[question.order]
    first: list[Connection] = []
    for part in _slices(pump):
        living = (c for c in part if c.status is not State.ENDED)
        first = heapq.nsmallest(limit, chain(first, living), key=key)
        await pump.cancel_point()
        await pump.schedule_point()
    found: list[ConnectionSeen] = []
    for start in range(0, len(first), _DETAILED):
        now = time.monotonic()
        part = first[start : start + _DETAILED]
        found += [_seen(c, now) for c in part if c.status is not State.ENDED]
        await pump.cancel_point()
        await pump.schedule_point()
    return Inspected(question.question, found)


async def _close(pump: Pump, question: CloseConnections) -> ConnectionsClosing:
    try:
        close_payload(question.code, question.reason)
    except ValueError as error:
        return ConnectionsClosing(question.question, [], [], str(error))
    wanted = set(question.ids)
    closing: list[int] = []
    moving: list[int] = []
    for part in _slices(pump):
        for connection in part:
            if connection.id in wanted and connection.status is not State.ENDED:
                is_held = connection.status is State.HELD
                (moving if is_held else closing).append(connection.id)
                if not is_held:
                    pump.aside(partial(_let_go, pump, connection, question))
        await pump.cancel_point()
        await pump.schedule_point()
    return ConnectionsClosing(question.question, closing, moving)


def _let_go(pump: Pump, connection: Connection, order: CloseConnections) -> None:
    """Close a connection, or answer a request that is still open."""
    if connection.status is State.OPEN:
        pump.closing.close(connection, order.code, order.reason, ClosedReason.OPERATOR)
    elif connection.status in {State.HANDSHAKE, State.PENDING}:
        refusal = handshake.text_response(503, "closed by the operator")
        pump.opening.respond(connection, refusal, HandshakeFailure.REJECTED)
    elif connection.status is State.KEPT:
        pump.closing.lose(connection)


def _slices(pump: Pump) -> Iterator[list[Connection]]:
    """All connections; those that come meanwhile are not among them."""
    there = list(pump.connections.values())
    for start in range(0, len(there), _SLICE):
        yield there[start : start + _SLICE]


def _seen(connection: Connection, now: float) -> ConnectionSeen:
    remote = connection.remote
    if isinstance(remote, str):
        address = remote
    else:
        host = f"[{remote.address}]" if ":" in str(remote.address) else str(remote.address)
        address = f"{host}:{remote.port}"
    return ConnectionSeen(
        id=connection.id,
        address=address,
        path=_path(connection),
        state=_STATES[connection.status],
        age=round(now - connection.opened, 3),
        idle=round(max(0.0, now - connection.heard), 3),
        queue_bytes=connection.out_bytes,
        inbox=len(connection.inbox or ()),
        topics=len(connection.joined or ()),
        forwarded=_forwarded(connection),
    )


def _forwarded(connection: Connection) -> str:
    if connection.status is State.HANDSHAKE or _FORWARDED not in connection.head.lower():
        return ""
    try:
        value = handshake.parse(connection.head).get(_FORWARDED)
    except handshake.BadRequestError:
        return ""
    return (value or b"").decode("latin-1")[:LONGEST_FORWARDED]


def _path(connection: Connection) -> str:
    if connection.status in {State.HANDSHAKE, State.KEPT}:
        return ""
    try:
        path, query, _ = target_of(connection.head).partition("?")
    except ValueError:  # it was refused for its head, which is none
        return ""
    return path[:LONGEST_PATH] + (_QUERY if query else "")
