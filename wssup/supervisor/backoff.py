"""When a lost worker is tried again, and when no more."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(slots=True)
class Backoff:
    """The tries of one slot.

    Each loss doubles the delay, from ``shortest`` to ``longest``; a worker that lived for
    ``window`` resets it. Losses *at boot* are counted: ``budget`` of them, without one worker in
    between that lived for ``window``, end the tries, however long each took. Losses later do not
    count, or a client that can crash a worker could talk the service down for good.

    :ivar shortest: seconds before the first new try.
    :ivar longest: seconds at most.
    :ivar budget: failures at boot after which no more tries follow.
    :ivar window: seconds.
    """

    shortest: float
    longest: float
    budget: int
    window: float
    _delay: float = 0.0
    _boot_failures: int = 0

    def lost(self, *, at_boot: bool, lived: float) -> float | None:
        """A worker was lost; the seconds to wait before the next, or ``None``: the budget is spent.

        :param at_boot: it was never ready.
        :param lived: seconds from its start to its end.
        """
        if not at_boot and lived >= self.window:
            self.reset()
        self._delay = min(self.longest, self._delay * 2 if self._delay else self.shortest)
        if at_boot:
            self._boot_failures += 1
            if self._boot_failures >= self.budget:
                return None
        return self._delay

    def left(self, *, lived: float) -> float:
        """A worker leaves by itself; the seconds to wait before the next: none for the first one.

        :param lived: seconds since its start.
        """
        if lived >= self.window:
            self.reset()
        if not self._delay:
            # The next one that leaves so soon waits for ``shortest``.
            self._delay = self.shortest / 2
            return 0.0
        self._delay = min(self.longest, self._delay * 2)
        return self._delay

    def reset(self) -> None:
        """New code or a person's wish: all tries are open again."""
        self._delay = 0.0
        self._boot_failures = 0
