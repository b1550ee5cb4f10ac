"""What applications are told about topics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["Presence", "Subscription", "SubscriptionLimitError"]


class SubscriptionLimitError(RuntimeError):
    """A connection, or a worker, has as many topics as it may have."""


@dataclass(slots=True)
class Subscription:
    """The answer to ``ws.subscribe``.

    :ivar topic: its name.
    :ivar position: where the subscriber is now, for ``since`` another time; empty without history.
    :ivar recovered: with ``since``: whether the subscriber has been sent everything after that
        position. ``None`` while a server is asked for it (``topics.bus_history``). Without
        ``since``: true.
    :ivar missed: with ``since``: how many messages it was sent that it had missed.
    """

    topic: str
    position: str
    recovered: bool | None = True
    missed: int = 0
    wait: Callable[[], Awaitable[None]] | None = None

    async def settled(self) -> bool:
        """Wait until it is known whether the subscriber has everything; whether it has. False, too,
        if it is no subscriber any more.
        """
        if self.recovered is None and self.wait is not None:
            await self.wait()
        return bool(self.recovered)


@dataclass(frozen=True, slots=True)
class Presence:
    """The answer to ``wssup.presence``.

    :ivar count: subscribers in the instance.
    :ivar ids: their names, if they were asked for: what each gave as ``member``, else the number of
        its connection.
    :ivar complete: whether all workers have answered, and none had more names than were asked for.
    """

    count: int
    ids: tuple[str, ...] = ()
    complete: bool = True
