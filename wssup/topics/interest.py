"""Who wants the messages of a topic: the book of one node about all others.

- A node whose snapshot is not complete may want anything: it gets everything.
- While connections move from B to C, C *mirrors* B: it wants whatever B wants, whatever B comes to
  want, and whatever B has wanted since that began. When B dies its wishes stay as they were. It
  goes on through several: who mirrors C wants what C wants as B's mirror.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

__all__ = ["Book"]

T = TypeVar("T")

#: Topics of which the answer is remembered.
_REMEMBERED: Final = 1 << 16
#: Topics that a mirror keeps of those that its node no longer wants. They matter for as long as the
#: new home of a subscriber has not been heard of.
_KEPT: Final = 1 << 17


class _Node(Generic[T]):
    """What is known of a node. Who mirrors it holds it beyond its end."""

    __slots__ = ("complete", "everything", "fresh", "mirrored", "mirrors", "token", "topics")

    def __init__(self, token: T | None) -> None:
        self.token = token
        self.everything = False
        self.complete = False
        self.topics: set[str] = set()
        #: What was said since the last greeting, until all is said.
        self.fresh: set[str] | None = set()
        #: Its own mirrors, by session, and those of others that mirror it.
        self.mirrors: dict[int, _Mirror[T]] = {}
        self.mirrored: list[_Mirror[T]] = []


class _Mirror(Generic[T]):
    """One wish to get what another node gets.

    :ivar kept: what that one no longer wants.
    :ivar stale: was not said again since its receiver's last greeting.
    """

    __slots__ = ("kept", "of", "stale")

    def __init__(self, of: _Node[T]) -> None:
        self.of = of
        self.kept: dict[str, None] = {}
        self.stale = False


class Book(Generic[T]):
    """The book.

    :param own: this node's serial number.
    :param topics: what this node wants itself; its owner changes it.
    :param everything: whether this node wants everything.
    """

    def __init__(self, own: int, topics: set[str], *, everything: bool = False) -> None:
        me: _Node[T] = _Node(None)
        me.topics, me.complete, me.fresh, me.everything = topics, True, None, everything
        self._me = me
        self._own = own
        #: Also those that are only known because somebody mirrors them.
        self._nodes: dict[int, _Node[T]] = {own: me}
        #: Nodes that are gone, or not there yet, and that somebody mirrors.
        self._ghosts: set[_Node[T]] = set()
        self._reasons: dict[str, int] = {}
        self._cache: dict[str, tuple[T, ...]] = {}

    # The question.

    def wanting(self, topic: str) -> tuple[T, ...]:
        """The tokens of the nodes that get this topic's messages."""
        found = self._cache.get(topic)
        if found is None:
            if len(self._cache) >= _REMEMBERED:
                self._cache.clear()
            found = self._cache[topic] = tuple(
                node.token
                for node in self._nodes.values()
                if node.token is not None and _wants(node, topic, [node])
            )
        return found

    def says(self, serial: int, topic: str) -> bool:
        """Whether a node has said that it wants this topic."""
        return topic in self._nodes[serial].topics

    # What nodes say. Each returns the topics for which the first reason came, or the last one went.

    def joined(self, serial: int, token: T) -> None:
        """A node is there; nothing is known of it."""
        node = self._nodes.setdefault(serial, _Node(token))
        node.token = token
        self._ghosts.discard(node)
        self._cache.clear()

    def greeted(self, serial: int, *, everything: bool) -> None:
        """A node begins to say what it wants, and what it mirrors."""
        node = self._nodes[serial]
        node.everything, node.complete, node.fresh = everything, False, set()
        for mirror in node.mirrors.values():
            mirror.stale = True
        self._cache.clear()

    def completed(self, serial: int) -> list[str]:
        """It has said all; what it has not said is over."""
        node = self._nodes[serial]
        fresh, node.fresh, node.complete = node.fresh, None, True
        gone = [] if fresh is None else self.off(serial, node.topics - fresh)
        for session in [s for s, mirror in node.mirrors.items() if mirror.stale]:
            self._drop(node, session)
        self._cache.clear()
        return gone

    def on(self, serial: int, topics: Iterable[str]) -> list[str]:
        """A node wants these topics."""
        node = self._nodes[serial]
        first = []
        for topic in topics:
            if node.fresh is not None:
                node.fresh.add(topic)
            if topic not in node.topics:
                node.topics.add(topic)
                self._cache.pop(topic, None)
                count = self._reasons.get(topic, 0)
                self._reasons[topic] = count + 1
                if not count:
                    first.append(topic)
        return first

    def off(self, serial: int, topics: Iterable[str]) -> list[str]:
        """A node no longer wants these; its mirrors still do."""
        node = self._nodes[serial]
        last = []
        for topic in topics:
            if node.fresh is not None:
                node.fresh.discard(topic)
            if topic in node.topics:
                node.topics.discard(topic)
                self._keep(node, topic)
                self._cache.pop(topic, None)
                if self._less(topic):
                    last.append(topic)
        return last

    def forgot(self, topic: str) -> None:
        """This node itself no longer wants a topic."""
        self._keep(self._me, topic)
        self._cache.pop(topic, None)

    def changed(self, topic: str) -> None:
        """This node itself wants a topic now: so do its mirrors."""
        if self._me.mirrored:
            self._cache.pop(topic, None)

    def left(self, serial: int) -> list[str]:
        """A node is gone. Those that mirror it keep what it wanted."""
        node = self._nodes.pop(serial)
        node.token = None
        self._ghosts.add(node)
        last = [topic for topic in node.topics if self._less(topic)]
        self._sweep()
        self._cache.clear()
        return last

    # Mirrors.

    def mirror(self, receiver: int, session: int, of: int) -> None:
        """``receiver`` wants what ``of`` wants, for a session."""
        node = self._nodes[receiver]
        if session in node.mirrors:
            node.mirrors[session].stale = False
            return
        other = self._nodes.get(of)
        if other is None:
            # It may be linked a moment later, and wants anything until then.
            other = self._nodes[of] = _Node(None)
            self._ghosts.add(other)
        mirror = node.mirrors[session] = _Mirror(other)
        other.mirrored.append(mirror)
        self._cache.clear()

    def unmirror(self, receiver: int, session: int) -> None:
        """That is over."""
        node = self._nodes[receiver]
        if session in node.mirrors:
            self._drop(node, session)
            self._cache.clear()

    def _drop(self, node: _Node[T], session: int) -> None:
        mirror = node.mirrors.pop(session)
        mirror.of.mirrored.remove(mirror)
        self._sweep()

    def _sweep(self) -> None:
        """Forget the nodes that are not there once nobody who is mirrors them any more."""
        if not self._ghosts:
            return
        found = {node for node in self._nodes.values() if node not in self._ghosts}
        todo = list(found)
        while todo:
            more = {mirror.of for mirror in todo.pop().mirrors.values()} - found
            found |= more
            todo += more
        for node in self._ghosts - found:
            self._ghosts.discard(node)
            for mirror in node.mirrors.values():
                mirror.of.mirrored.remove(mirror)
        for serial in [s for s, node in self._nodes.items() if node not in found]:
            del self._nodes[serial]

    def _keep(self, node: _Node[T], topic: str) -> None:
        for mirror in node.mirrored:
            kept = mirror.kept
            kept[topic] = None
            if len(kept) > _KEPT:
                del kept[next(iter(kept))]

    def _less(self, topic: str) -> bool:
        """One reason less for a topic; whether it was the last one."""
        count = self._reasons[topic] - 1
        if count:
            self._reasons[topic] = count
        else:
            del self._reasons[topic]
        return not count


def _wants(node: _Node[T], topic: str, path: list[_Node[T]]) -> bool:
    """Whether a node wants a topic, for itself or as a mirror of another one.

    :param path: the nodes that are looked at already: mirrors may go round in a circle.
    """
    if node.everything or not node.complete or topic in node.topics:
        return True
    for mirror in node.mirrors.values():
        if topic in mirror.kept:
            return True
        if mirror.of not in path:
            path.append(mirror.of)
            if _wants(mirror.of, topic, path):
                return True
    return False
