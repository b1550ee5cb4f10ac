"""Sends messages to subscribers, each under the bound of its outbound queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from wssup.server.connection import Connection
from wssup.server.frames import TEXT, encode
from wssup.server.topics.tally import Tally
from wssup.server.topics.topic import Topic, framed, positioned, token_of
from wssup.server.wire import broadcast
from wssup.topics.message import Message

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["Delivery"]


class Delivery:
    """To the connections of one pump."""

    def __init__(self, pump: Pump, tally: Tally) -> None:
        self._pump = pump
        self._tally = tally

    def broadcast(self, subscribers: Iterable[Connection], frame: bytes, size: int) -> None:
        """Send a frame to subscribers. What has an error is dealt with afterwards: whoever is
        closed leaves the table that is being gone through.
        """
        pump = self._pump
        before = pump.messages_out
        waiting, queueing, broken = broadcast(subscribers, frame, size)
        delivered = pump.messages_out - before
        for connection in waiting:
            pump.must_flush(connection)  # type: ignore[arg-type]
        for connection in queueing:
            delivered += self.send(connection, frame, size)  # type: ignore[arg-type]
        for connection in broken:
            pump.closing.lose(connection)  # type: ignore[arg-type]
        self._tally.delivered += delivered

    def send(self, connection: Connection, frame: bytes, size: int) -> bool:
        """Send a frame to one subscriber; whether it is on its way."""
        pump = self._pump
        if connection.closed is not None:
            return False
        if connection.outbox is not None and pump.pressure.is_full(connection):
            self._tally.dropped += 1
            return False
        try:
            if connection.post(frame, size):
                pump.must_flush(connection)
        except OSError:
            pump.closing.lose(connection)
            return False
        return True

    def replay(
        self,
        connection: Connection,
        topic: Topic,
        messages: Sequence[Message],
        marks: dict[str, int],
    ) -> int:
        """Send what a subscriber has missed; how many of them are on their way.

        :param marks: where it was before.
        """
        sent = 0
        for message in messages:
            marks[message.source] = max(marks.get(message.source, 0), message.sequence)
            if message.exclude == connection.id:
                continue
            if connection in topic.posed:
                said = positioned(message, token_of(marks))
                sent += self.send(connection, encode(TEXT, said), len(said))
            else:
                sent += self.send(connection, framed(message), len(message.data))
        self._tally.delivered += sent
        return sent
