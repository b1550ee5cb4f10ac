"""Who has subscribed while connections move from here to another worker, and when.

That worker keeps what comes to it meanwhile, and gives a connection what lies above the position of
its old worker. But that counts only what this one was sent: of a topic that nobody here wanted it
may be sent nothing for long, and what was published to it before the connection subscribed lies
above, too. So the time goes along, and older messages are left out. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from wssup.server.connection import Connection

__all__ = ["Lately"]


class Lately:
    """The books. Times are seconds of ``time.monotonic()``."""

    def __init__(self) -> None:
        self._joined: dict[Connection, dict[str, float]] = {}

    def joined(self, connection: Connection, topics: Mapping[str, float]) -> None:
        """A connection has subscribed to topics, at these times."""
        if topics:
            self._joined.setdefault(connection, {}).update(topics)

    def of(self, connection: Connection) -> Mapping[str, float]:
        """When it subscribed to which topic."""
        return self._joined.get(connection, {})

    def left(self, connection: Connection, topic: str) -> None:
        """It is subscribed to a topic no more."""
        topics = self._joined.get(connection)
        if topics is not None and topics.pop(topic, None) is not None and not topics:
            del self._joined[connection]

    def drop(self, connection: Connection) -> None:
        """It is gone."""
        self._joined.pop(connection, None)

    def clear(self) -> None:
        """No connections move any more."""
        self._joined.clear()
