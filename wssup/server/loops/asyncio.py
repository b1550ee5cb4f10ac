"""The engine's loop on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, cast

from wssup.server.loops import Rests, TakesBack

__all__ = ["AsyncioLoop", "told", "within"]


class AsyncioLoop:
    """Runs the engine on the running asyncio loop.

    asyncio can cancel a task that was woken and has not run yet, which trio cannot: the value is
    then put back.
    """

    cancelled: type[BaseException] = asyncio.CancelledError
    forgotten = None
    scheduler: tuple[Any, ...] | None = None

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Made once: there is one for each connection.
        self._ended = self._tasks.discard
        self._closed = self._cancelled = False
        self._watched: list[int] = []
        self._timers: list[asyncio.TimerHandle] = []

    def close(self) -> None:
        """Watch nothing any more."""
        self._closed = True
        for fd in self._watched:
            self._loop.remove_reader(fd)
        for timer in self._timers:
            timer.cancel()

    def readable(self, fd: int, turn: Callable[[], bool]) -> None:
        """See :class:`Loop`."""
        follows = False

        def heard() -> None:
            # The turn that follows has it.
            if not follows:
                take_turn()

        def take_turn() -> None:
            nonlocal follows
            # The rest of an interrupted turn is no event that epoll would tell.
            follows = not self._closed and turn()
            if follows:
                self._loop.call_soon(take_turn)

        self._watched.append(fd)
        self._loop.add_reader(fd, heard)

    def timer(self, ring: Callable[[], None]) -> Callable[[float], None]:
        """See :class:`Loop`."""
        place = len(self._timers)
        self._timers.append(self._loop.call_later(0, bool))

        def set_to(at: float) -> None:
            self._timers[place].cancel()
            if at < math.inf:
                self._timers[place] = self._loop.call_at(at, ring)

        return set_to

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """See :class:`Loop`."""
        task = self._loop.create_task(cast("Coroutine[Any, Any, None]", function(*arguments)))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._cancelled:
            self._loop.call_soon(task.cancel)

    def cancel(self) -> None:
        """See :class:`Loop`."""
        self._cancelled = True
        for task in self._tasks:
            # A task that is cancelled before its first step would never run at all.
            self._loop.call_soon(task.cancel)

    @staticmethod
    def scope() -> _Scope:
        """See :class:`Loop`."""
        return _Scope()

    def waiter(self) -> asyncio.Future[Any]:
        """See :class:`Loop`."""
        return self._loop.create_future()

    async def park(
        self,
        waiter: asyncio.Future[Any],
        forget: Callable[[Any], Any],
        owner: TakesBack | None = None,
    ) -> Any:
        """See :class:`Loop`."""
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                forget(waiter)
            elif owner is not None and waiter.exception() is None:
                owner.put_back(waiter.result())
            raise

    def rest(self, owner: Rests) -> Awaitable[Any]:
        """See :class:`Loop`."""
        return self.park(owner.receiver, owner.forget_receiver, owner)

    def wake(self, waiter: asyncio.Future[Any], value: Any) -> bool:
        """See :class:`Loop`."""
        if waiter.done():
            return False
        waiter.set_result(value)
        return True

    def wake_error(self, waiter: asyncio.Future[Any], error: BaseException) -> None:
        """See :class:`Loop`."""
        if not waiter.done():
            waiter.set_exception(error)

    async def cancel_point(self) -> None:
        """See :class:`Loop`. asyncio can be told of a cancellation only where others run, so both
        are done here, while nothing is received or sent yet; others have their turn in order.
        """
        await asyncio.sleep(0)

    async def schedule_point(self) -> None:
        """See :class:`Loop`."""


async def told(ask: Callable[[Callable[[], None]], object], seconds: float) -> bool:
    """See :class:`Told`."""
    event = asyncio.Event()
    ask(event.set)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def within(deadline: float, wait: Callable[[], Awaitable[None]]) -> None:
    """See :class:`Within`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            await wait()


class _Scope:
    """As asyncio.timeout() is made, but cancelled by hand."""

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._called = False
        return self

    def cancel(self) -> None:
        """See :class:`Scope`."""
        if not self._called:
            self._called = True
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        # Cancelled from outside, too, it goes on to be cancelled.
        if not self._called or self._task.uncancel() > 0:
            return False
        return kind is asyncio.CancelledError
