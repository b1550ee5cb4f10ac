"""A connection as a record, and back: what moves of it besides its descriptor."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wssup.server.connection import Connection, State
from wssup.server.handoff import record as records

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["connection_of", "record_of"]


def record_of(pump: Pump, connection: Connection, packed: bytes, since: float) -> records.Record:
    """What the next worker must know of a connection, which leaves its topics with that.

    :param packed: its ``ws.state``.
    :param since: when it was read from last, in seconds of ``time.monotonic()``.
    """
    topics, position, lately = pump.topics.suspend(connection)
    return records.Record(
        number=connection.id,
        peer=connection.peer,
        head=connection.head,
        subprotocol=connection.subprotocol,
        opened=connection.opened,
        heard=connection.heard,
        ping_sent=connection.ping_sent,
        suspended=since,
        state=packed,
        inbox=list(connection.inbox or ()),
        unsent=[bytes(part) for part in connection.outbox or ()],
        unfinished=records.half_of(connection.unfinished),
        topics=topics,
        position=position,
        secure=connection.secure,
        lately=lately,
    )


def connection_of(
    pump: Pump, fd: int, record: records.Record, kept: Mapping[str, Any]
) -> Connection:
    """The connection of a record, open, with what waits to be sent; not read from yet, and in no
    topics.

    :param kept: its ``ws.state``.
    """
    connection = Connection(pump, fd, record.peer, record.number, record.opened)
    connection.head = record.head
    connection.secure = record.secure
    connection.subprotocol = record.subprotocol
    connection.heard = record.heard
    connection.ping_sent = record.ping_sent
    connection.unfinished = records.unfinished_of(record.unfinished)
    connection.resumed = True
    connection.status = State.OPEN
    if kept:
        connection.state.update(kept)
    if record.unsent:
        connection.outbox = deque(record.unsent)
        connection.out_bytes = sum(map(len, record.unsent))
        pump.queued += connection.out_bytes
    return connection
