"""Connections that came from a worker which was further than this one: what they have already of
what is still to come here. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wssup.server.connection import Connection

__all__ = ["Floors"]

#: Seconds in which the master tells of a new worker everywhere; one that is not known by then has
#: been gone for long.
_STRANGE: Final = 60.0


class Floors:
    """The books.

    :ivar numbers: by connection and by node, up to which number it has what that put on the bus.
    """

    def __init__(self) -> None:
        self.numbers: dict[Connection, dict[int, int]] = {}
        #: Until when a node that is not known here may still turn out to be a new one.
        self._until: dict[Connection, float] = {}

    def raised(self, connection: Connection, floor: dict[int, int], now: float) -> None:
        """A connection has come, at ``time.monotonic()``."""
        if floor:
            self.numbers[connection] = floor
            self._until[connection] = now + _STRANGE

    def of(self, connection: Connection) -> Mapping[int, int]:
        """What a connection has."""
        return self.numbers.get(connection, {})

    def drop(self, connection: Connection) -> None:
        """It is gone."""
        self.numbers.pop(connection, None)
        self._until.pop(connection, None)

    def tidy(self, seen: Mapping[int, int], now: float) -> None:
        """Forget what has come here by now, and nodes that nothing comes from any more.

        :param seen: by node, the highest number that was processed here.
        """
        for connection, floor in list(self.numbers.items()):
            strange = now < self._until[connection]
            left = {c: n for c, n in floor.items() if (n > seen[c] if c in seen else strange)}
            if left:
                self.numbers[connection] = left
            else:
                self.drop(connection)
