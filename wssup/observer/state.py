"""What the observer knows: what the master told last, and the scoreboard."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final

import msgspec

from wssup.scoreboard import Scoreboard, Snapshot
from wssup.status.document import document, slot_document
from wssup.status.facts import Facts

__all__ = ["RECENT", "State"]

#: Lifecycle events that are kept for those who come later; as many as the master keeps.
RECENT: Final = 100


class State:
    """The instance as the observer sees it.

    :ivar facts: the newest; ``known`` is set once the master has told any, before which nothing
        here is asked for.
    :ivar events: the recent lifecycle events, the oldest first.
    :ivar heard_at: when the master last said something, in seconds of CLOCK_MONOTONIC.
    :ivar ending: the observer ends.
    """

    facts: Facts

    def __init__(self, board: Scoreboard) -> None:
        self.board = board
        self.known = asyncio.Event()
        self.events: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.heard_at = time.monotonic()
        self.ending = False
        self._changed = asyncio.Event()

    def snapshot(self) -> Snapshot:
        """The counts, now. Nobody is asked for them."""
        return self.board.snapshot()

    def document(self) -> dict[str, Any]:
        """The status document, now."""
        return document(self.facts, self.snapshot(), self.board.bridge(), time.monotonic_ns())

    def slot(self, number: int) -> dict[str, Any] | None:
        """A slot with all counts of its workers; ``None`` if there is none of that number."""
        return slot_document(self.facts, self.snapshot(), number, time.monotonic_ns())

    def beat(self) -> bytes:
        """The payload of a ``state`` event, now."""
        return msgspec.json.encode({"at": round(time.time(), 3), "status": self.document()})

    @property
    def last(self) -> int:
        """The number of the newest lifecycle event."""
        return self.events[-1]["seq"] if self.events else 0

    def since(self, number: int) -> list[dict[str, Any]]:
        """The recent lifecycle events after the one of that number; all of them, if there was none
        of that number yet: it was an earlier master's.
        """
        after = number if number <= self.last else 0
        return [event for event in self.events if event["seq"] > after]

    def changed(self) -> None:
        """Wake who waits in :meth:`change`."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until an event happened, or the end begins."""
        await self._changed.wait()
