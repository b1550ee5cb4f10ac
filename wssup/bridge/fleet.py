"""The servers that are spoken to: one, or the primaries of a Cluster, of which each has its slots.

Where a name belongs is computed as the server does (Redis Cluster specification, hash tags).
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import trio

from wssup.bridge.faults import Away, away
from wssup.bridge.links import Command, Link, Place
from wssup.scoreboard import BridgeFault

__all__ = ["Fleet", "Words", "slot"]

_SLOTS: Final = 16384


class Words(NamedTuple):
    """Those commands that a Cluster has others for."""

    publish: bytes
    subscribe: bytes
    unsubscribe: bytes

    @property
    def message(self) -> bytes:
        """What a message is pushed as."""
        return b"smessage" if self is SHARDED else b"message"


ONE: Final = Words(b"PUBLISH", b"SUBSCRIBE", b"UNSUBSCRIBE")
SHARDED: Final = Words(b"SPUBLISH", b"SSUBSCRIBE", b"SUNSUBSCRIBE")


def slot(name: bytes) -> int:
    """The slot of a channel or key: CRC-16/XMODEM of it, or of its first part in braces."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name, 0) % _SLOTS


class Fleet:
    """Connections to all the servers there are.

    :ivar links: one to each.
    :ivar words: the commands that they understand.
    """

    def __init__(self, links: Sequence[Link], words: Words, slots: Sequence[int] = ()) -> None:
        self.links = links
        self.words = words
        self._slots = slots

    @property
    def many(self) -> bool:
        """Whether it is a Cluster."""
        return self.words is SHARDED

    def of(self, name: bytes) -> Link:
        """Who has a channel or key."""
        return self.links[self._slots[slot(name)]] if self._slots else self.links[0]

    @classmethod
    async def one(cls, place: Place, nursery: trio.Nursery) -> Fleet:
        """Connect to a single server.

        :raises Away: it cannot be had.
        """
        return cls([await Link.make(place, nursery)], ONE)

    @classmethod
    async def cluster(cls, places: Sequence[Place], nursery: trio.Nursery) -> Fleet:
        """Connect to the primaries of a Cluster; the first place that answers names them.

        :raises Away: none answers, one of them cannot be had, or slots are nobody's.
        """
        first, layout = await _layout(places, nursery)
        links: dict[tuple[str, int], Link] = {(first.place.host, first.place.port): first}
        slots = [-1] * _SLOTS
        primaries: list[Link] = []
        for begin, end, primary, *_ in layout:
            # A server that does not know its own name says none: it is the one we speak with.
            host = _text(primary[0]) or first.place.host
            key = (host, int(primary[1]))
            if key not in links:
                links[key] = await Link.make(first.place.at(*key), nursery)
            if links[key] not in primaries:
                primaries.append(links[key])
            index = primaries.index(links[key])
            slots[begin : end + 1] = [index] * (end + 1 - begin)
        if -1 in slots:
            raise Away(BridgeFault.BUSY, f"the Cluster has no primary for slot {slots.index(-1)}")
        return cls(primaries, SHARDED, slots)


async def _layout(places: Sequence[Place], nursery: trio.Nursery) -> tuple[Link, list[Any]]:
    trouble: Away | None = None
    for place in places:
        try:
            link = await Link.make(place, nursery)
            (answer,) = await link.call([Command(b"CLUSTER SLOTS")])
        except Away as error:
            trouble = trouble or error
            continue
        if not isinstance(answer, Exception):
            return link, answer
        trouble = trouble or away(answer)
    raise trouble or Away(BridgeFault.OTHER, "the Cluster has no address")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
