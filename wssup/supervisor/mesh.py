"""Links the nodes of the bus of topics: workers of all generations, and the bridge.

For each two of them the master makes one pair of stream sockets, once, and gives each node its end.
It keeps none, so what they say to each other it does not hear, and each sees the other's death as
the end of the file: nobody needs to be told when a node goes.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import trio

from wssup import logs
from wssup.messages import Message, Peers

__all__ = ["Mesh", "Node"]

#: Links that are made at a time: a message takes no more than some 250 descriptors, and between
#: two lots the master hears its workers.
_LOT: Final = 100
#: Seconds until links that could not be made are tried again.
_RETRY: Final = 1.0

Post = Callable[[Message, Sequence[int]], None]


class Node(NamedTuple):
    """A process on the bus.

    :ivar serial: its number: workers and bridges are counted together.
    :ivar post: sends it a message with descriptors, which stay open here. It may raise OSError.
    :ivar noun: the fields by which log lines name it.
    """

    serial: int
    post: Post
    noun: dict[str, object]


class Mesh:
    """All nodes, each linked to each.

    :param nursery: where links are made that are not made at once.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._nodes: dict[int, Node] = {}

    def join(self, node: Node) -> None:
        """Link a new node to all others.

        It has the first links when this returns, so whatever it is told next, it knows them.
        """
        others = list(self._nodes.values())
        self._nodes[node.serial] = node
        more = len(others) > _LOT
        missing = self._link(node, others[:_LOT], first=True, more=more)
        if missing or more:
            self._nursery.start_soon(self._link_later, node, missing, others[_LOT:])

    def leave(self, serial: int) -> None:
        """A node is gone."""
        self._nodes.pop(serial, None)

    async def _link_later(self, node: Node, missing: list[Node], others: list[Node]) -> None:
        """Link a node to others, lot by lot, and again to those to which it could not be."""
        first = bool(others)
        while missing or others:
            await trio.sleep(0 if others else _RETRY)
            # A number is never used twice, and a node never comes back.
            if node.serial not in self._nodes:
                return
            if not others:
                missing, others, first = [], missing, False
            lot, others = others[:_LOT], others[_LOT:]
            there = [other for other in lot if other.serial in self._nodes]
            missing += self._link(node, there, first=first, more=first and bool(others))

    def _link(self, node: Node, others: list[Node], *, first: bool, more: bool) -> list[Node]:
        """Link a node to others; returns those to which it could not be: no sockets could be made.

        :param first: the node waits to be told, also if there is nothing to tell.
        """
        made: list[Node] = []
        near_ends: list[socket.socket] = []
        try:
            for other in others:
                # Closed on exec, as all sockets of Python.
                near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                made.append(other)
                near_ends.append(near)
                self._give(other, Peers([node.serial]), [far])
        except OSError as error:
            missing = others[len(made) :]
            _complain(node, error, missing=len(missing))
        else:
            missing = []
        if made or first:
            self._give(node, Peers([other.serial for other in made], more), near_ends)
        return missing

    def _give(self, node: Node, peers: Peers, ends: list[socket.socket]) -> None:
        """Give a node its ends, which are closed here then: later, if it cannot be told now."""
        try:
            node.post(peers, [end.fileno() for end in ends])
        except OSError as error:
            _complain(node, error, late=len(ends))
            self._nursery.start_soon(self._give_later, node, peers, ends)
        else:
            _close(ends)

    async def _give_later(self, node: Node, peers: Peers, ends: list[socket.socket]) -> None:
        try:
            while True:
                await trio.sleep(_RETRY)
                if node.serial not in self._nodes:
                    return
                with contextlib.suppress(OSError):
                    node.post(peers, [end.fileno() for end in ends])
                    return
        finally:
            _close(ends)


def _close(ends: list[socket.socket]) -> None:
    for end in ends:
        end.close()


def _complain(node: Node, error: OSError, **count: int) -> None:
    reason = error.strerror or str(error)
    logs.get(**node.noun).warning("links_delayed", reason=reason, **count)
