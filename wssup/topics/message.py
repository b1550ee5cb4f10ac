"""A message of a topic, as workers keep it and hand it on."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Message"]


class Message(NamedTuple):
    """One message.

    It has two identities. On the bus of this instance: who put it there, and as which of its
    messages; every link between two workers keeps that order. And in the world: where it was first
    published, which is the same unless it came over Redis from another machine.

    :ivar text: whether it is sent as text; ``data`` is UTF-8 then.
    :ivar carrier: the serial number of the node that put it on the bus.
    :ivar number: of the carrier's messages, over all topics, from 1.
    :ivar source: the publisher: ``NODE.SERIAL`` with the random name that an instance has from its
        start to its end.
    :ivar sequence: of the source's messages, over all topics.
    :ivar at: when it was published or came to this machine, in seconds of ``time.monotonic()``.
    :ivar exclude: the connection that does not get it; 0: there is none.
    """

    topic: str
    text: bool
    data: bytes
    carrier: int
    number: int
    source: str
    sequence: int
    at: float
    exclude: int = 0
