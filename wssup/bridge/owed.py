"""Numbers of messages that a server which keeps a history will never have. Pure.

A message that was dropped on its way, or of which nobody knows whether it was taken, is in no
stream. Who comes back to a quiet topic would be told that nothing was missed, until its next
message says otherwise. So the server is told the number all the same, as soon as it can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from wssup.bridge.outbox import Letter

__all__ = ["Numbers", "Owed"]

#: By topic and source the number of the last message.
Numbers = dict[str, dict[str, int]]


class Owed:
    """What the server is to be told.

    :param most: topics that are remembered; beyond it the oldest are forgotten.
    :ivar refused: topics of which the server does not take the number: not to be said before
        `again`.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._numbers: Numbers = {}
        self.refused: Numbers = {}

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        return bool(self._numbers)

    def add(self, letters: Iterable[Letter]) -> None:
        """These may not come to the server."""
        for letter in letters:
            self._add(letter.topic, letter.source, letter.sequence)

    def _add(self, topic: str, source: str, number: int) -> None:
        books = self.refused if topic in self.refused else self._numbers
        numbers = books.setdefault(topic, {})
        numbers[source] = max(number, numbers.get(source, 0))
        if len(books) > self._most:
            del books[next(iter(books))]

    def some(self, most: int) -> Numbers:
        """The numbers of so many topics at most."""
        return {topic: dict(numbers) for topic, numbers in islice(self._numbers.items(), most)}

    def refuse(self, topics: Iterable[str]) -> None:
        """The server does not take what is owed to these now."""
        for topic in topics:
            numbers = self._numbers.pop(topic, None)
            if numbers is not None:
                self.refused[topic] = numbers
                if len(self.refused) > self._most:
                    del self.refused[next(iter(self.refused))]

    def again(self, most: int | None = None) -> None:
        """It may take what it has refused, of so many topics at most; None: of all."""
        for topic in list(islice(self.refused, most)):
            for source, number in self.refused.pop(topic).items():
                self._add(topic, source, number)

    def told(self, told: Mapping[str, Mapping[str, int]]) -> None:
        """The server has these, and must not be told lower ones any more."""
        for books in (self._numbers, self.refused):
            for topic in books.keys() & told.keys():
                numbers = told[topic]
                # What is left goes behind all others.
                left = {s: n for s, n in books.pop(topic).items() if n > numbers.get(s, 0)}
                if left:
                    books[topic] = left

    def has(self, topic: str) -> bool:
        """Whether the server does not know of all messages of a topic that it has not."""
        return topic in self._numbers or topic in self.refused
