"""What the talking clients saw: round trips before, during and after a reload."""

from __future__ import annotations

import statistics
import struct
from dataclasses import dataclass, field
from pathlib import Path

#: One answer, as reload.c writes it: when the text was sent (ns, wall clock), the round trip (µs),
#: the connection, the process that answered, the text's number.
_SAMPLE = struct.Struct("=QIIII")


@dataclass
class Span:
    """A time that is looked at (ns, wall clock), and the longest round trip of each connection
    that was under way then (ms).
    """

    began: int
    ended: int
    longest: dict[int, float] = field(default_factory=dict)

    def add(self, connection: int, sent: int, round_trip_us: int) -> None:
        """Take a round trip into account, if it was under way in this time."""
        if sent <= self.ended and sent + round_trip_us * 1000 >= self.began:
            ms = round_trip_us / 1000
            if ms > self.longest.get(connection, 0.0):
                self.longest[connection] = ms

    def quantile(self, share: float) -> float:
        """Of the connections' longest round trips; in ms, NaN if there are none."""
        ordered = sorted(self.longest.values())
        return (
            ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
        )


@dataclass(frozen=True)
class Seen:
    """What talking clients saw of a reload.

    :param usual: the median round trip before it; in ms.
    :param moving: while connections moved; ``reload`` during all of it.
    :param spread: between the first and the last first answer of a new process; in seconds.
    :param per_second: answers before the reload.
    """

    usual: float
    moving: Span
    reload: Span
    spread: float
    per_second: float


def seen(file: Path, moving: Span, reload: Span) -> Seen:
    """Read what a reload's talkers saw.

    :param file: as reload.c wrote it.
    """
    before = []
    first = last = 0
    answering: dict[int, int] = {}
    for sent, round_trip, connection, pid, _ in _SAMPLE.iter_unpack(file.read_bytes()):
        if sent < reload.began:
            before.append((sent, round_trip))
        else:
            reload.add(connection, sent, round_trip)
            moving.add(connection, sent, round_trip)
        if answering.setdefault(connection, pid) != pid:
            answering[connection] = pid
            last = sent + round_trip * 1000
            first = first or last
    seconds = (before[-1][0] - before[0][0]) / 1e9 if len(before) > 1 else 0.0
    return Seen(
        usual=statistics.median(trip for _, trip in before) / 1000 if before else float("nan"),
        moving=moving,
        reload=reload,
        spread=(last - first) / 1e9,
        per_second=len(before) / seconds if seconds else 0.0,
    )
