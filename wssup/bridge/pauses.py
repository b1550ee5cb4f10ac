"""How long to wait between two tries to reach the server. Pure but for the dice it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Pauses"]


@dataclass(slots=True)
class Pauses:
    """Exponential backoff with full jitter: all instances lose a server at the same moment, and
    come back spread out.

    :ivar shortest: seconds that the first pause is at most.
    :ivar longest: seconds that any pause is at most.
    :ivar lasting: seconds that a connection must have lived for the next pause to be a first one: a
        server that takes connections only to drop them is not asked ever faster.
    :ivar dice: a number from 0 to below 1, evenly spread.
    """

    shortest: float
    longest: float
    lasting: float
    dice: Callable[[], float]
    _bound: float = 0.0

    def next(self, *, lived: float) -> float:
        """The seconds until the next try.

        :param lived: seconds that the last connection lived; 0: there was none.
        """
        if lived >= self.lasting:
            self._bound = 0.0
        self._bound = min(self.longest, self._bound * 2 if self._bound else self.shortest)
        return self._bound * self.dice()
