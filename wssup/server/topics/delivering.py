"""A message of the bus to those who are subscribed in this worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wssup.config.topics import Topics as Settings
from wssup.server.connection import Connection
from wssup.server.frames import TEXT, encode
from wssup.server.topics.delivery import Delivery
from wssup.server.topics.floors import Floors
from wssup.server.topics.tally import Tally
from wssup.server.topics.topic import Topic, framed, positioned, raised, token_of
from wssup.topics.bus import Bus
from wssup.topics.history import History
from wssup.topics.message import Message

__all__ = ["Delivering"]

#: Topics that the history remembers when it has none of their messages any more.
_REMEMBERED: Final = 20_000
#: Messages of each topic that are kept here if a server keeps them and nothing says how many.
_KEPT: Final = 1000
#: What stands for all that a dead worker has published.
_ALL: Final = 1 << 62


class Delivering:
    """The topics that have subscribers here, and where the worker and each subscriber is in them.

    :param serial: the worker's number in its instance.
    :param node: the instance's random name.
    :ivar bus: joins the workers.
    :ivar tally: what is counted.
    """

    def __init__(self, settings: Settings, serial: int, node: str) -> None:
        self.tally = Tally()
        self._settings = settings
        self._node = node
        self._topics: dict[str, Topic] = {}
        self._floors = Floors()
        keeps = settings.bus_history
        self._history = History(
            messages=settings.history or (_KEPT if keeps and not settings.history_age else 0),
            seconds=settings.history_age,
            size=settings.history_bytes,
            topics=_REMEMBERED,
            node=node,
        )
        self.bus = Bus(
            serial,
            node,
            queue_bytes=settings.queue_bytes,
            everything=self._history.configured,
            history=self._history,
            deliver=self._deliver,
            tell=self.tally,
        )
        self._delivery: Delivery

    def _deliver(self, message: Message) -> None:
        """A message of the bus, or of this worker: its subscribers here get it."""
        topic = self._topics.get(message.topic)
        if topic is None:
            return
        if topic.plain:
            if message.exclude or self._floors.numbers or topic.ahead is not None:
                found = topic.for_(topic.plain, message, self._floors.numbers)
            else:
                found = topic.plain
            self._delivery.broadcast(found, framed(message), len(message.data))
        if topic.posed:
            self._deliver_posed(topic, message)
        if topic.waiting is not None:
            for connection, recovery in topic.waiting.items():
                if connection.id != message.exclude:
                    recovery.keep(message)

    def _deliver_posed(self, topic: Topic, message: Message) -> None:
        """To those who get positions: the worker's, but for the few that are further."""
        floors = self._floors.numbers
        found = topic.for_(topic.posed, message, floors)
        if floors or topic.ahead is not None:
            apart = floors.keys() | (topic.ahead or {}).keys()
            further = [c for c in found if c in apart]
            found = [c for c in found if c not in apart]
            for connection in further:
                said = positioned(message, self._token_of(connection, topic))
                sent = self._delivery.send(connection, encode(TEXT, said), len(said))
                self.tally.delivered += sent
        said = positioned(message, self.token(message.topic))
        self._delivery.broadcast(found, encode(TEXT, said), len(said))

    def _token_of(self, connection: Connection, topic: Topic) -> str:
        """Where a subscriber is that is further than this worker."""
        if not self._history.configured:
            return ""
        marks = self._history.marks(topic.name)
        if connection not in (topic.asked_anew or {}):
            self._raise(marks, self._floors.of(connection))
        if topic.ahead is not None:
            raised(marks, topic.ahead.get(connection, {}))
        return token_of(marks)

    def _raise(self, marks: dict[str, int], floor: Mapping[int, int]) -> None:
        """Raise marks to a floor, as far as that is still to come here."""
        seen = self.bus.seen
        raised(marks, self._sources({c: n for c, n in floor.items() if n > seen.get(c, 0)}))

    def _sources(self, floor: Mapping[int, int]) -> dict[str, int]:
        """A floor by source: what a worker put on the bus is numbered as what it published. (What a
        bridge did is not.)
        """
        return {f"{self._node}.{c}": n for c, n in floor.items() if n < _ALL}

    def token(self, name: str) -> str:
        """Where a subscriber is that got everything so far; empty without history."""
        return token_of(self._history.marks(name)) if self._history.configured else ""
