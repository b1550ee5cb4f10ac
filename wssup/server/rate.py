"""A token bucket: so many of something a second, and a second's worth at once. Pure."""

from __future__ import annotations

import math

__all__ = ["TokenBucket"]


class TokenBucket:
    """Lets things happen at a rate.

    In any span of ``t`` seconds no more than ``burst + rate * t`` happen.

    :param rate: how many a second; 0: as many as come.
    :param now: seconds on any clock that does not jump; it is full then.
    :ivar burst: how many may happen at once: a second's worth, and one at least.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.burst = max(1.0, rate)
        self._tokens = self.burst
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until the next one may happen; 0: it may now."""
        if not self.rate:
            return 0.0
        self._fill(now)
        if self._tokens >= 1:
            return 0.0
        # Not before the token is whole, whatever was lost in rounding.
        return math.nextafter((1 - self._tokens) / self.rate, math.inf)

    def take(self) -> None:
        """One happens, for which `wait` has just said 0."""
        if self.rate:
            self._tokens -= 1

    def change(self, rate: float, now: float) -> None:
        """Go on with another rate; what was there at once is not there again."""
        if rate == self.rate:
            return
        self._fill(now)
        was_limited, self.rate = self.rate, rate
        self.burst = max(1.0, rate)
        self._tokens = min(self._tokens, self.burst) if was_limited else self.burst

    def _fill(self, now: float) -> None:
        passed, self._at = max(0.0, now - self._at), max(now, self._at)
        self._tokens = min(self.burst, self._tokens + passed * self.rate)
