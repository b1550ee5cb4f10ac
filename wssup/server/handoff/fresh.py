"""Connections that have come and of which it is not known yet whether the application goes on with
them.

A session's receiver wants to know: too many that fail roll the rollout back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from wssup.server.connection import Connection

__all__ = ["Fresh", "News", "Waits", "place"]

#: Seconds after which an application that has not raised is taken to go on with a connection.
_PATIENCE: Final = 1.0
#: Kinds of problems that a worker tells of.
_KINDS: Final = 100


class Waits(Protocol):
    """Who wants to know whether the application goes on with a connection."""

    def known(self, *, failed: bool) -> None:
        """It does, or cannot."""

    def end(self, error: str) -> None:
        """No more connections come from there."""


class Fresh:
    """All of them, in the order in which they came.

    :param changed: called when one has come or is settled.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._since: dict[Connection, tuple[Waits | None, float]] = {}
        self._changed = changed
        self._looked = 0.0

    def __bool__(self) -> bool:
        return bool(self._since)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._since

    def add(self, connection: Connection, waits: Waits | None, now: float) -> None:
        """One has come, at ``now`` in seconds of CLOCK_MONOTONIC."""
        self._since[connection] = (waits, now)
        self._changed()

    def settle(self, connection: Connection, *, failed: bool) -> None:
        """It is known now; says nothing of a connection that was settled before."""
        found = self._since.pop(connection, None)
        if found is None:
            return
        self._changed()
        if found[0] is not None:
            found[0].known(failed=failed)

    def look(self, now: float) -> None:
        """An application that has not raised for a while goes on; unless this worker stood still
        meanwhile, and the application with it.
        """
        stood_still = now - self._looked > _PATIENCE
        self._looked = now
        if stood_still:
            return
        for connection, (_, since) in list(self._since.items()):
            if now - since < _PATIENCE:
                break
            self.settle(connection, failed=False)


class News:
    """Problems that are told once for each kind: thousands of connections may have the same."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def is_news(self, kind: str) -> bool:
        """Whether a problem of this kind was not told yet; from now on it was."""
        if kind in self._told or len(self._told) >= _KINDS:
            return False
        self._told.add(kind)
        return True


def place(error: BaseException) -> str:
    """Where an exception was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
