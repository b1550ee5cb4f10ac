"""Figures by what, server and name, one per run, and their medians."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

Key = tuple[str, str, str]


@dataclass
class Figures:
    """What was measured.

    :param notes: what could not be measured and why, in order, without repetition.
    """

    _values: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    _doubtful: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str, None] = field(default_factory=dict)

    def add(
        self, what: str, server: str, figures: dict[str, float], *, doubtful: bool = False
    ) -> None:
        """Add one run's figures, by name.

        :param doubtful: they count only where there are none that are not.
        """
        for name, value in figures.items():
            (self._doubtful if doubtful else self._values)[what, server, name].append(value)

    def note(self, what: str, server: str, why: str) -> None:
        """Say why there is no figure."""
        self.notes[f"{what}, {server}: {why}"] = None

    def median(self, what: str, server: str, name: str) -> float | None:
        """The median over the runs; None if there is none."""
        values = self._runs(what, server, name)
        return statistics.median(values) if values else None

    def highest(self, what: str, server: str, name: str) -> float | None:
        """The highest of the runs; None if there is none."""
        return max(self._runs(what, server, name), default=None)

    def spread(self, what: str, server: str, name: str) -> float:
        """Half the range over the median, as a share: how far runs differ."""
        values = self._runs(what, server, name)
        middle = statistics.median(values)
        return (max(values) - min(values)) / 2 / middle if middle else 0.0

    def ratio(self, what: str, name: str, server: str, other: str) -> float | None:
        """How many times the other server's median a server's is; None if one is missing."""
        mine, theirs = self.median(what, server, name), self.median(what, other, name)
        return mine / theirs if mine is not None and theirs else None

    def measured(self, what: str) -> set[str]:
        """The servers with a figure of this kind."""
        return {server for kind, server, _ in (*self._values, *self._doubtful) if kind == what}

    def kinds(self, prefix: str) -> list[str]:
        """What was measured, by prefix, in order."""
        keys = (*self._values, *self._doubtful)
        return list(dict.fromkeys(what for what, _, _ in keys if what.startswith(prefix)))

    def _runs(self, what: str, server: str, name: str) -> list[float]:
        key = (what, server, name)
        return self._values.get(key) or self._doubtful.get(key, [])
