"""Which message of a topic came before which: how a reader of the history can say that nothing is
missing. Pure.

A publisher numbers its messages over all topics and leaves numbers out, so a gap does not show that
anything was lost. But the bridge hears everything, and each publisher's messages come to it in
order. So it can tell of each message after which number there was none in the same topic. Where it
cannot (its own beginning, messages that its queue on the bus had no room for, what it forgot to
stay small) it says the highest number that there might have been.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

__all__ = ["Chains"]


@dataclass(slots=True)
class _Source:
    """Of one publisher: the last number heard; up to where there may have been others; the last of
    each topic, the oldest first; whether something of it may have been lost since.
    """

    last: int
    unheard: int
    topics: OrderedDict[str, int] = field(default_factory=OrderedDict)
    doubt: bool = False


class Chains:
    """What was heard of all publishers of this instance.

    :param topics: how many topics of all publishers together are remembered.
    :param sources: how many publishers are.
    """

    def __init__(self, topics: int, sources: int) -> None:
        self._most_topics = topics
        self._most_sources = sources
        self._count = 0
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    def hear(self, source: str, topic: str, sequence: int) -> tuple[int, int]:
        """Hear a message; returns `Parcel.after` and `Parcel.before`."""
        heard = self._sources.get(source)
        if heard is None:
            heard = self._sources[source] = _Source(last=sequence - 1, unheard=sequence - 1)
            if len(self._sources) > self._most_sources:
                _, gone = self._sources.popitem(last=False)
                self._count -= len(gone.topics)
        if heard.doubt:
            heard.doubt = False
            heard.last = heard.unheard = sequence - 1
        before, heard.last = heard.last, sequence
        last = heard.topics.pop(topic, 0)
        after = max(last, heard.unheard)
        heard.topics[topic] = sequence
        self._count += not last
        if self._count > self._most_topics:
            self._count -= 1
            _, forgotten = heard.topics.popitem(last=False)
            heard.unheard = max(heard.unheard, forgotten)
        return after, before

    def lost(self) -> None:
        """Something was lost on its way here, of whomever."""
        for heard in self._sources.values():
            heard.doubt = True
