"""What a node has to say of itself to each of its peers: what it wants, and how many it has.

It is not queued as it happens: a peer that does not read must not make that queue grow, while a
million subscriptions come and go. Changes stand in a short log that all peers share; a peer is told
what has changed since it was told last, as it is by then, when its link has room. Who is too far
behind gets everything anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from wssup.topics.packets import (
    PROTOCOL,
    Complete,
    Counts,
    Greeting,
    Interest,
    Mirror,
    Packet,
    Unmirror,
)

__all__ = ["News", "Reader"]

#: Entries of a log, and topics in one packet.
_LOG: Final = 1 << 14
_PIECE: Final = 256
#: Seconds that a topic without a subscriber stays wanted; while connections are on their way; and
#: how many such topics there may be.
_LINGER: Final = 1.0
_LONGER: Final = 60.0
_LINGERING: Final = 1 << 17


class _Log:
    """The last changes."""

    def __init__(self) -> None:
        self._entries: list[str | int] = []
        self._begin = 0

    @property
    def end(self) -> int:
        """The place after the last one."""
        return self._begin + len(self._entries)

    def add(self, entry: str | int) -> None:
        self._entries.append(entry)
        if len(self._entries) > _LOG:
            del self._entries[: _LOG // 2]
            self._begin += _LOG // 2

    def since(self, place: int) -> list[str | int] | None:
        """What came after a place; None: that is not known any more."""
        return self._entries[place - self._begin :] if place >= self._begin else None


class News:
    """What there is to say.

    :ivar topics: what this node wants.
    :ivar counts: its subscribers by topic.
    :ivar history: it keeps one that others can have; ``keeper``: it answers `Recover`.
    :ivar mirrors: what it mirrors: by session the serial number of a node.
    :ivar holding: connections are on their way, whose topics must stay wanted.
    """

    def __init__(self, serial: int, *, everything: bool) -> None:
        self._serial = serial
        self._everything = everything
        self.history = self.keeper = False
        self.topics: set[str] = set()
        self.counts: dict[str, int] = {}
        self.mirrors: dict[int, int] = {}
        self.holding = 0
        self._idle: dict[str, float] = {}
        self.log = _Log()
        self.counted = _Log()
        self._uncounted: dict[str, None] = {}

    def subscribed(self, topic: str, count: int, now: float) -> bool:
        """How many subscribers a topic has here; whether it is wanted from now on."""
        self._uncounted[topic] = None
        if len(self._uncounted) > _LOG:
            self.count()
        if not count:
            if self.counts.pop(topic, None) is not None:
                self._idle[topic] = now
            return False
        self.counts[topic] = count
        self._idle.pop(topic, None)
        if topic in self.topics:
            return False
        self.topics.add(topic)
        self.log.add(topic)
        return True

    @property
    def is_uncounted(self) -> bool:
        """Whether counts have changed that are not in the log."""
        return bool(self._uncounted)

    def count(self) -> None:
        """Enter the changed counts into the log."""
        for topic in self._uncounted:
            self.counted.add(topic)
        self._uncounted.clear()

    def tidy(self, now: float) -> list[str]:
        """Want no longer what nobody has subscribed to for a while; what that is."""
        until = now - (_LONGER if self.holding else _LINGER)
        over: list[str] = []
        excess = len(self._idle) - _LINGERING
        for topic, since in self._idle.items():
            if since > until and len(over) >= excess:
                break
            over.append(topic)
        for topic in over:
            del self._idle[topic]
            self.topics.discard(topic)
            self.log.add(topic)
        return over

    def unmirror(self, session: int) -> None:
        """A session is over: said after all that is wanted by now."""
        if self.mirrors.pop(session, None) is not None:
            self.log.add(session)

    def greeting(self, number: int) -> list[Packet]:
        """What begins a link, or begins anew."""
        hello = Greeting(
            PROTOCOL, self._serial, self._everything, self.history, self.keeper, number
        )
        return [hello, *(Mirror(session, of) for session, of in self.mirrors.items())]

    def changes(self, entries: list[str | int]) -> list[Packet]:
        """What has become of the entries of the log of wishes."""
        on: list[str] = []
        off: list[str] = []
        over: list[Packet] = []
        for entry in dict.fromkeys(entries):
            if isinstance(entry, int):
                over.append(Unmirror(entry))
            else:
                (on if entry in self.topics else off).append(entry)
        return [*_interest(on, on=True), *_interest(off, on=False), *over]

    def new_counts(self, entries: list[str | int]) -> list[Packet]:
        """What has become of the entries of the log of counts."""
        counts = {str(topic): self.counts.get(str(topic), 0) for topic in dict.fromkeys(entries)}
        return list(_counts(counts))

    def all(self) -> Iterator[Packet]:
        """Everything, as it is when this is called, then `Complete`; over several turns."""
        topics, counts = list(self.topics), dict(self.counts)
        yield from _interest(topics, on=True)
        yield from _counts(counts)
        yield Complete()


class Reader:
    """What one peer has been told."""

    def __init__(self, news: News) -> None:
        self._news = news
        self._begin()

    def _begin(self) -> None:
        self._place, self._counted = self._news.log.end, self._news.counted.end
        self._rest: Iterator[Packet] | None = self._news.all()
        # Now, not when it is read on: what changes from here on stands in the log.
        self._next: Packet | None = next(self._rest)

    @property
    def is_behind(self) -> bool:
        """Whether there is something to tell."""
        news = self._news
        return (
            self._rest is not None
            or self._place != news.log.end
            or self._counted != news.counted.end
        )

    def read(self) -> list[Packet]:
        """The next piece of it; empty: there is nothing."""
        if self._rest is not None:
            found, self._next = self._next, next(self._rest, None)
            if self._next is None:
                self._rest = None
            assert found is not None
            return [found]
        news = self._news
        entries, counts = news.log.since(self._place), news.counted.since(self._counted)
        if entries is None or counts is None:
            self._begin()
            return news.greeting(0)
        self._place, self._counted = news.log.end, news.counted.end
        return [*news.changes(entries), *news.new_counts(counts)]


def _interest(topics: list[str], *, on: bool) -> Iterator[Packet]:
    for at in range(0, len(topics), _PIECE):
        yield Interest(topics[at : at + _PIECE], on)


def _counts(counts: dict[str, int]) -> Iterator[Packet]:
    items = iter(counts.items())
    while piece := dict(islice(items, _PIECE)):
        yield Counts(piece)
