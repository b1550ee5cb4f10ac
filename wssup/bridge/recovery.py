"""What of a topic's history somebody has missed, and whether that is all of it. Pure.

The history is read from its newest message back. Each message says after which number its publisher
had none in this topic (`Parcel.after`), so a publisher's part is whole when its messages chain up,
without a gap, down to the mark of the one who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wssup.bridge.packing import Parcel
from wssup.topics.retained import SLACK, WALL

__all__ = ["Recovery"]


class Recovery:
    """One question to the history of one topic.

    :param marks: by source the highest number that was seen.
    :param lasts: by source the number of the last message that the server was given, as known
        *before* the first message was read.
    :param limit: messages to find at most; :param size: and bytes of them, about.
    :param oldest: seconds since the epoch; what was published before is not given any more.
    :param known: seconds since the epoch; of who published before that, and not since, the server
        may know nothing any more.
    :param mine: how sources begin whose messages may be seen before the server has them.
    """

    def __init__(
        self,
        marks: Mapping[str, int],
        lasts: Mapping[str, int],
        *,
        limit: int,
        size: int,
        oldest: float,
        known: float = 0.0,
        mine: str = "",
    ) -> None:
        # Of a publisher that the position does not name, its maker had given all that is older, or
        # it was before the subscription.
        self._before = (marks.get(WALL, 0) - SLACK) / 1000
        # One whose publisher and all of its topic have been silent since for longer than the server
        # remembers cannot be told of.
        is_known = WALL not in marks or self._before >= known
        # Sources number 0 are no publishers: positions have the time there (topics/history.py).
        marks = {source: mark for source, mark in marks.items() if not source.endswith(".0")}
        self._marks = marks
        self._limit = limit
        self._size = size
        self._oldest = oldest
        self._found: list[Parcel] = []
        # By source: at or below which number the next older message must be if none is missing.
        self._until: dict[str, int] = {
            source: last for source, last in lasts.items() if last > marks.get(source, 0)
        }
        self._open = set(self._until)
        # A source that the server does not know any more, or not up to there: it has lost its
        # memory meanwhile, or went back to what it had saved.
        self._whole = (
            bool(lasts)
            and is_known
            and all(
                source in lasts
                and (lasts[source] >= mark or bool(mine and source.startswith(mine)))
                for source, mark in marks.items()
            )
        )

    @property
    def done(self) -> bool:
        """Whether older messages would change nothing."""
        return not self._open or len(self._found) >= self._limit or self._size <= 0

    def read(self, parcels: Iterable[Parcel]) -> None:
        """The next older messages, from newer to older; ``at`` is when they were kept, all by one
        clock.
        """
        for parcel in parcels:
            if len(self._found) >= self._limit or self._size <= 0:
                return
            self._one(parcel)

    def _one(self, parcel: Parcel) -> None:
        source, mark = parcel.source, self._marks.get(parcel.source, 0)
        if parcel.at < self._before:
            self._open &= self._marks.keys()
            if source not in self._marks:
                return
        until = self._until.get(source)
        if until is None:
            if parcel.sequence <= mark:
                return
            # Published since the last numbers were read.
            self._open.add(source)
        elif source not in self._open:
            return
        elif max(parcel.sequence, mark) < until:
            # Between this one and the next newer one there was another.
            self._whole = False
        if parcel.sequence <= mark or parcel.at < self._oldest:
            self._whole = self._whole and parcel.sequence <= mark
            self._open.discard(source)
            return
        self._found.append(parcel)
        self._size -= len(parcel.data)
        self._until[source] = parcel.after
        if parcel.after <= mark:
            self._open.discard(source)

    def result(self) -> tuple[list[Parcel], bool]:
        """What was missed, the oldest first, and whether it is all of it."""
        return self._found[::-1], self._whole and not self._open
