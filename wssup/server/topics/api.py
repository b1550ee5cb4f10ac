"""What applications call about topics: in handlers, in the lifespan, and in threads."""

from __future__ import annotations

import os
from typing import Any, Final

from wssup.server.connection import Connection
from wssup.server.topics.hub import Hub
from wssup.server.topics.subscription import Presence
from wssup.topics import names

__all__ = ["position", "presence", "publish", "set_hub", "subscribers"]

#: Names that a question about presence brings at most, if it does not say.
_LIMIT: Final = 1000
#: The process's hub, and the process: a child of a worker is none.
_current: tuple[Hub, int] | None = None


def set_hub(hub: Hub) -> None:
    """Say whose topics these functions are about."""
    global _current  # noqa: PLW0603 - a process has one worker
    _current = (hub, os.getpid())


def _hub() -> Hub:
    if _current is None or _current[1] != os.getpid():
        raise RuntimeError("topics are there in a worker of wssup only, from its lifespan on")
    return _current[0]


def publish(topic: str, data: str | bytes, *, exclude: Connection | None = None) -> None:
    """Send a message to all subscribers of a topic, in all workers: ``str`` as text, ``bytes`` as
    binary.

    It does not wait: every subscriber's queue has its bound, and so has the one to each other
    worker. It can be called from any thread of a worker; one that publishes faster than the loop
    takes it up waits for it.

    :param topic: 1 to 255 bytes of UTF-8, without control characters.
    :param exclude: a connection that does not get it.
    :raises TypeError: ``topic`` is no str, or ``data`` neither str nor bytes.
    :raises ValueError: it is no name, or the message is larger than ``limits.message_bytes``.
    :raises RuntimeError: this is no worker.
    """
    _hub().publish(topic, data, exclude)


def subscribers(topic: str) -> int:
    """How many subscriptions to a topic there are in this instance. What other workers have is
    known to about 0.1 s.

    :raises RuntimeError: this is no worker.
    :raises TypeError: ``topic`` is no str; a ``ValueError``: it is no name.
    """
    return _hub().bus.subscribers(names.check(topic))


def position(topic: str) -> str:
    """Where a subscriber of a topic is that has got everything so far, for ``since`` another time;
    empty if no history is kept.

    :raises RuntimeError: this is no worker.
    :raises TypeError: ``topic`` is no str; a ``ValueError``: it is no name.
    """
    return _hub().token(names.check(topic))


async def presence(topic: str, *, ids: bool = False, limit: int = _LIMIT) -> Presence:
    """Who is subscribed to a topic, in this instance.

    :param ids: whether names are wanted, not only how many; then all workers are asked, for a
        second at most.
    :param limit: how many names.
    :raises RuntimeError: this is no worker.
    :raises TypeError: ``topic`` is no str; a ``ValueError``: it is no name.
    """
    hub = _hub()
    names.check(topic)
    loop = hub.pump.loop
    await loop.cancel_point()
    if not ids:
        await loop.schedule_point()
        return Presence(hub.bus.subscribers(topic))
    found: list[Presence] = []
    waiter: Any = None

    def answer(listed: list[str], count: int, complete: bool) -> None:  # noqa: FBT001 - as the bus tells it
        told = Presence(count, tuple(listed[:limit]), complete and len(listed) >= count)
        if waiter is None:
            found.append(told)
        else:
            loop.wake(waiter, told)

    hub.bus.ask(topic, limit, answer)
    if found:
        await loop.schedule_point()
        return found[0]
    waiter = loop.waiter()

    def forget(_: object) -> Any:
        nonlocal waiter
        waiter = None  # the answer is thrown away
        return loop.forgotten

    return await loop.park(waiter, forget)  # type: ignore[no-any-return]
