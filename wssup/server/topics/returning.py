"""Clients that come back with a position: what they have missed, from the worker's own history or
from a server's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from wssup.server.connection import Connection
from wssup.server.handoff.record import Joined
from wssup.server.topics.delivery import Delivery
from wssup.server.topics.recovery import Recovery
from wssup.server.topics.subscription import Subscription
from wssup.server.topics.tally import Tally
from wssup.server.topics.topic import Topic, raised, token_of
from wssup.topics import position
from wssup.topics.bus import Bus
from wssup.topics.history import History
from wssup.topics.message import Message
from wssup.topics.packets import Entry
from wssup.topics.retained import SLACK, SOURCES

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["Returning"]

#: Messages that a server is asked for at most.
_MOST: Final = 10_000


class Returning:
    """Sends subscribers what they have missed.

    :param asks: whether a server has what the worker itself has not.
    :param node: the instance, if there is no other one whose messages come here.
    """

    def __init__(
        self,
        pump: Pump,
        bus: Bus,
        history: History,
        delivery: Delivery,
        tally: Tally,
        *,
        asks: bool,
        node: str,
    ) -> None:
        self._pump = pump
        self._bus = bus
        self._history = history
        self._delivery = delivery
        self._tally = tally
        self._asks = asks
        self._ours = f"{node}." if node else ""
        #: Subscribers that have positions in topics which are further than this worker, and until
        #: when what is still to come may come.
        self._lagging: dict[tuple[Topic, Connection], float] = {}

    def catch_up(
        self, connection: Connection, topic: Topic, joined: Joined, since: str
    ) -> Subscription:
        """Send a new subscriber what was published since its position, as far as it is there."""
        answer = Subscription(topic.name, self._here(topic, {}))
        try:
            marks = position.decode(since)
        except ValueError:
            # It comes from a client, so there is nothing exceptional about it.
            return self._settled(answer, complete=False)
        messages, complete = self._history.since_marks(topic.name, marks)
        if not complete and self._asks:
            self._ask(connection, topic, joined, marks, answer)
            return answer
        answer.missed, whole = self._replay(connection, topic, messages, marks, marks)
        answer.position = self._here(topic, marks)
        return self._settled(answer, complete=complete and whole)

    def _here(self, topic: Topic, marks: dict[str, int]) -> str:
        """Where somebody is now that was there."""
        if not self._history.configured:
            return ""
        here = self._history.marks(topic.name)
        raised(here, self._history.ahead(topic.name, marks))
        return token_of(here)

    def _replay(
        self,
        connection: Connection,
        topic: Topic,
        messages: list[Message],
        marks: dict[str, int],
        reached: dict[str, int],
    ) -> tuple[int, bool]:
        """How many were sent, and whether all were.

        :param marks: where the subscriber was.
        :param reached: where it is with these messages, or was before.
        """
        self.is_ahead(connection, topic, reached)
        wanted = sum(message.exclude != connection.id for message in messages)
        missed = self._delivery.replay(connection, topic, messages, dict(marks))
        return missed, missed == wanted

    def is_ahead(self, connection: Connection, topic: Topic, marks: dict[str, int]) -> None:
        """Note what a subscriber has that is still to come here. Marks come from clients: of
        sources that nothing comes from any more, as of an instance before its restart, nothing is
        kept, or not for long.
        """
        ahead = {
            source: sequence
            for source, sequence in self._history.ahead(topic.name, marks).items()
            if source.startswith(self._ours)
        }
        if len(ahead) > SOURCES:
            ahead = dict(sorted(ahead.items())[:SOURCES])
        if ahead:
            topic.is_ahead(connection, ahead)
            self._lagging[topic, connection] = time.monotonic() + SLACK / 1000

    def _settled(self, answer: Subscription, *, complete: bool) -> Subscription:
        answer.recovered = complete
        self._tally.recovered += complete
        self._tally.not_recovered += not complete
        return answer

    # A server's.

    def _ask(
        self,
        connection: Connection,
        topic: Topic,
        joined: Joined,
        marks: dict[str, int],
        answer: Subscription,
    ) -> None:
        """Ask the server for what this worker has not, or not all of."""

        def told(found: list[Entry], complete: bool) -> None:  # noqa: FBT001 - as the bus tells it
            if topic.waiting is not None and topic.waiting.get(connection) is recovery:
                self._told(connection, topic, recovery, map(_message_of, found), complete=complete)

        recovery = Recovery(
            self._pump.loop, joined, marks, answer, self._pump.limits.outbound_bytes
        )
        recovery.begin()
        topic.is_waiting(connection, recovery)
        self._bus.recover(topic.name, marks, _MOST, told)

    def _told(
        self,
        connection: Connection,
        topic: Topic,
        recovery: Recovery,
        found: Iterable[Message],
        *,
        complete: bool,
    ) -> None:
        here, _ = self._history.since_marks(topic.name, recovery.marks)
        topic.not_waiting(connection)
        joined = recovery.joined
        topic.add(connection, positions=joined.positions, member=joined.member)
        messages = recovery.merged((*found, *here))
        # The server may know what has not come here yet.
        reached = dict(recovery.marks)
        raised(reached, {message.source: message.sequence for message in messages})
        missed, whole = self._replay(connection, topic, messages, recovery.marks, reached)
        recovery.answer.position = self._here(topic, reached)
        recovery.settle(complete=complete and whole, missed=missed)
        self._settled(recovery.answer, complete=bool(recovery.answer.recovered))

    def hurry(self, connection: Connection, topic: Topic) -> None:
        """Do without the server's answer: a subscriber moves to another worker now."""
        if topic.waiting is not None and connection in topic.waiting:
            self._told(connection, topic, topic.waiting[connection], [], complete=False)

    def gone(self, connection: Connection, topic: Topic) -> None:
        """A subscriber is one no more: nobody waits for what it has missed."""
        self._lagging.pop((topic, connection), None)
        if (recovery := topic.not_waiting(connection)) is not None:
            recovery.settle(complete=False, missed=0)
            self._settled(recovery.answer, complete=False)

    def beat(self, now: float) -> None:
        """From time to time: forget who was further than this worker, and is no more."""
        for (topic, connection), until in list(self._lagging.items()):
            marks = topic.ahead.get(connection) if topic.ahead is not None else None
            if marks is None or now > until or not self._history.ahead(topic.name, marks):
                topic.not_ahead(connection)
                del self._lagging[topic, connection]


def _message_of(entry: Entry) -> Message:
    return Message(
        entry.topic,
        entry.text,
        entry.data,
        entry.carrier,
        entry.number,
        entry.source,
        entry.sequence,
        entry.at,
    )
