"""Whether the machine runs at its own pace: else figures are of what its host does besides.

A virtual processor that shares its core with another machine's is slower by a third to a half for
as long as that one is busy, for milliseconds or for hours, and it may be taken away altogether for
some milliseconds. A program that measures looks at it while it measures, and counts the time only
in which the processors were there and as fast as they can be (``native/pace.c``); what it measured
has no say in that.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.engine.machine import processors
from benchmarks.engine.native import BUILD

#: Seconds of looking before anything is measured, and before each figure.
_FIRST, _EACH = 5.0, 0.5
#: How many times longer a measurement may take until enough of it counts.
_LONGER: Final = 6.0


class Pace:
    """What is known of the processors' pace, over all measurements.

    :ivar last: how much of the last one counted, for people.
    """

    def __init__(self) -> None:
        self._watch = ",".join(str(processor) for processor in sorted(set(processors())))
        self._seen = self._look(_FIRST)
        self._figures = self._steady = 0
        self._kept = self._measured = 0.0
        self.last = ""

    def measured(
        self, measure: Callable[[Mapping[str, object]], dict[str, float]], seconds: float
    ) -> dict[str, float]:
        """Measure for so many seconds that count.

        :param measure: gets the options that a program of ``native`` needs for it, by name.
        :returns: the figures of the time that counts; of all of it, and not ``steady``, if not
            even a quarter of the seconds did within six times as many.
        """
        self._seen = min(self._seen, self._look(_EACH), key=lambda seen: seen["fastest_ns"])
        fastest = int(self._seen["fastest_ns"])
        options = {"watch": self._watch, "fastest": fastest, "longest": seconds * _LONGER}
        found = measure(options)
        self._figures += 1
        self._steady += bool(found["steady"])
        self._kept += found["kept_s"]
        self._measured += found["measured_s"]
        self.last = f"{found['kept_s']:.1f} of {found['measured_s']:.1f} s count"
        return found

    def told(self) -> str:
        """A line for the tables: how it was."""
        seen = self._seen
        return (
            f"- {self._steady} of {self._figures} figures are of the tenths of a second in which "
            f"both processors ran at their own pace (a fixed piece of work, begun every "
            f"{seen['every_ms']:g} ms, took at most {seen['slower']:g} times its fastest, "
            f"{seen['fastest_ns'] / 1e3:.1f} µs, and none was {seen['late_ms']:g} ms late), "
            f"{self._kept:.0f} s of the {self._measured:.0f} s that were measured; the others are "
            "of all of it, and count only where there are no such"
        )

    def _look(self, seconds: float) -> dict[str, float]:
        """What ``native/look.c`` prints after so many seconds."""
        command = [str(BUILD / "look"), self._watch, str(seconds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seen: dict[str, float] = json.loads(done.stdout)
        return seen
