"""What the master asks a worker about single connections, and what it answers; part of the
vocabulary of :mod:`wssup.messages`.

Counts are never asked for: they stand in the scoreboard. Which connections they are, only their
worker knows. It answers when it has the time; who asks is patient for seconds.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = [
    "LONGEST_PATH",
    "MOST_CONNECTIONS",
    "ORDERS",
    "CloseConnections",
    "ConnectionSeen",
    "ConnectionsClosing",
    "Inspect",
    "Inspected",
    "Tagged",
]

#: What connections can be ordered by: age, the other way round, time since the client was last
#: heard, bytes that wait to be sent.
ORDERS: Final = ("oldest", "newest", "idle", "queue")
#: Connections in one answer at most, and characters of a path: an answer is one datagram.
MOST_CONNECTIONS: Final = 200
LONGEST_PATH: Final = 200


class Tagged(msgspec.Struct, frozen=True, tag_field="type"):
    """What all messages share: the codec tells them apart by the field ``type``."""


class ConnectionSeen(msgspec.Struct, frozen=True):
    """One connection as its worker sees it; times in seconds."""

    #: As of ``ws.id``: the same in whichever worker it is.
    id: int
    #: ``192.0.2.1:5000``, ``[2001:db8::1]:5000``; ``unix:`` on a unix socket.
    address: str
    #: The requested path without its query, which may hold what nobody should see.
    path: str
    #: ``handshake``, ``pending`` (the application has not answered), ``open``, ``closing`` or
    #: ``moving``.
    state: str
    #: Since its handshake; before that, since it connected.
    age: float
    #: Since its client was last heard, pongs included.
    idle: float
    #: Bytes that its client has not taken yet, but for what the kernel holds.
    queue_bytes: int
    #: Messages that the application has not taken yet.
    inbox: int
    topics: int


class Inspect(Tagged, frozen=True, tag="inspect"):
    """To a worker: say which connections come first; it answers with :class:`Inspected`."""

    #: The master's number for this, never used twice.
    question: int
    #: One of :data:`ORDERS`.
    order: str
    limit: int


class Inspected(Tagged, frozen=True, tag="inspected"):
    """From a worker: its connections, the first in order first."""

    question: int
    connections: list[ConnectionSeen]


class CloseConnections(Tagged, frozen=True, tag="close_connections"):
    """To a worker: close those of these connections that it has; it answers with
    :class:`ConnectionsClosing`.
    """

    question: int
    ids: list[int]
    #: As of :class:`wssup.messages.Drain`.
    code: int
    reason: str


class ConnectionsClosing(Tagged, frozen=True, tag="connections_closing"):
    """From a worker: these are being closed."""

    question: int
    closing: list[int]
    #: Those that move to another worker just now, and were not closed.
    moving: list[int]
    #: Why nothing was closed; empty if it was.
    error: str = ""
