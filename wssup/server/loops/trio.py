"""The engine's loop on trio."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import coroutine
from typing import Any, Final

import trio
from outcome import Error, Outcome
from trio.lowlevel import (
    Abort,
    checkpoint,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
    wait_readable,
    wait_task_rescheduled,
)

from wssup.server import wire
from wssup.server.loops import Rests, TakesBack
from wssup.server.loops.inside import run_context

__all__ = ["TrioLoop", "told", "within"]


class TrioLoop:
    """Runs the engine in the task that calls :meth:`run`."""

    cancelled: type[BaseException] = trio.Cancelled
    forgotten = Abort.SUCCEEDED
    waiter = staticmethod(current_task)
    cancel_point = staticmethod(checkpoint_if_cancelled)
    scheduler: tuple[Any, ...] | None

    def __init__(self) -> None:
        self._system: trio.Nursery | None = None
        self._spawned: trio.Nursery | None = None
        self._begin: list[tuple[Any, ...]] = []
        self._names: dict[object, str] = {}
        self._cancelled = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host everything that was begun and spawned; until cancelled."""
        async with trio.open_nursery() as self._system:
            for begun in self._begin:
                self._system.start_soon(*begun)
            async with trio.open_nursery() as self._spawned:
                task_status.started()
                await _for_ever()
            # Only what was spawned is cancelled; the engine goes on.
            await _for_ever()

    def readable(self, fd: int, turn: Callable[[], bool]) -> None:
        """See :class:`Loop`."""
        self._start(_turns, fd, turn)

    def timer(self, ring: Callable[[], None]) -> Callable[[float], None]:
        """See :class:`Loop`."""
        alarm = _Alarm(ring)
        self._start(alarm.run)
        return alarm.set

    def _start(self, *begun: Any) -> None:
        if self._system is not None:
            self._system.start_soon(*begun)
        else:
            self._begin.append(begun)

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """See :class:`Loop`."""
        if self._spawned is None:
            self._begin.append((function, *arguments))
            return
        if self._cancelled:
            # The nursery may be closed already.
            assert self._system is not None
            self._system.start_soon(_cancelled, function, arguments)
            return
        # trio would make the name anew for each task, a string per connection.
        name = self._names.get(key := getattr(function, "__func__", function))
        if name is None:
            name = self._names[key] = getattr(function, "__qualname__", repr(function))
        self._spawned.start_soon(function, *arguments, name=name)

    def cancel(self) -> None:
        """See :class:`Loop`."""
        self._cancelled = True
        if self._spawned is not None:
            self._spawned.cancel_scope.cancel()

    @staticmethod
    def scope() -> trio.CancelScope:
        """See :class:`Loop`."""
        return trio.CancelScope()

    @staticmethod
    def park(
        _waiter: Any, forget: Callable[[Any], Any], _owner: TakesBack | None = None
    ) -> Awaitable[Any]:
        """See :class:`Loop`. A rescheduled task is beyond cancellation, so nothing is put back."""
        return wait_task_rescheduled(forget)  # noqa: ASYNC105 - the caller awaits it

    @staticmethod
    @coroutine
    def rest(owner: Rests) -> Generator[Any, Any, Any]:
        """See :class:`Loop`. As `park`, without making anything anew for each message."""
        if owner.ticket is None:
            owner.ticket = _ticket(owner.forget_receiver)
        return (yield owner.ticket).unwrap()

    @staticmethod
    @coroutine
    def schedule_point() -> Generator[Any, Any, None]:
        """See :class:`Loop`. As ``cancel_shielded_checkpoint()``, at two thirds of its cost."""
        reschedule(current_task(), _NOTHING)
        yield _UNABORTABLE

    @staticmethod
    def wake(waiter: trio.lowlevel.Task, value: Any) -> bool:
        """See :class:`Loop`."""
        reschedule(waiter, _delivered(value))
        return True

    def wake_error(self, waiter: trio.lowlevel.Task, error: BaseException) -> None:
        """See :class:`Loop`."""
        reschedule(waiter, Error(error))


async def told(ask: Callable[[Callable[[], None]], object], seconds: float) -> bool:
    """See :class:`Told`."""
    event = trio.Event()
    ask(event.set)
    with trio.move_on_after(seconds):
        await event.wait()
    return event.is_set()


async def within(deadline: float, wait: Callable[[], Awaitable[None]]) -> None:
    """See :class:`Within`."""
    with trio.move_on_after(max(0.0, deadline - time.monotonic())):
        await wait()


class _Delivered(Outcome[Any]):
    """An ``outcome.Value`` of a message, made and unwrapped once each: it needs none of its guards,
    which cost a fiftieth of an echo.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def unwrap(self) -> Any:
        return self.value

    def send(self, gen: Generator[Any, Any, Any]) -> Any:
        return gen.send(self.value)

    async def asend(self, agen: AsyncGenerator[Any, Any]) -> Any:
        return await agen.asend(self.value)


_delivered: Final = wire.delivered or _Delivered
_NOTHING: Final = _delivered(None)


def _ticket(forget: Callable[[Any], Any]) -> Any:
    """What ``wait_task_rescheduled(forget)`` tells trio's scheduler, which can be told it again."""
    waiting = wait_task_rescheduled(forget)  # noqa: ASYNC105 - it is not awaited, only begun
    found = waiting.send(None)
    waiting.close()
    return found


#: Of a task that is in the scheduler's queue already.
_UNABORTABLE: Final = _ticket(lambda _: Abort.FAILED)
TrioLoop.scheduler = (
    current_task,
    checkpoint_if_cancelled,
    reschedule,
    _NOTHING,
    _UNABORTABLE,
    _ticket,
    run_context(),
)


async def _for_ever() -> None:
    await trio.sleep_forever()


async def _cancelled(
    function: Callable[..., Awaitable[None]], arguments: tuple[object, ...]
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await function(*arguments)


async def _turns(fd: int, turn: Callable[[], bool]) -> None:
    while True:
        await wait_readable(fd)
        while turn():
            await checkpoint()


class _Alarm:
    """A timer whose deadline can be moved."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = math.inf
        self._scope = trio.CancelScope()

    def set(self, at: float) -> None:
        self._at = at
        self._scope.deadline = trio.current_time() + at - time.monotonic()

    async def run(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._deadline()) as self._scope:
                await trio.sleep_forever()
            self._at = math.inf
            self._ring()

    def _deadline(self) -> float:
        return trio.current_time() + self._at - time.monotonic()
