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
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._numbers: Numbers = {}

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self._numbers)

    def add(self, letters: Iterable[Letter]) -> None:
        """These may not come to the server."""
        for letter in letters:
            numbers = self._numbers.setdefault(letter.topic, {})
            numbers[letter.source] = max(letter.sequence, numbers.get(letter.source, 0))
            if len(self._numbers) > self._most:
                del self._numbers[next(iter(self._numbers))]

    def some(self, most: int) -> Numbers:
        """The numbers of so many topics at most."""
        return {topic: dict(numbers) for topic, numbers in islice(self._numbers.items(), most)}

    def told(self, told: Mapping[str, Mapping[str, int]]) -> None:
        """The server has these."""
        for topic, numbers in told.items():
            left = {
                source: number
                for source, number in self._numbers.get(topic, {}).items()
                if number > numbers.get(source, 0)
            }
            if left:
                self._numbers[topic] = left
            else:
                self._numbers.pop(topic, None)
