"""What the engine needs of an event loop, and the loops that give it.

Four things drive connections: to be called when a descriptor is *readable*, a *timer*, to *spawn* a
task and to *cancel* those spawned. A fifth serves the methods that applications await: a task
*parks* until the engine wakes it with a value, which then cannot be lost any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["Loop", "Rests", "Scope", "TakesBack", "Told", "Within"]


class Told(Protocol):
    """Waits for one event, for so many seconds."""

    def __call__(
        self, ask: Callable[[Callable[[], None]], object], seconds: float, /
    ) -> Awaitable[bool]:
        """Wait until what ``ask`` was given is called, perhaps at once; whether it was."""


class Within(Protocol):
    """Waits until a moment at most."""

    def __call__(self, deadline: float, wait: Callable[[], Awaitable[None]], /) -> Awaitable[None]:
        """Await ``wait()``, and give up at the deadline, in seconds of ``time.monotonic()``."""


class TakesBack(Protocol):
    """Has values that tasks wait for."""

    def put_back(self, value: Any) -> None:
        """A value that its task could not take."""


class Rests(TakesBack, Protocol):
    """Has a task that mostly waits.

    :ivar receiver: its waiter, while it does.
    :ivar ticket: the loop's own; the owner drops it in the end.
    """

    receiver: Any
    ticket: Any

    def forget_receiver(self, told: Any) -> Any:
        """As the ``forget`` of :meth:`Loop.park`."""


class Scope(Protocol):
    """What can be cancelled by itself."""

    def cancel(self) -> None:
        """Cancel what runs in it, once."""


class Loop(Protocol):
    """An event loop, as the engine sees it. Times are seconds of ``time.monotonic()``."""

    cancelled: type[BaseException]
    """What a cancelled task raises."""
    scheduler: tuple[Any, ...] | None
    """What the compiled core needs to do `cancel_point`, `schedule_point`, `rest` and `wake` by
    itself: ``waiter``, ``cancel_point``, how to put a task into the queue of those that run next,
    with what, what to yield if it is there already, how to make a ticket, which is yielded
    otherwise, and what `inside.run_context` gives. ``None``: it calls them.
    """
    forgotten: Any
    """What the ``forget`` of :meth:`park` must return."""

    def readable(self, fd: int, turn: Callable[[], bool]) -> None:
        """Call ``turn`` whenever ``fd`` is readable; soon again as long as it returns true, with
        others having their turn in between.
        """

    def timer(self, ring: Callable[[], None]) -> Callable[[float], None]:
        """A timer that calls ``ring``; returns how to set it, which replaces what it was set to."""

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run an async function, which must not raise, in a task of its own."""

    def cancel(self) -> None:
        """Cancel all tasks that were spawned, and those that are from now on."""

    def scope(self) -> AbstractContextManager[Scope]:
        """A part of the calling task that can be cancelled by itself, and ends there then."""

    def waiter(self) -> Any:
        """The calling task's ticket for :meth:`park`."""

    def park(
        self, waiter: Any, forget: Callable[[Any], Any], owner: TakesBack | None = None
    ) -> Awaitable[Any]:
        """Wait for :meth:`wake`.

        :param forget: called when the wait is cancelled: the waiter must not be woken any more. It
            is given the waiter where it may have been taken out of its line already.
        :param owner: of the value; gets it back if the task was woken too late to have it.
        """

    def rest(self, owner: Rests) -> Awaitable[Any]:
        """As :meth:`park`, of ``owner.receiver``: the wait that there is for each message."""

    def wake(self, waiter: Any, value: Any) -> bool:
        """End a wait with a value; false if it has been cancelled and can take none."""

    def wake_error(self, waiter: Any, error: BaseException) -> None:
        """End a wait with an exception."""

    def cancel_point(self) -> Awaitable[None]:
        """Raise if the calling task is cancelled; let nobody else run."""

    def schedule_point(self) -> Awaitable[None]:
        """Let others run; never raise."""
