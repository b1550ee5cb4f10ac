"""Progress of long commands, told to whoever follows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

__all__ = ["Events"]

#: A follower that is so many events behind is stuck and is dropped.
_BEHIND = 256


class Events:
    """A broadcast of JSON-like events."""

    def __init__(self) -> None:
        self._followers: set[trio.MemorySendChannel[dict[str, Any]]] = set()

    def tell(self, event: str, **fields: object) -> None:
        """Send to all followers; one that does not read loses its place."""
        self.forward({"event": event, **fields})

    def forward(self, event: dict[str, Any]) -> None:
        """Send an event as it is."""
        for follower in list(self._followers):
            try:
                follower.send_nowait(event)
            except trio.WouldBlock:
                self._followers.discard(follower)
                follower.close()
            except trio.BrokenResourceError:
                self._followers.discard(follower)

    def __len__(self) -> int:
        """How many follow."""
        return len(self._followers)

    def end(self) -> None:
        """No more events follow for those who follow now."""
        for follower in self._followers:
            follower.close()
        self._followers.clear()

    @contextmanager
    def follow(self) -> Iterator[trio.MemoryReceiveChannel[dict[str, Any]]]:
        """Events from now on."""
        sender, receiver = trio.open_memory_channel[dict[str, Any]](_BEHIND)
        self._followers.add(sender)
        try:
            with receiver:
                yield receiver
        finally:
            self._followers.discard(sender)
