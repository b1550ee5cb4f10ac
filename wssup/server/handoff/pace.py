"""How many connections a handoff session has on their way at a time. Pure: it is told the time."""

from __future__ import annotations

from typing import Final

from wssup.server.handoff.link import BATCH

__all__ = ["Pace"]

#: Connections that may be on their way at a time: enough that neither end waits, and far below
#: what may be in flight (RLIMIT_NOFILE). Each that is on its way waits, so there are fewer when
#: answers take longer than these seconds; but not too few, for on a machine where many processes
#: share a processor every answer takes long.
_MOST: Final = 4 * BATCH
_FEWEST: Final = BATCH
_PROMPT: Final = 0.08


class Pace:
    """A window that grows with prompt answers.

    :param failures: how many connections may fail to resume; the receiver takes no more at a time.
    :ivar window: connections.
    """

    def __init__(self, failures: int) -> None:
        self._most = min(_MOST, max(4, 2 * failures))
        self.window = min(2 * _FEWEST, self._most)
        self._narrowed = 0.0

    def answered(self, sent: float, now: float, count: int) -> None:
        """So many were taken, of which the oldest was sent at a moment; in seconds."""
        if now - sent < _PROMPT:
            self.window = min(self.window + count, self._most)
        elif sent > self._narrowed:
            # Once for all that were on their way together.
            self._narrowed = now
            self.window = max(self.window // 2, min(_FEWEST, self._most))
