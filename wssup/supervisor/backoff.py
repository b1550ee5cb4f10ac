"""When a lost worker is tried again, and when no more."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["Backoff"]


@dataclass(slots=True)
class Backoff:
    """The tries of one slot.

    Each loss doubles the delay, from ``shortest`` to ``longest``; a worker that lived for
    ``window`` resets it. Losses *at boot* are counted: ``budget`` of them within ``window`` end the
    tries. Losses later do not count, or a client that can crash a worker could talk the service
    down for good.

    :ivar shortest: seconds before the first new try.
    :ivar longest: seconds at most.
    :ivar budget: failures at boot within ``window`` after which no more tries follow.
    :ivar window: seconds.
    """

    shortest: float
    longest: float
    budget: int
    window: float
    _delay: float = 0.0
    _boot_failures: deque[float] = field(default_factory=deque)

    def lost(self, now: float, *, at_boot: bool, lived: float) -> float | None:
        """A worker was lost; the seconds to wait before the next, or ``None``: the budget is spent.

        :param now: seconds, monotonic.
        :param at_boot: it was never ready.
        :param lived: seconds from its start to its end.
        """
        if not at_boot and lived >= self.window:
            self._delay = 0.0
        self._delay = min(self.longest, self._delay * 2 if self._delay else self.shortest)
        if at_boot:
            self._boot_failures.append(now)
            while self._boot_failures and now - self._boot_failures[0] > self.window:
                self._boot_failures.popleft()
            if len(self._boot_failures) >= self.budget:
                return None
        return self._delay

    def reset(self) -> None:
        """New code or a person's wish: all tries are open again."""
        self._delay = 0.0
        self._boot_failures.clear()
