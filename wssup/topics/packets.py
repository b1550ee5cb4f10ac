"""What two nodes of the bus say to one another, and how it is cut out of a stream.

A link is a unix stream (unix(7)): order is kept and nothing is lost, but it comes in any pieces. So
each packet is its size in 4 bytes, little-endian, and then MessagePack: an array that begins with
the packet's kind.

==================================  ===============================================================
:class:`Greeting`                   first on each link; again: all that was said of the sender's
                                    interest is said anew, up to :class:`Complete`
:class:`Interest`                   what the sender wants, or no longer
:class:`Counts`                     how many subscribers the sender has
:class:`Published`                  a message
:class:`Lost`                       in the place of messages that were dropped
:class:`Mirror`, :class:`Fence`,    around a handoff of connections (see :mod:`wssup.topics.bus`)
:class:`Unmirror`
:class:`Mark`, :class:`After`       the order of what is published by somebody who moves
:class:`Ask`, :class:`Members`      who is subscribed
:class:`HistoryWanted`,             what a new node gets from one that was there
:class:`History`
:class:`Recover`,                   what a client missed, from a node that keeps it
:class:`Recovered`
==================================  ===============================================================
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

import msgspec

from wssup.errors import MessageError

__all__ = [
    "LONGEST",
    "PROTOCOL",
    "After",
    "Ask",
    "Complete",
    "Counts",
    "Entry",
    "Feed",
    "Fence",
    "Greeting",
    "History",
    "HistoryWanted",
    "Interest",
    "Lost",
    "Mark",
    "Marks",
    "Members",
    "Mirror",
    "Packet",
    "Published",
    "Recover",
    "Recovered",
    "Unmirror",
    "encode",
    "encode_published",
]

#: The version of these packets. A node that meets another one ends the link.
PROTOCOL: Final = 1
#: Bytes of the longest packet that is read.
LONGEST: Final = 64 << 20
_SIZE: Final = struct.Struct("<I")
_PUBLISHED: Final = 2


class _Packet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all packets share: they are tuples to the garbage collector's view and on the wire."""


class Greeting(_Packet, frozen=True, array_like=True, tag=1):
    """Who speaks.

    :ivar everything: it wants all messages, whatever it says in :class:`Interest`.
    :ivar history: it keeps a history that a new node can have.
    :ivar keeper: it answers :class:`Recover`, from a history of another kind.
    :ivar number: of its last message that is not for this link, as the link began later; 0 in a
        greeting that is not the first.
    """

    protocol: int
    serial: int
    everything: bool
    history: bool
    keeper: bool
    number: int


class Published(_Packet, frozen=True, array_like=True, tag=_PUBLISHED):
    """A message, as `Message` has it; ``source`` is None for the sender's own."""

    number: int
    topic: str
    text: bool
    data: bytes
    exclude: int
    at: float
    source: str | None
    sequence: int


class Interest(_Packet, frozen=True, array_like=True, tag=3):
    """The sender wants messages of these topics, or no longer."""

    topics: list[str]
    on: bool


class Complete(_Packet, frozen=True, array_like=True, tag=4):
    """All that was to be said since the greeting is said."""


class Counts(_Packet, frozen=True, array_like=True, tag=5):
    """Subscribers that the sender has, by topic; those that are not named are as they were."""

    counts: dict[str, int]


class Mirror(_Packet, frozen=True, array_like=True, tag=6):
    """The sender wants whatever ``of`` wants, because connections come to it from there."""

    session: int
    of: int


class Fence(_Packet, frozen=True, array_like=True, tag=7):
    """The sender mirrors you to the receiver of this session, from its next message on.

    :ivar number: of its last message.
    """

    session: int
    receiver: int
    number: int


class Unmirror(_Packet, frozen=True, array_like=True, tag=8):
    """A session is over, and its receiver has said what it wants of its own."""

    session: int


class Lost(_Packet, frozen=True, array_like=True, tag=9):
    """Messages up to this number were dropped, so many; 0: nobody knows how many."""

    count: int
    number: int


class Mark(_Packet, frozen=True, array_like=True, tag=10):
    """The sender has published up to this number, whether you wanted it or not."""

    number: int


class After(_Packet, frozen=True, array_like=True, tag=11):
    """What the sender publishes from here on comes after the carrier's messages up to a number."""

    carrier: int
    number: int


class Ask(_Packet, frozen=True, array_like=True, tag=12):
    """Who is subscribed? Name at most ``limit``."""

    question: int
    topic: str
    limit: int


class Members(_Packet, frozen=True, array_like=True, tag=13):
    """The answer: how many, and some of them or all."""

    question: int
    topic: str
    count: int
    members: list[str]


class Entry(NamedTuple):
    """A message of a history. ``at`` is in seconds: of ``time.monotonic()``, which all processes of
    a machine share, in :class:`History`; since 1970 in :class:`Recovered`.
    """

    topic: str
    text: bool
    data: bytes
    source: str
    sequence: int
    at: float
    carrier: int
    number: int


#: Of a topic: its name, the highest sequence by source, and the highest that is no longer kept.
Marks: TypeAlias = tuple[str, dict[str, int], dict[str, int]]


class HistoryWanted(_Packet, frozen=True, array_like=True, tag=14):
    """Send your history, once it has these numbers by carrier: what is above comes to me."""

    question: int
    upto: dict[int, int]


class History(_Packet, frozen=True, array_like=True, tag=15):
    """A piece of the answer, with what the sender has seen by now."""

    question: int
    kept: list[Entry]
    marks: list[Marks]
    seen: dict[int, int]
    last: bool


class Recover(_Packet, frozen=True, array_like=True, tag=16):
    """What came after these marks? At most ``limit`` of it."""

    question: int
    topic: str
    marks: dict[str, int]
    limit: int


class Recovered(_Packet, frozen=True, array_like=True, tag=17):
    """A piece of the answer; ``complete``: nothing is missing (in the last piece)."""

    question: int
    entries: list[Entry]
    complete: bool
    last: bool


Packet: TypeAlias = (
    Greeting
    | Published
    | Interest
    | Complete
    | Counts
    | Mirror
    | Fence
    | Unmirror
    | Lost
    | Mark
    | After
    | Ask
    | Members
    | HistoryWanted
    | History
    | Recover
    | Recovered
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packet).decode


def encode(packet: Packet) -> bytes:
    """One packet as the bytes of a link.

    :raises MessageError: if it is longer than any node reads, or its text is none (PEP 383).
    """
    try:
        body = _encode(packet)
    except UnicodeEncodeError as error:
        raise MessageError(f"text that UTF-8 cannot hold: {error}") from error
    if len(body) > LONGEST:
        raise MessageError(f"a packet of {len(body)} bytes; {LONGEST} are the most")
    return _SIZE.pack(len(body)) + body


def encode_published(  # noqa: PLR0917 - the hot path
    number: int,
    topic: str,
    text: bool,  # noqa: FBT001 - in the order of the fields
    data: bytes,
    exclude: int,
    at: float,
    source: str | None,
    sequence: int,
) -> bytes:
    """As `encode` does it of a `Published`, without the struct; no size is checked."""
    body = _encode((_PUBLISHED, number, topic, text, data, exclude, at, source, sequence))
    return len(body).to_bytes(4, "little") + body


class Feed:
    """Cuts packets out of a stream.

    :param limit: bytes that a packet may have.
    """

    def __init__(self, limit: int = LONGEST) -> None:
        self._limit = limit
        self._rest = bytearray()
        #: Bytes that the packet at the beginning of the rest needs, as far as that is known.
        self._need = 0

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are whole now.

        :raises MessageError: if one is none, or too long; nothing may be fed afterwards.
        """
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._need:
                return []
            data = bytes(rest)
            rest.clear()
        view = memoryview(data)
        at, end = 0, len(data)
        found: list[Packet] = []
        size_at, decode, limit = _SIZE.unpack_from, _decode, self._limit
        try:
            while end - at >= 4:
                size = size_at(data, at)[0]
                stop = at + 4 + size
                if stop > end:
                    if size > limit:
                        break
                    self._need = stop - at
                    rest += view[at:]
                    return found
                if size > limit:
                    break
                found.append(decode(view[at + 4 : stop]))
                at = stop
            else:
                self._need = 4
                rest += view[at:]
                return found
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"a packet is not understood: {error}") from error
        raise MessageError(f"a packet of {size} bytes; {limit} are the most")
