"""Who has subscribed while connections move from here to another worker, or just before, and when.

That worker keeps what comes to it meanwhile, and gives a connection what lies above the position of
its old worker. But that counts only what this one was sent: of a topic that nobody here wanted it
may be sent nothing for long, and what was published to it before the connection subscribed lies
above, too. So the time goes along, and older messages are left out. As this worker hears of the
move later than the other one begins to keep, times are noted always, and kept for a while. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from wssup.server.connection import Connection

__all__ = ["Lately"]


class Lately:
    """The books. Times are seconds of ``time.monotonic()``."""

    def __init__(self) -> None:
        # Of now, and of the time before; none is in both.
        self._joined: dict[Connection, dict[str, float]] = {}
        self._before: dict[Connection, dict[str, float]] = {}

    def joined(self, connection: Connection, topics: Mapping[str, float]) -> None:
        """A connection has subscribed to topics, at these times."""
        if topics:
            self._joined.setdefault(connection, {}).update(topics)

    def of(self, connection: Connection) -> Mapping[str, float]:
        """When it subscribed to which topic."""
        return self._before.get(connection, {}) | self._joined.get(connection, {})

    def when(self, connection: Connection, topic: str) -> float | None:
        """The same of one topic; None: not lately."""
        for books in (self._joined, self._before):
            found = books.get(connection, {}).get(topic)
            if found is not None:
                return found
        return None

    def left(self, connection: Connection, topic: str) -> None:
        """It is subscribed to a topic no more."""
        for books in (self._joined, self._before):
            topics = books.get(connection)
            if topics is not None and topics.pop(topic, None) is not None and not topics:
                del books[connection]

    def drop(self, connection: Connection) -> None:
        """It is gone."""
        self._joined.pop(connection, None)
        self._before.pop(connection, None)

    def turn(self) -> None:
        """Some time has gone by in which no connections moved: forget what was noted before the
        last one.
        """
        self._before, self._joined = self._joined, {}
