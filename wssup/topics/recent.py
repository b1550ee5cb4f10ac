"""What came lately, for connections that are on their way to this worker. Pure.

It is kept while a handoff is under way, whatever history is configured. A connection's record says
up to which number of each node its old worker had processed; what came here above that is found
without looking at anything else, since each node's messages of a topic lie in a lane of their own,
in the order of their numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from operator import itemgetter
from typing import Final, TypeAlias

from wssup.topics.message import Message

__all__ = ["SECONDS", "Recent"]

#: How long a message is kept: far longer than a record is under way.
SECONDS: Final = 60.0
#: Bytes of memory that a message takes beside its data, and a lane beside its messages, about.
COST: Final = 400
LANE_COST: Final = 1000
#: Topics of which is remembered, each by itself, how far they were forgotten.
_TOPICS: Final = 4096

_Lane: TypeAlias = "deque[tuple[int, Message]]"


class Recent:
    """The messages of the last minute, in lanes by topic and carrier.

    :param size: bytes of memory, about; beyond it the oldest go first.
    """

    def __init__(self, size: int) -> None:
        self._most = size
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self._size = 0
        self._arrived = 0
        self._lanes: dict[str, dict[int, _Lane]] = {}
        self._order: deque[_Lane] = deque()
        # By carrier up to which number messages had to go, and of when the last one was: of one
        # topic, and of those that are too many to be told apart.
        self._short: dict[str, dict[int, tuple[int, float]]] = {}
        self._any: dict[int, tuple[int, float]] = {}

    def __len__(self) -> int:
        """Messages."""
        return len(self._order)

    def add(self, message: Message) -> None:
        """Keep one more, which is the carrier's latest of this topic."""
        carriers = self._lanes.get(message.topic)
        if carriers is None:
            carriers = self._lanes[message.topic] = {}
        lane = carriers.get(message.carrier)
        if lane is None:
            lane = carriers[message.carrier] = deque()
            self._size += LANE_COST
        self._arrived += 1
        lane.append((self._arrived, message))
        order = self._order
        order.append(lane)
        self._size += COST + len(message.data)
        limit = message.at - SECONDS
        while order and (self._size > self._most or order[0][0][1].at < limit):
            self._drop()

    def expire(self, now: float) -> None:
        """Forget what is older than `SECONDS`."""
        order = self._order
        while order and order[0][0][1].at < now - SECONDS:
            self._drop()

    def _drop(self) -> None:
        lane = self._order.popleft()
        _, message = lane.popleft()
        self._size -= COST + len(message.data)
        self._short.setdefault(message.topic, {})[message.carrier] = message.number, message.at
        if len(self._short) > _TOPICS:
            for carrier, last in self._short.pop(next(iter(self._short))).items():
                self._any[carrier] = max(last, self._any.get(carrier, last))
        if not lane:
            carriers = self._lanes[message.topic]
            del carriers[message.carrier]
            self._size -= LANE_COST
            if not carriers:
                del self._lanes[message.topic]

    def since(
        self, position: Mapping[int, int], topics: Collection[str], not_before: float
    ) -> list[Message]:
        """The messages of these topics above the position, in the order of arrival.

        :param position: by carrier, the highest number that was processed; missing: none was.
        :param not_before: the age, as ``Message.at``, from which on they are given.
        """
        found: list[tuple[int, Message]] = []
        for topic in topics:
            for carrier, lane in self._lanes.get(topic, {}).items():
                floor = position.get(carrier, 0)
                for entry in reversed(lane):
                    if entry[1].number <= floor:
                        break
                    if entry[1].at >= not_before:
                        found.append(entry)
        found.sort(key=itemgetter(0))
        return [message for _, message in found]

    def covers(
        self, position: Mapping[int, int], topics: Collection[str], lately: Mapping[str, float]
    ) -> bool:
        """Whether nothing of these topics above the position had to go for want of room or by age;
        also false if it cannot be told, of more than 4096 topics.
        """
        parts = [(self._any, 0.0)]
        parts += [(self._short.get(topic, {}), lately.get(topic, 0.0)) for topic in topics]
        return all(
            number <= position.get(carrier, 0) or at < since
            for part, since in parts
            for carrier, (number, at) in part.items()
        )

    def forget(self, carrier: int) -> None:
        """Nobody will ask for what a carrier sent."""
        for topic in [t for t, part in self._short.items() if part.pop(carrier, None) and not part]:
            del self._short[topic]
        self._any.pop(carrier, None)
