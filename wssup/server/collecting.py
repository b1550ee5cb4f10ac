"""When the garbage collector runs.

Python's collector stops the world. Its oldest generation holds every object of every connection,
and by default it is looked through whenever a quarter of it is new: with 15 000 connections in task
style that is tens of milliseconds, again and again while connections come and go. The engine itself
leaves no cycles behind, so that is work for nothing; an application may leave some.

So what existed before the worker serves is frozen, young objects are looked through often and in
small portions, and the old generation only when there is reason to: as many connections have gone
as are there, or very much was allocated; and ever more rarely as long as nothing is found. ``make
bench`` measures the longest pause.
"""

from __future__ import annotations

import gc
import time
from typing import Final

from wssup import logs

__all__ = ["Collecting"]

#: Net allocations until the young generation is looked through, and how often that happens until
#: the middle one is: some 25 000 objects at most, a few milliseconds.
_YOUNG: Final = 5_000
_MIDDLE: Final = 5
#: Never by itself.
_OLD: Final = 1_000_000_000
#: The old generation is looked through when so many of the middle one's rounds have gone by …
_ROUNDS: Final = 1_000
#: … or so many connections.
_LEAST_GONE: Final = 5_000
#: How many times less often when nothing is ever found.
_MOST_PATIENCE: Final = 64


class Collecting:
    """The collector of a worker. Made when the worker is about to serve."""

    def __init__(self) -> None:
        self._gone = 0
        self._patience = 1
        self._log = logs.get()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, _MIDDLE, _OLD)

    def look(self, connections: int, gone: int) -> None:
        """Collect all garbage if there is reason to.

        :param connections: how many there are.
        :param gone: how many have gone in all.
        """
        enough = gone - self._gone >= max(_LEAST_GONE, connections) * self._patience
        if not enough and gc.get_count()[2] < _ROUNDS * self._patience:
            return
        began = time.monotonic()
        found = gc.collect()
        self._log.debug(
            "garbage_collected",
            objects=found,
            connections_gone=gone - self._gone,
            seconds=round(time.monotonic() - began, 3),
        )
        self._gone = gone
        # An application that leaves no cycles need not be searched so often.
        self._patience = 1 if found else min(2 * self._patience, _MOST_PATIENCE)
