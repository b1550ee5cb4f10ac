"""The first moments of an instance, in which its workers become ready one after the other.

Connections have waited since the master listens, after a restart of the service all that there
were. The worker that is ready first must not get those of the others, whose slots are served a
moment later. So until then a slot whose worker boots counts as served.
"""

from __future__ import annotations

import math

import trio

from wssup.supervisor.children import Slot
from wssup.supervisor.slots import State

__all__ = ["Booting"]

#: Seconds after the first worker for which the others are waited for.
_PATIENCE = 1.0


class Booting:
    """Knows how long that is."""

    def __init__(self) -> None:
        self._until = math.inf
        self._begun = trio.Event()

    def awaits(self, slot: Slot) -> bool:
        """Whether a slot is about to be served for the first time."""
        return slot.state is State.STARTING and trio.current_time() < self._until

    def one_serves(self) -> None:
        """A worker accepts; says nothing new but for the first time."""
        if not self._begun.is_set():
            self._begun.set()
            self._until = trio.current_time() + _PATIENCE

    async def wait_over(self) -> None:
        """Wait until nobody is waited for any more."""
        await self._begun.wait()
        await trio.sleep_until(self._until)
