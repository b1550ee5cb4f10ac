"""A drain in time: what a worker does with its connections from the order until none is left.

==============  ====================================================================================
``fences``      until then subscribers wait for all other workers before they move
``sweep``       until then a session that gets on is waited for
``last``        until then who moves, or is waited for, is left alone; then all are closed, spread
                over the window
``deadline``    what is left is cut off
==============  ====================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from wssup import logs
from wssup.messages import Drain
from wssup.scoreboard import ClosedReason, HandoffRefusal
from wssup.server.engine import Engine
from wssup.server.loops import Within

__all__ = ["Timetable", "farewell", "let_go", "timetable"]

#: RFC 6455 section 7.4.1: "going away" means that the service ends.
_REASONS: Final = {1001: ClosedReason.STOP, 1011: ClosedReason.ERROR}
#: The part of the timeout within which the last close is begun: clients need time to answer, too.
_SPREAD_SHARE: Final = 0.9
#: The part of the timeout that sessions get, however long the window is.
_SWEEP_SHARE: Final = 0.5
#: The part of a session's time for fences: to miss a message is better than to be disconnected.
_FENCES_SHARE: Final = 0.5
#: The part of the timeout, and of the master's patience beyond it, for what was published last.
_FAREWELL_SHARE: Final = 0.5
#: Seconds after which nothing is heard any more of a worker that does not take connections.
_SILENT: Final = 1.0


class Timetable(NamedTuple):
    """Moments of a drain, and its window, in seconds."""

    fences: float
    sweep: float
    last: float
    deadline: float
    window: float


def timetable(order: Drain, now: float) -> Timetable:
    """What an order that came ``now`` means, in seconds of the same clock."""
    # The last clients need time to answer, too.
    window = min(order.window, _SPREAD_SHARE * order.timeout)
    last = now + _SPREAD_SHARE * order.timeout - window
    sweep = max(last, now + _SWEEP_SHARE * order.timeout)
    fences = now + _FENCES_SHARE * (sweep - now)
    return Timetable(fences, sweep, last, now + order.timeout, window)


def farewell(order: Drain, ordered: float, now: float) -> float:
    """Seconds that others have to read what a worker published last; when it is killed instead,
    nobody knows what was lost.

    :param ordered: when the order came.
    """
    last = ordered + order.timeout + _FAREWELL_SHARE * (order.patience - order.timeout)
    return max(0.0, min(_FAREWELL_SHARE * order.timeout, last - now))


async def let_go(
    order: Drain, engine: Engine, *, within: Within, cut_off: Callable[[], None]
) -> None:
    """Obey an order; no connection is left afterwards.

    :param within: the loop's.
    :param cut_off: ends what is left at the deadline.
    """
    log = logs.get()
    times = timetable(order, time.monotonic())
    # Of one that has no connection, what follows says enough.
    tell = log.info if engine.count else log.debug
    tell("draining", open=engine.count, window=order.window, timeout=order.timeout)
    unmoved = HandoffRefusal[order.unmoved.upper()] if order.unmoved else None
    reason = _REASONS.get(order.code, ClosedReason.DRAIN)
    close = partial(engine.close_all, order.code, order.reason, reason, unmoved=unmoved)
    if order.wait:
        await within(times.last, engine.wait_empty)
    elif engine.moves(follows=order.moves):
        close(window=times.window, spares=True)
        await _move(order, engine, times, within)
    else:
        # A part may be moving.
        await within(times.sweep, engine.wait_swept)
    # Not beyond what is left of it, if this process stood still.
    left = times.deadline - time.monotonic()
    close(window=max(0.0, min(times.window, _SPREAD_SHARE * left)))
    await within(times.deadline, engine.wait_empty)
    if engine.count:
        log.warning("drain_deadline", left=engine.count)
        # Who was not told learns at least why.
        close(window=0.0)
        cut_off()
        await engine.wait_empty()
    engine.end_handoffs()
    engine.flush()


async def _move(order: Drain, engine: Engine, times: Timetable, within: Within) -> None:
    """Leave connections alone as long as they move; if a session ends another one may follow."""
    moved = partial(engine.wait_moved, follows=order.moves)
    await within(min(times.fences, times.last), moved)
    # With a long window `last` is earlier, and those that wait for nothing but fences get theirs.
    await within(times.fences, engine.wait_swept)
    engine.hurry_handoffs()
    await within(times.sweep, engine.wait_swept)
    await within(times.last, moved)
    # What comes back is closed with the others, and told so; nobody can tell it at the deadline.
    engine.give_up_silent(_SILENT)
