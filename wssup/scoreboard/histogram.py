"""A histogram as the scoreboard keeps it: counts between bounds, and the exact sum."""

from __future__ import annotations

from itertools import pairwise

import msgspec

__all__ = ["Histogram"]


class Histogram(msgspec.Struct, frozen=True):
    """Durations by buckets.

    :ivar bounds: where the buckets end, exclusive, in seconds.
    :ivar counts: one for each bound, and one for what lies above the last.
    :ivar sum: of all durations, in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many durations."""
        return sum(self.counts)

    @property
    def max(self) -> float:
        """None was longer, in seconds: the bound of the highest bucket in use, 0 if none is.

        A duration above the last bound is shown as that bound.
        """
        used = (bound for (_, bound), count in self._buckets() if count)
        return max(used, default=0.0)

    def quantile(self, share: float) -> float:
        """The duration that a share of all did not exceed.

        Interpolated within its bucket. Above the last bound the answer is that bound, as in
        Prometheus's ``histogram_quantile``.

        :param share: 0 to 1, as in 0.99.
        :returns: seconds; 0 if there are none.
        """
        rank = share * self.count
        for (low, high), count in self._buckets():
            if count and rank <= count:
                return low + (high - low) * rank / count
            rank -= count
        return self.max

    def _buckets(self) -> zip[tuple[tuple[float, float], int]]:
        """The topmost has no bound above and is taken as a point."""
        ranges = pairwise((0.0, *self.bounds, self.bounds[-1]))
        return zip(ranges, self.counts, strict=True)
