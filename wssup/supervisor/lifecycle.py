"""What happens in the life of the instance: the events that the master logs at ``info`` and above,
whatever level the log itself has.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from wssup.supervisor.events import Events

__all__ = ["RECENT", "Lifecycle"]

#: Events that are kept for those who ask later.
RECENT: Final = 100
#: Characters of a text among an event's fields; a longer one is cut.
_LONGEST_TEXT: Final = 1000
#: Items of a list or a table among them.
_MOST_ITEMS: Final = 100
#: What belongs to the line of a log. A traceback can show what nobody outside should see.
_NOT_FIELDS: Final = frozenset({"exception", "exc_info", "stack_info", "timestamp"})


class Lifecycle:
    """The events, numbered from 1.

    :ivar recent: the last ones, as JSON-like data: ``seq``, ``at`` (seconds since the epoch),
        ``level``, ``event``, and its fields.
    :ivar on_news: called after each.
    """

    def __init__(self) -> None:
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.on_news: Callable[[], None] | None = None
        self._number = 0
        self._followers = Events()

    def record(self, level: str, event: Mapping[str, Any]) -> None:
        """Keep an event and tell it; a processor of the log calls this."""
        self._number += 1
        fields = {
            key: _short(value)
            for key, value in event.items()
            if key not in _NOT_FIELDS and value is not None
        }
        first = {
            "seq": self._number,
            "at": round(time.time(), 3),
            "level": level,
            "event": str(event.get("event", "")),
        }
        # No field of theirs takes the place of these, which come first.
        entry = first | fields | first
        self.recent.append(entry)
        self._followers.forward(entry)
        if self.on_news is not None:
            self.on_news()

    def since(self, number: int) -> list[dict[str, Any]]:
        """The recent events after the one of that number."""
        first = self._number - len(self.recent)
        return list(self.recent)[max(0, number - first) :]

    @property
    def followers(self) -> int:
        """How many follow."""
        return len(self._followers)

    def follow(
        self,
    ) -> contextlib.AbstractContextManager[trio.MemoryReceiveChannel[dict[str, Any]]]:
        """Events from now on; one who does not read them loses its place."""
        return self._followers.follow()

    def end(self) -> None:
        """No more events follow for those who follow now."""
        self._followers.end()


def _short(value: Any, depth: int = 0) -> Any:
    """A field as JSON-like data of bounded size."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return int(value)
    if isinstance(value, Mapping) and depth < 2:
        few = list(value.items())[:_MOST_ITEMS]
        return {str(key)[:_LONGEST_TEXT]: _short(item, depth + 1) for key, item in few}
    if isinstance(value, list | tuple | set | frozenset) and depth < 2:
        return [_short(item, depth + 1) for item in list(value)[:_MOST_ITEMS]]
    text = str(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
