"""The configured history: the latest messages of each topic, and what is known of the rest. Pure.

Of each topic it keeps messages in the order of arrival, and in two tables by source the highest
sequence that came and the highest that is not here any more. With these a client's marks are
compared: what is above them is given, and nothing is missing if none of the marks lies below what
has gone.

All is bounded: messages by topic, age and memory; topics, of which the longest idle is forgotten;
and sources by topic. What is forgotten without a trace would let an old position look complete. So
every position carries the time at which it was made, as the mark of a source that does not
publish (the *clock*), and where something is forgotten, the clock's entry among what is not here
any more is the time of the last message concerned, and `SLACK` for what was still under way to
others.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Mapping, Sequence
from typing import Final

from wssup.topics.message import Message

__all__ = ["COST", "SLACK", "SOURCES", "SOURCE_COST", "TOPIC_COST", "WALL", "Retained", "Topic"]

#: Bytes of memory that a message takes beside its data, a topic beside its messages, and each of
#: its sources, about.
COST: Final = 400
TOPIC_COST: Final = 1200
SOURCE_COST: Final = 200
#: Milliseconds: no message is longer on its way to a worker that does not stand still.
SLACK: Final = 20_000
#: The source that stands for the time of day, which other instances know, too.
WALL: Final = "ffffffff.0"
#: Sources that a topic knows at most, so that a position has less than 4 KiB.
SOURCES: Final = 150
#: Of so many nothing is forgotten; beyond, a source that was idle for so many seconds.
_FEW: Final = 16
_IDLE: Final = 600.0


class Topic:
    """What is kept of one topic.

    :ivar kept: in the order of arrival; each source's by sequence.
    :ivar sources: the highest sequence of each source, and when it came.
    :ivar evicted: the highest sequence of each source that is not in ``kept`` any more.
    :ivar skip: its oldest entries in the order of all topics that stand for nothing any more.
    """

    __slots__ = ("evicted", "kept", "skip", "sources")

    def __init__(self) -> None:
        self.kept: deque[Message] = deque()
        self.sources: dict[str, tuple[int, float]] = {}
        self.evicted: dict[str, int] = {}
        self.skip = 0

    def gone(self, source: str, sequence: int) -> None:
        """This one is not here any more."""
        if sequence > self.evicted.get(source, 0):
            self.evicted[source] = sequence


class Retained:
    """The topics.

    :param clock: the name of the source that stands for the time.
    :param messages: kept by topic; 0: no bound.
    :param seconds: how long they are kept; 0: no bound.
    :param size: bytes of memory, about; beyond it the oldest of all topics goes first.
    :param topics: remembered; beyond it the longest idle is forgotten.
    :ivar forgotten: positions in topics that are not remembered are good from this time on (ms).
    """

    def __init__(
        self, clock: str, *, messages: int, seconds: float, size: int, topics: int
    ) -> None:
        self._clock = clock
        self._messages = messages
        self._seconds = seconds
        self._most = size
        self._most_topics = max(topics, 1)
        self.topics: OrderedDict[str, Topic] = OrderedDict()
        self.forgotten = 0
        self.count = 0
        self.size = 0
        # Each message's topic, in the order of arrival: what goes first when memory is short.
        self._order: deque[Topic] = deque()

    def add(self, message: Message) -> None:
        """Keep a message, unless it is here or was."""
        name, source, sequence = message.topic, message.source, message.sequence
        topic = self.topics.get(name)
        if topic is None:
            topic = self._begin(name)
        else:
            self.topics.move_to_end(name)
        known = topic.sources.get(source)
        if known is not None and sequence <= known[0]:
            if not _insert(topic, message):
                return
        else:
            if known is None:
                self._meet(topic, message.at)
                self.size += SOURCE_COST
            topic.sources[source] = (sequence, message.at)
            topic.kept.append(message)
        self._order.append(topic)
        self.count += 1
        self.size += COST + len(message.data)
        if self._messages and len(topic.kept) > self._messages:
            self._drop(topic)
            topic.skip += 1
        if self._seconds:
            oldest = self._order[0]
            if oldest.skip or oldest.kept[0].at <= message.at - self._seconds:
                self.expire(message.at, 2)
        if self.size > self._most:
            self._shrink()
        if len(self._order) > 2 * self.count + 1024:
            self._compact()

    def since(self, name: str, marks: Mapping[str, int]) -> tuple[list[Message], bool]:
        """The kept messages above the marks in the order of arrival, and whether these are all."""
        topic = self.topics.get(name)
        made = marks.get(self._clock, 0)
        if topic is None:
            return [], made >= self.forgotten
        # Of a publisher that it does not name, the position's maker had forgotten what is older.
        old = (made - SLACK) / 1000
        complete = made >= topic.evicted.get(self._clock, 0)
        behind = {}
        for source, (highest, at) in topic.sources.items():
            mark = marks.get(source, highest if at < old else 0)
            complete = complete and mark >= topic.evicted.get(source, 0)
            if mark < highest:
                behind[source] = mark
        found = []
        for message in reversed(topic.kept) if behind else ():
            mark = behind.get(message.source, message.sequence)
            if message.sequence > mark:
                if message.at >= old or message.source in marks:
                    found.append(message)
            elif message.source in behind:
                # What is older of this source is delivered, too.
                del behind[message.source]
                if not behind:
                    break
        found.reverse()
        return found, complete

    def marks(self, name: str) -> dict[str, int]:
        """The highest sequence by source."""
        topic = self.topics.get(name)
        return {s: highest for s, (highest, _) in topic.sources.items()} if topic else {}

    def expire(self, now: float, most: int) -> None:
        """Let go of what is too old, and of so many messages at most."""
        if not self._seconds:
            return
        limit = now - self._seconds
        while self._order and most:
            topic = self._order[0]
            if topic.skip:
                topic.skip -= 1
            elif topic.kept[0].at <= limit:
                self._drop(topic)
            else:
                return
            self._order.popleft()
            most -= 1

    def merge(
        self,
        name: str,
        messages: Sequence[Message],
        highest: Mapping[str, int],
        evicted: Mapping[str, int],
        now: float,
    ) -> None:
        """Take over what another worker has of a topic. `settle` must follow."""
        topic = self.topics.get(name) or self._begin(name)
        latest = dict(highest)
        for message in messages:
            if message.sequence > latest.get(message.source, 0):
                latest[message.source] = message.sequence
        for source, sequence in latest.items():
            known = topic.sources.get(source)
            if known is None:
                self._meet(topic, now)
            topic.sources[source] = (max(sequence, known[0] if known else 0), now)
        for source, sequence in evicted.items():
            if source in topic.sources or source == self._clock:
                topic.gone(source, sequence)
        if not topic.kept:
            # As they stand there.
            topic.kept = deque(m for m in messages if m.source in topic.sources)
            return
        union = {
            (m.source, m.sequence): m for m in (*messages, *topic.kept) if m.source in topic.sources
        }
        lanes: dict[str, list[Message]] = {}
        for _, message in sorted(union.items(), reverse=True):
            lanes.setdefault(message.source, []).append(message)
        # By time, and each source's in its own order whatever the times say.
        by_time = sorted(union.values(), key=lambda m: (m.at, m.source, m.sequence))
        topic.kept = deque(lanes[m.source].pop() for m in by_time)

    def settle(self, forgotten: int, told: Container[str]) -> None:
        """After merging: order and bounds.

        :param forgotten: positions in topics that the peer did not tell of are good from then on.
        :param told: the topics that it told of.
        """
        self.forgotten = max(self.forgotten, forgotten)
        for name, topic in self.topics.items():
            if forgotten and name not in told:
                topic.gone(self._clock, forgotten)
        times = [m.at for topic in self.topics.values() for m in topic.kept]
        entries = [topic for topic in self.topics.values() for _ in topic.kept]
        in_order = sorted(range(len(times)), key=times.__getitem__)
        self._order = deque(entries[index] for index in in_order)
        self.count = len(entries)
        self.size = sum(map(_cost, self.topics.values()))
        for topic in self.topics.values():
            topic.skip = 0
            self.size += sum(COST + len(m.data) for m in topic.kept)
            while self._messages and len(topic.kept) > self._messages:
                self._drop(topic)
                topic.skip += 1
        self._shrink()
        self._compact()

    def _begin(self, name: str) -> Topic:
        if len(self.topics) >= self._most_topics:
            self._forget_topic()
        topic = self.topics[name] = Topic()
        self.size += TOPIC_COST
        if self.forgotten:
            # It may be one of those that were forgotten.
            topic.evicted[self._clock] = self.forgotten
        return topic

    def _forget_topic(self) -> None:
        _, topic = self.topics.popitem(last=False)
        self.size -= _cost(topic) + sum(COST + len(m.data) for m in topic.kept)
        self.count -= len(topic.kept)
        topic.skip += len(topic.kept)
        topic.kept.clear()
        last = max((at for _, at in topic.sources.values()), default=0.0)
        known = topic.evicted.get(self._clock, 0)
        self.forgotten = max(self.forgotten, known, int(last * 1000) + SLACK)

    def _meet(self, topic: Topic, now: float) -> None:
        """Make room for one more source."""
        sources = topic.sources
        if len(sources) < _FEW:
            return
        gone = [s for s, (_, at) in sources.items() if at < now - _IDLE]
        if gone:
            held = {m.source for m in topic.kept}
            gone = [s for s in gone if s not in held]
        if len(sources) - len(gone) >= SOURCES:
            # Many at a time, since each time costs a look at all messages.
            gone = sorted(sources, key=lambda s: sources[s][1])[: SOURCES // 4]
        self.size -= SOURCE_COST * len(gone)
        for source in gone:
            _, at = sources.pop(source)
            topic.evicted.pop(source, None)
            topic.gone(self._clock, int(at * 1000) + SLACK)
        rest = deque(m for m in topic.kept if m.source in sources)
        if len(rest) < len(topic.kept):
            self.size -= sum(COST + len(m.data) for m in topic.kept if m.source not in sources)
            self.count -= len(topic.kept) - len(rest)
            topic.skip += len(topic.kept) - len(rest)
            topic.kept = rest

    def _drop(self, topic: Topic) -> None:
        """Let go of the oldest message of a topic."""
        message = topic.kept.popleft()
        self.count -= 1
        self.size -= COST + len(message.data)
        if message.sequence > topic.evicted.get(message.source, 0):
            topic.evicted[message.source] = message.sequence

    def _shrink(self) -> None:
        while self.size > self._most and self.topics:
            if self.count == 0 or not next(iter(self.topics.values())).kept:
                if len(self.topics) == 1:
                    return
                self._forget_topic()
                continue
            topic = self._order.popleft()
            if topic.skip:
                topic.skip -= 1
            else:
                self._drop(topic)

    def _compact(self) -> None:
        """Leave out the entries that stand for nothing any more."""
        order: deque[Topic] = deque()
        for topic in self._order:
            if topic.skip:
                topic.skip -= 1
            else:
                order.append(topic)
        self._order = order


def _cost(topic: Topic) -> int:
    """Bytes that a topic takes beside its messages."""
    return TOPIC_COST + SOURCE_COST * len(topic.sources)


def _insert(topic: Topic, message: Message) -> bool:
    """Put one that comes late to its place; False if it is here or was."""
    source, sequence = message.source, message.sequence
    if sequence <= topic.evicted.get(source, 0):
        return False
    place = len(topic.kept)
    for index, other in enumerate(reversed(topic.kept)):
        if other.source == source:
            if other.sequence == sequence:
                return False
            if other.sequence < sequence:
                break
            place = len(topic.kept) - index - 1
    topic.kept.insert(place, message)
    return True
