"""Whether the machine runs at its own pace: else figures are of what its host does besides.

A virtual processor that shares its core with another machine's is slower by half for as long as
that one is busy, for milliseconds or for hours, and no counter of this machine tells. Who measures
several servers one after the other compares what the host did meanwhile.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Final, TypeVar

from benchmarks.engine.machine import processors

T = TypeVar("T")

#: How much slower than at its fastest a processor may be.
SLOWER: Final = 1.5
#: Times that something is measured at most for one figure.
_TRIES: Final = 4
#: Looks at each processor, of which the middle one counts; rounds of them at first, and seconds
#: between two rounds.
_LOOKS: Final = 3
_FIRST: Final = 10
_PAUSE: Final = 0.5


class Pace:
    """The machine's pace while something is measured.

    :param patience: seconds that are waited in all for a machine that is slow, at most.
    """

    def __init__(self, patience: float = 600.0) -> None:
        self._left = patience
        self._fastest = math.inf
        self._figures = self._steady = self._again = 0
        self._waited = 0.0
        for _ in range(_FIRST):
            self._keeps()
            time.sleep(_PAUSE / 5)

    def measured(self, measure: Callable[[], T]) -> T:
        """Measure while the machine keeps its pace; again, if it did not before and after.

        What was measured has no say in that. In the end the last figure counts, whatever it was.
        """
        for tries in range(1, _TRIES + 1):
            before = self._wait()
            found = measure()
            steady = self._keeps() and before
            if steady or tries == _TRIES or self._left <= 0:
                break
            self._again += 1
        self._figures += 1
        self._steady += steady
        return found

    def told(self) -> str:
        """A line for the tables: how it was."""
        bound = f"at most {SLOWER} times its fastest, {self._fastest:.1f} ms"
        return (
            f"- {self._steady} of {self._figures} figures measured with both processors at their "
            f"own pace before and after (a loop of Python took {bound}); {self._again} more were "
            f"not and were measured again, {self._waited:.0f} s were waited for it"
        )

    def _wait(self) -> bool:
        """Whether it keeps its pace, perhaps after a while."""
        began = time.monotonic()
        while not (keeps := self._keeps()) and time.monotonic() - began < self._left:
            time.sleep(_PAUSE)
        waited = time.monotonic() - began
        self._left -= waited
        self._waited += waited
        return keeps

    def _keeps(self) -> bool:
        """Whether both processors do now."""
        allowed = os.sched_getaffinity(0)
        slowest = 0.0
        try:
            for processor in processors():
                os.sched_setaffinity(0, {processor})
                looks = [_look() for _ in range(_LOOKS)]
                self._fastest = min(self._fastest, *looks)
                slowest = max(slowest, statistics.median(looks))
        finally:
            os.sched_setaffinity(0, allowed)
        return slowest <= SLOWER * self._fastest


def _look() -> float:
    """Milliseconds of processor time that a fixed piece of work takes here."""
    began = time.thread_time()
    table: dict[int, int] = {}
    for number in range(50_000):
        table[number & 1023] = number * number % 7
    return (time.thread_time() - began) * 1e3
