"""What must be reached."""

from __future__ import annotations

from typing import NamedTuple


class Bar(NamedTuple):
    """What must be reached.

    :ivar most: whether the bound is the most allowed, instead of the least.
    """

    text: str
    value: float
    bound: float
    most: bool

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value < self.bound if self.most else self.value >= self.bound
