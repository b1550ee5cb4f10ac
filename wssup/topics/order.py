"""The order of what is published by somebody who moves. Pure.

Two links have no order between them. A client publishes at B, moves to C, and publishes there: at A
the second message may come first. So B says to everybody with which number it let the connection go
(`Mark`), C says before its next message that this comes after B's (`After`), and A does not read on
there until B's have come. What B itself had yet to say of the same kind it says with its mark: then
that goes through several nodes.

What C publishes itself waits in a queue, and what has to be said in its place in it, until it has
seen B's. There is no waiting in a circle: everything waits only for what was there before it, and
keeps its place behind what was there before it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

__all__ = ["PATIENCE", "UTMOST", "Barrier", "Order"]

#: Seconds after which nobody is waited for any more of whom nothing comes, and after which nobody
#: is.
PATIENCE: Final = 2.0
UTMOST: Final = 30.0


class Barrier(NamedTuple):
    """What comes behind it waits for a carrier's messages up to a number.

    :ivar deadline: until when, if nothing comes of the carrier.
    """

    carrier: int
    number: int
    deadline: float

    def stands(self, seen: Mapping[int, int], live: Container[int]) -> bool:
        """Whether something of it is still on its way here."""
        return seen.get(self.carrier, 0) < self.number and self.carrier in live


class _Waits(Protocol):
    waits: Barrier | None

    def resume(self) -> None: ...


P = TypeVar("P", bound=_Waits)


class Order(Generic[P]):
    """What has to be said, and who waits.

    :ivar unsaid: what has to be said before the next message, by carrier.
    :ivar told: what has been said, for those who come later.
    :ivar stalled: the links that are not read because something has to come before.
    """

    def __init__(self) -> None:
        self.unsaid: dict[int, int] = {}
        self.stalled: list[P] = []
        self.told: dict[int, int] = {}
        self._known: dict[int, int] = {}

    def after(self, carrier: int, number: int) -> bool:
        """What this node publishes comes after these; whether that is news."""
        if number <= self._known.get(carrier, 0):
            return False
        self._known[carrier] = number
        return True

    def say(self, carrier: int, number: int) -> None:
        """That has to be said now, before the next message."""
        self.unsaid[carrier] = max(number, self.unsaid.get(carrier, 0))

    def said(self) -> dict[int, int]:
        """What has to be said, which is done with this."""
        unsaid, self.unsaid = self.unsaid, {}
        self.told.update(unsaid)
        return unsaid

    def forget(self, serial: int) -> None:
        """A node is gone, and all that it had said is processed."""
        self._known.pop(serial, None)
        self.told.pop(serial, None)

    def go_on(
        self,
        seen: Mapping[int, int],
        live: Container[int],
        is_over: Callable[[Barrier], bool],
    ) -> list[int]:
        """Let the links go on that have what they wait for, or have waited for too long.

        :param is_over: whether a barrier that stands has been waited for too long.
        :returns: the carriers that were waited for in vain.
        """
        vain: list[int] = []
        still: list[P] = []
        over: list[Callable[[], None]] = []
        for link in self.stalled:
            barrier = link.waits
            if barrier is not None and barrier.stands(seen, live):
                if not is_over(barrier):
                    still.append(link)
                    continue
                vain.append(barrier.carrier)
            over.append(link.resume)
        self.stalled = still
        for resume in over:
            resume()
        return vain
