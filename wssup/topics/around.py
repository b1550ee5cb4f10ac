"""What a link of the bus needs around it: what watches its socket, and whose link it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from wssup.topics.packets import Packet

if TYPE_CHECKING:
    from wssup.topics.peer import Peer

__all__ = ["Owner", "Watcher"]


class Watcher(Protocol):
    """What watches sockets, as :class:`wssup.server.chores.Chores` does."""

    def attend(self, fd: int, mask: int, heard: Callable[[int], None]) -> None:
        """Watch a descriptor, level-triggered; ``heard`` is told the bits."""

    def leave(self, fd: int) -> None:
        """Watch it no more."""

    def soon(self, chore: Callable[[], None]) -> None:
        """Do something at the end of this turn, or in the next one."""


class Owner(Protocol):
    """Whose links these are."""

    @property
    def watcher(self) -> Watcher | None:
        """None: nothing can be sent or read yet."""

    def take(self, peer: Peer, packets: list[Packet], at: int, stop: int) -> int:
        """Act on packets; up to which: fewer than asked if the link has to wait (`Peer.waits`)."""

    def due(self, peer: Peer) -> None:
        """Have :meth:`Peer.flush` called at the end of the turn."""

    def refill(self, peer: Peer) -> None:
        """The link has room for packets that are no messages."""

    def sent(self, count: int, size: int) -> None:
        """Messages, and bytes, that were given to the kernel."""

    def dropped(self, peer: Peer, count: int) -> None:
        """Messages for which the queue had no room."""

    def ended(self, peer: Peer, error: str) -> None:
        """The link is at its end; all that had come is taken. ``error``: it was broken, and how."""
