"""What a worker says of trouble that comes with every message of a storm: once in a while."""

from __future__ import annotations

import time
from typing import Final

from wssup import logs
from wssup.server.connection import Connection

__all__ = ["SLOW", "Complaints"]

#: Seconds of application code inside a turn that are worth a warning.
SLOW: Final = 0.1
#: Seconds between two warnings of one kind.
_QUIET: Final = 10.0


class Complaints:
    """Warnings, each kind once in a while."""

    def __init__(self) -> None:
        self._log = logs.get()
        self._quiet_until: dict[str, float] = {}

    def took(self, connection: Connection, hook: str, seconds: float) -> None:
        """How long a plain hook of the application held up everybody."""
        if seconds > SLOW:
            self.warn(
                "application_blocks",
                hook=hook,
                seconds=round(seconds, 3),
                connection=connection.id,
                hint="a plain hook runs in the worker's turn and must not block: use async def",
            )

    def warn(self, event: str, **fields: object) -> None:
        """Say it, unless it was said a moment ago."""
        now = time.monotonic()
        if now >= self._quiet_until.get(event, 0.0):
            self._quiet_until[event] = now + _QUIET
            self._log.warning(event, **fields)
