"""Questions to other nodes: who is subscribed to a topic, and what a client has missed. Pure.

Each has a deadline, and whoever asks gets an answer in any case, which says whether it is all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from wssup.topics.packets import Entry, Members, Recovered

__all__ = ["Found", "Present", "Questions"]

#: Bytes of messages that answers may have which are not complete yet, all together.
_MOST: Final = 64 << 20

Present: TypeAlias = Callable[[list[str], int, bool], None]
Found: TypeAlias = Callable[[list[Entry], bool], None]


class _Question:
    """One question, and what is known of its answer.

    :ivar open: who has yet to answer.
    """

    def __init__(self, asked: Iterable[int], deadline: float, limit: int) -> None:
        self.open = set(asked)
        self.deadline = deadline
        self.limit = limit
        self.complete = True


class _Presence(_Question):
    def __init__(self, asked: Iterable[int], deadline: float, limit: int, answer: Present) -> None:
        super().__init__(asked, deadline, limit)
        self.members: list[str] = []
        self.count = 0
        self._answer = answer

    def answer(self) -> None:
        self._answer(self.members, self.count, self.complete)


class _Recovery(_Question):
    def __init__(self, asked: Iterable[int], deadline: float, limit: int, answer: Found) -> None:
        super().__init__(asked, deadline, limit)
        self.entries: list[Entry] = []
        self.size = 0
        self._answer = answer

    def answer(self) -> None:
        self._answer(self.entries, self.complete)


class Questions:
    """The questions that are open.

    Methods return those that are answered by what they were told; it is for their caller to call
    them, when nothing else is half done.
    """

    def __init__(self) -> None:
        self._last = 0
        self._size = 0
        self._open: dict[int, _Presence | _Recovery] = {}

    def presence(
        self,
        asked: list[int],
        deadline: float,
        limit: int,
        answer: Present,
        known: tuple[list[str], int],
        *,
        complete: bool,
    ) -> int:
        """Ask who is subscribed; the question's number.

        :param known: the members here, and their count.
        :param complete: nobody was left out.
        """
        question = _Presence(asked, deadline, limit, answer)
        question.members, question.count = list(known[0][:limit]), known[1]
        question.complete = complete
        return self._enter(question)

    def recovery(
        self, asked: list[int], deadline: float, limit: int, answer: Found, *, complete: bool
    ) -> int:
        """Ask for what was missed; the question's number.

        :param complete: there is somebody who may know all.
        """
        question = _Recovery(asked, deadline, limit, answer)
        question.complete = complete
        return self._enter(question)

    def _enter(self, question: _Presence | _Recovery) -> int:
        self._last += 1
        self._open[self._last] = question
        return self._last

    def members(self, serial: int, packet: Members) -> list[Callable[[], None]]:
        """An answer to the first kind."""
        question = self._open.get(packet.question)
        if not isinstance(question, _Presence) or serial not in question.open:
            return []
        question.count += packet.count
        question.members += packet.members[: max(0, question.limit - len(question.members))]
        question.open.discard(serial)
        return self._done([packet.question])

    def recovered(self, serial: int, packet: Recovered) -> list[Callable[[], None]]:
        """A piece of an answer to the second kind."""
        question = self._open.get(packet.question)
        if not isinstance(question, _Recovery) or serial not in question.open:
            return []
        room = question.limit - len(question.entries)
        found = packet.entries[: max(0, room)]
        question.entries += found
        size = sum(len(entry.data) for entry in found)
        question.size += size
        self._size += size
        if len(packet.entries) > room:
            question.complete = False
        if self._size > _MOST:
            question.complete = False
            question.open.clear()
        elif packet.last:
            question.complete = question.complete and packet.complete
            question.open.discard(serial)
        return self._done([packet.question])

    def left(self, serial: int) -> list[Callable[[], None]]:
        """A node is gone: it has no members any more, and nothing that was missed."""
        for question in self._open.values():
            if serial in question.open:
                question.open.discard(serial)
                if isinstance(question, _Recovery):
                    question.complete = False
        return self._done()

    def expired(self, now: float) -> list[Callable[[], None]]:
        """Those that have waited for long enough."""
        for question in self._open.values():
            if question.deadline <= now and question.open:
                question.complete = False
                question.open.clear()
        return self._done()

    def give_up(self, number: int) -> list[Callable[[], None]]:
        """A question that could not be asked."""
        question = self._open[number]
        question.complete = False
        question.open.clear()
        return self._done([number])

    def settle(self, number: int) -> list[Callable[[], None]]:
        """A question that nobody has to answer."""
        return self._done([number])

    def _done(self, numbers: Iterable[int] | None = None) -> list[Callable[[], None]]:
        looked = self._open if numbers is None else numbers
        over = [n for n in looked if n in self._open and not self._open[n].open]
        found = [self._open.pop(number) for number in over]
        for question in found:
            if isinstance(question, _Recovery):
                self._size -= question.size
        return [question.answer for question in found]
