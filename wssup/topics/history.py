"""A worker's history: for connections that move here, and for clients that come back. Pure.

For a handoff it keeps what came lately (recent.py) while one is under way; for clients with a
position what is configured (retained.py). Whether a client that comes back gets all that it missed
is a claim about everything since its position was made, so it is made carefully. It is denied

- if the position was made before this history knows anything: in another instance, or by workers
  that had all gone before this one began;
- if a message above it has been let go of;
- if messages may have been lost on their way here since, by `lost`, or may have been published by a
  node before it had a link to this one (`linked`).

A new worker takes over a peer's history (`snapshot` and `merge`), and with it how far that reaches.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from wssup.topics.message import Message
from wssup.topics.recent import Recent
from wssup.topics.retained import SLACK, WALL, Retained

__all__ = ["Chunk", "History", "Marks"]

#: Messages that one call of `History.expire` lets go of, so that it takes milliseconds.
_TURN: Final = 20_000
#: Seconds between two looks at the clock above which the worker has stood still.
_STILL: Final = 2.0
#: Nodes and losses that are remembered one by one.
_NODES: Final = 4096
_LOSSES: Final = 256
#: Bytes that an entry of a chunk takes beside its data, about.
_ENTRY: Final = 100

Marks = tuple[str, dict[str, int], dict[str, int]]


class Chunk(NamedTuple):
    """A part of a history under way to another worker.

    :ivar messages: of any topics.
    :ivar marks: of topics the highest sequence by source, and the highest that is not here any
        more; under the empty name what holds for all topics.
    :ivar last: whether it is the last part.
    """

    messages: list[Message]
    marks: list[Marks]
    last: bool


class History:
    """What a worker remembers of topics.

    :param messages: kept by topic; 0: no bound in number.
    :param seconds: how long they are kept; 0: no bound in time. Both 0: none are kept for clients.
    :param size: bytes of memory for them, about; and the same again while a handoff is under way.
    :param topics: remembered.
    :param node: the name of the instance. Without it positions have no time in them, and a client
        that comes back after all workers died is not told from one that missed nothing.
    :ivar configured: whether messages are kept for clients.
    :ivar active: whether `add` does anything.
    """

    def __init__(
        self,
        *,
        messages: int,
        seconds: float,
        size: int,
        topics: int,
        node: str = "",
    ) -> None:
        self.configured = messages > 0 or seconds > 0
        self.active = self.configured
        #: Seconds from the epoch to the beginning of the clock, if positions are to have the time
        #: of day in them, for who keeps a history outside of this instance.
        self.epoch: float | None = None
        self._node = node
        self._clock = f"{node}.0"
        self._retained = Retained(
            self._clock, messages=messages, seconds=seconds, size=size, topics=topics
        )
        self._recent = Recent(size)
        self._keepers = 0
        self._now = 0.0
        # After a standstill: until when positions carry the time of its beginning, for what has
        # piled up may not be read yet.
        self._still = (0.0, 0.0)
        # Milliseconds: positions made before are of a world that this history does not know;
        # positions made before the gap may have one behind them.
        self._born = 0
        self._gap = 0
        # By carrier: messages up to a number may be missing here for positions made before a time.
        # Holes are what a peer's history can mend.
        self._losses: dict[int, tuple[int, int]] = {}
        self._holes: dict[int, tuple[int, int]] = {}
        # Of a carrier everything above its low is known; of one without a link yet, what lies above
        # a low up to a number, from a peer's history.
        self._low: dict[int, int] = {}
        self._covered: dict[int, tuple[int, int]] = {}
        self._incoming: list[Chunk] = []

    def keep(self) -> None:
        """A handoff begins: keep all of the last minute until `release`."""
        self._keepers += 1
        self.active = True

    def release(self) -> None:
        """A handoff is over.

        :raises RuntimeError: none was under way.
        """
        if not self._keepers:
            raise RuntimeError("a handoff's history was released more often than kept")
        self._keepers -= 1
        if not self._keepers:
            self._recent.clear()
            self.active = self.configured

    def add(self, message: Message) -> None:
        """Keep a message that was published or came here, if anything is kept."""
        if self._keepers:
            self._recent.add(message)
        if self.configured:
            if message.at > self._now:
                self._tell(message.at)
            if message.carrier not in self._low:
                self.linked(message.carrier, message.number - 1)
            self._retained.add(message)

    def since_numbers(
        self, position: Mapping[int, int], topics: Collection[str], not_before: float
    ) -> list[Message]:
        """What came since `keep` above a connection's position, in the order of arrival.

        :param position: by carrier, the highest number that was processed; missing: none was.
        :param not_before: older ones, by ``Message.at``, are left out.
        """
        return self._recent.since(position, topics, not_before)

    def covers(
        self, position: Mapping[int, int], topics: Collection[str], lately: Mapping[str, float]
    ) -> bool:
        """Whether nothing of these topics that came since `keep` above the position had to go.

        :param lately: of some topics, since when they are wanted, by ``Message.at``.
        """
        return self._recent.covers(position, topics, lately)

    def forget(self, carrier: int) -> None:
        """A carrier has been gone for so long that positions do not name it any more."""
        self._recent.forget(carrier)

    def since_marks(self, topic: str, marks: Mapping[str, int]) -> tuple[list[Message], bool]:
        """What a client missed since its position, in the order of arrival.

        :param marks: its position, as `marks` gave it then, here or at another worker; empty: it
            wants all that is here.
        :returns: what is here of it, and whether it is all that it missed; with no marks, whether
            nothing of the topic is known to have gone.
        """
        if not self.configured:
            return [], False
        found, complete = self._retained.since(topic, marks)
        made = marks.get(self._clock, 0)
        if not self._node:
            complete = complete and marks.keys() <= self._retained.marks(topic).keys()
        elif marks:
            complete = complete and made >= self._born
        return found, complete and made >= self._gap and not any(
            made < until and marks.get(f"{self._node}.{carrier}", -1) < number
            for losses in (self._losses, self._holes)
            for carrier, (number, until) in losses.items()
        )

    def marks(self, topic: str) -> dict[str, int]:
        """A position: the highest sequence by source, of this topic, and the time."""
        found = self._retained.marks(topic)
        if self._node and self.configured:
            begin, until = self._still
            made = begin if self._now < until else self._now
            found[self._clock] = max(self._born, int(made * 1000))
            if self.epoch is not None:
                found[WALL] = int((made + self.epoch) * 1000)
        return found

    def ahead(self, topic: str, marks: Mapping[str, int]) -> dict[str, int]:
        """The marks of messages that are still to come here: skip those at or below them."""
        known = self._retained.marks(topic)
        return {
            source: sequence
            for source, sequence in marks.items()
            if sequence > known.get(source, 0) and not source.endswith(".0")
        }

    def expire(self, now: float) -> None:
        """Let go of what is too old. Call it now and then, and before anything else.

        :param now: seconds of the clock that ``Message.at`` is of.
        """
        if self._keepers:
            self._recent.expire(now)
        if self.configured:
            self.tell(now)
            self._retained.expire(now, _TURN)

    def tell(self, now: float) -> None:
        """What time it is, by the clock of `expire`, between two of those."""
        if self.configured and now > self._now:
            self._tell(now)

    def linked(self, carrier: int, number: int) -> None:
        """A carrier has a link to here, on which messages above this number come."""
        if carrier not in self._low and self.configured:
            low, up = self._covered.pop(carrier, (0, 0))
            self._know(carrier, low if number <= up else number, self._millis + SLACK)

    def lost(self, carrier: int, number: int) -> None:
        """Messages of a carrier up to this number may be missing here."""
        before, _ = self._losses.pop(carrier, (0, 0))
        self._note(self._losses, carrier, max(number, before), self._millis + SLACK)

    def blind(self) -> None:
        """A peer's history did not come to its end: what was before now is not known here."""
        self._settle(0)
        self._gap = max(self._gap, self._millis + SLACK)

    def snapshot(self, size: int = 65536) -> Iterator[Chunk]:
        """All of it, in parts of about so many bytes.

        Each topic is as it is when its part is made. The position that goes with it must be taken
        before the first.
        """
        messages: list[Message] = []
        marks: list[Marks] = []
        left = size
        for name in list(self._retained.topics):
            topic = self._retained.topics.get(name)
            if topic is None:
                continue
            highest, evicted = self._retained.marks(name), topic.evicted.copy()
            for message in list(topic.kept):
                messages.append(message)
                left -= _ENTRY + len(message.data)
                if left <= 0:
                    yield Chunk(messages, marks, last=False)
                    messages, marks, left = [], [], size
            marks.append((name, highest, evicted))
            left -= len(name) + 20 * (len(highest) + len(evicted))
            if left <= 0:
                yield Chunk(messages, marks, last=False)
                messages, marks, left = [], [], size
        gap = max((self._gap, *(until for _, until in self._losses.values())))
        reach = {"born": self._born, "gap": gap, "forgotten": self._retained.forgotten}
        holes = {str(carrier): number for carrier, (number, _) in self._holes.items()}
        until = {str(carrier): until for carrier, (_, until) in self._holes.items()}
        own = [("", reach, {}), ("", holes, until)]
        yield Chunk(messages, [*marks, *own], last=True)

    def merge(
        self,
        messages: Iterable[Message],
        marks: Iterable[Marks],
        seen: Mapping[int, int],
        *,
        last: bool,
    ) -> None:
        """Take over a part of a peer's `snapshot`; with the last one all of it shows. Those of
        several peers may be taken over, one after the other.

        :param seen: the peer's position from before the snapshot.
        """
        self._incoming.append(Chunk(list(messages), list(marks), last))
        if not last:
            return
        own = [(mine, more) for name, mine, more in self._incoming[-1].marks if not name]
        if len(own) != 2:
            self.blind()
            return
        (reach, _), (holes, until) = own
        self._settle(reach.get("forgotten", 0))
        self._born = min(self._born, reach.get("born", self._born))
        self._gap = max(self._gap, reach.get("gap", 0))
        for carrier in {*seen, *(int(name) for name in holes if name.isdecimal())}:
            low, till = holes.get(str(carrier), 0), until.get(str(carrier), 0)
            self._cover(carrier, low, seen.get(carrier, 0), till)

    def _cover(self, carrier: int, low: int, up: int, until: int) -> None:
        """A peer's history has all of a carrier above a low up to a number."""
        mine = self._low.get(carrier)
        if mine is None:
            known = self._covered.get(carrier, (low, up))
            if known[0] <= up and low <= known[1]:
                known = min(known[0], low), max(known[1], up)
            else:
                known = max(known, (low, up), key=lambda part: part[1])
            self._covered[carrier] = known
            if known[0]:
                self._note(self._holes, carrier, known[0], until)
        elif low < mine <= up:
            self._know(carrier, low, until)

    def _know(self, carrier: int, low: int, until: int) -> None:
        self._low[carrier] = low
        self._holes.pop(carrier, None)
        if low:
            self._note(self._holes, carrier, low, until)
        if len(self._low) > _NODES:
            del self._low[next(iter(self._low))]

    def _settle(self, forgotten: int) -> None:
        topics: dict[str, tuple[list[Message], dict[str, int], dict[str, int]]] = {}
        for chunk in self._incoming:
            for message in chunk.messages:
                topics.setdefault(message.topic, ([], {}, {}))[0].append(message)
            for name, highest, evicted in chunk.marks:
                if name:
                    entry = topics.setdefault(name, ([], {}, {}))
                    entry[1].update(highest)
                    entry[2].update(evicted)
        self._incoming = []
        for name, (messages, highest, evicted) in topics.items():
            self._retained.merge(name, messages, highest, evicted, self._now)
        if topics or forgotten:
            self._retained.settle(forgotten, topics)

    @property
    def _millis(self) -> int:
        return int(self._now * 1000)

    def _tell(self, now: float) -> None:
        if not self._now:
            self._born = math.ceil(now * 1000) if self._node else 0
        elif now > self._now + _STILL:
            begin, until = self._still
            self._still = (begin if self._now < until else self._now), now + SLACK / 1000
        self._now = now

    def _note(
        self, losses: dict[int, tuple[int, int]], carrier: int, number: int, until: int
    ) -> None:
        losses[carrier] = (number, until)
        if len(losses) > _LOSSES:
            _, until = losses.pop(next(iter(losses)))
            self._gap = max(self._gap, until)
