"""Fences: when a node may begin to send connections to another one. The book of the sender. Pure.

The receiver of a session mirrors the sender. Each other node says so on its link to the sender,
with a fence: what it had published for the sender before that was sent before, and is processed
once the fence is read; what it publishes after that goes to both. So once all fences of a session
are there, every message is either processed here, or comes to the receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from typing import Final, NamedTuple

__all__ = ["Fences", "Ready", "Waiting"]

#: Sessions of which fences are remembered that nobody waits for (yet), or no more.
_SESSIONS: Final = 1024


#: Told that a session may begin, and whose fences are missing.
Ready = Callable[[list[int]], None]


class Waiting(NamedTuple):
    """A session that has yet to begin."""

    session: int
    receiver: int
    ready: Ready
    deadline: float


class Fences:
    """The fences that were read. They may come before anybody waits for them."""

    def __init__(self) -> None:
        #: By session: the receiver, and who has said it.
        self._read: dict[int, tuple[int, set[int]]] = {}
        self._waiting: dict[int, Waiting] = {}
        self._over: dict[int, None] = {}

    def __bool__(self) -> bool:
        """Whether a session waits."""
        return bool(self._waiting)

    def read(self, session: int, receiver: int, serial: int) -> None:
        """A node's fence was read."""
        if session in self._over:
            return
        found = self._read.get(session)
        if found is None:
            if len(self._read) >= _SESSIONS:
                del self._read[next(iter(self._read))]
            found = self._read[session] = (receiver, set())
        found[1].add(serial)

    def wait(self, waiting: Waiting) -> None:
        """A session waits."""
        self._waiting[waiting.session] = waiting

    def over(self, session: int) -> None:
        """A session is over, or never begins."""
        self._read.pop(session, None)
        self._waiting.pop(session, None)
        self._over[session] = None
        if len(self._over) > _SESSIONS:
            del self._over[next(iter(self._over))]

    def left(self, receiver: int) -> None:
        """A receiver is gone; who waits to send to it finds that out otherwise."""
        for session in [s for s, (r, _) in self._read.items() if r == receiver]:
            if session not in self._waiting:
                self.over(session)

    def begin(self, peers: Collection[int], dead: Container[int]) -> list[Waiting]:
        """The sessions that wait no more: all nodes have said it that live.

        :param peers: the nodes that there is a link to; the receiver's must be among them, or dead.
        """
        found = [w for w in self._waiting.values() if not self.missing(w, peers, dead)]
        for waiting in found:
            del self._waiting[waiting.session]
        return found

    def expired(self, now: float, patient: Callable[[Waiting], bool]) -> list[Waiting]:
        """The sessions that have waited for too long, and do no more.

        :param patient: whether one waits on beyond its deadline.
        """
        found = [w for w in self._waiting.values() if w.deadline <= now and not patient(w)]
        for waiting in found:
            del self._waiting[waiting.session]
        return found

    def missing(self, waiting: Waiting, peers: Collection[int], dead: Container[int]) -> list[int]:
        """Whose fence is missing. With a dead receiver nothing can get lost on the way."""
        if waiting.receiver in dead:
            return []
        _, read = self._read.get(waiting.session, (0, set()))
        found = [serial for serial in peers if serial not in read]
        if waiting.receiver not in peers:
            found.append(waiting.receiver)
        return found
