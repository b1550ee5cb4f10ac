"""The record of a connection: all that a worker must know to go on where another one stopped.

Pure: nothing here knows a socket, a loop or a clock. A record travels beside the connection's
descriptor, as one MessagePack array without field names. Its bytes do not say their version: both
ends of a session are told that by the master, which picks the highest that both know.

A new version, say 5:

- Append its fields to `Record` or `Half`, with defaults. Never rename, reorder or retype one.
- Add a row to ``_TABLE``: ``5: row(17, 9)``, the numbers of fields that its two arrays have.
- An older reader is written the old arrays: the new fields are left out. So a new field may only
  say what an older reader can do without. If it cannot, the sender must not move a connection that
  needs it in the older version, or version 1 must go from the table.
- Of an older writer the new fields are not there, and have their defaults.

A change that is more than an appended field needs a row with functions of its own.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from wssup.errors import MessageError
from wssup.server.frames import TEXT, Unfinished
from wssup.topics import names

__all__ = [
    "PROXIES",
    "TOPICS",
    "VERSIONS",
    "Half",
    "Joined",
    "Record",
    "RecordError",
    "decode",
    "encode",
    "half_of",
    "unfinished_of",
]

if TYPE_CHECKING:
    Message = str | bytes
else:
    #: msgspec knows no union of str and bytes, so `_check` looks at the types.
    Message = Any

#: The largest payload length that a frame can announce (RFC 6455 section 5.2).
_LONGEST: Final = (1 << 63) - 1
#: What `described.target_of` and the parser of heads rely on.
_REQUEST_LINE: Final = re.compile(rb"[\r\n]*GET [^ \r\n]+ HTTP/\d\.\d\r\n")
#: Sizes of a packed peer: a unix socket, IPv4, IPv6 (`sockets.packed`).
_PEER_SIZES: Final = frozenset({0, 6, 18})
_TIMES: Final = ("opened", "heard", "ping_sent", "suspended")
#: What a `Half` says besides ``rest`` and ``more`` if its opcode is 0.
_NO_MESSAGE: Final = (b"", None, 0, 0, b"", False)


class RecordError(MessageError):
    """A record that cannot be decoded or encoded, or a version that nobody knows."""


class Half(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """An `Unfinished`: a connection in the middle of a frame or of a message.

    :ivar rest: bytes that were not decoded yet.
    :ivar more: ``rest`` was left only because a turn's budget was spent.
    :ivar opcode: of the message that is being received; 0: none, and nothing below is set.
    :ivar body: its payload so far, unmasked.
    :ivar utf8: of a text: the state of its incremental decoder, which holds the bytes of a
        character that is not complete.
    :ivar fragments: its frames so far.
    :ivar left: bytes of payload that its last frame still lacks.
    :ivar mask: the four bytes of that frame's mask, turned to the next byte of payload.
    :ivar final: that frame is the message's last.
    """

    rest: bytes
    more: bool
    opcode: Annotated[int, Meta(ge=0, le=2)]
    body: bytes
    utf8: tuple[bytes, int] | None
    fragments: Annotated[int, Meta(ge=0, le=_LONGEST)]
    left: Annotated[int, Meta(ge=0, le=_LONGEST)]
    mask: Annotated[bytes, Meta(max_length=4)]
    final: bool


class Joined(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A topic that a connection is subscribed to.

    :ivar positions: its messages come with their positions.
    :ivar member: the name under which its subscriber is listed, if it is not the connection's
        number.
    :ivar ahead: what it has of this topic that was still to come at its worker: by source, up to
        which sequence.
    """

    topic: str
    positions: bool = False
    member: str | None = None
    ahead: dict[str, Annotated[int, Meta(ge=0)]] = {}


class Record(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A connection between two workers. Times are seconds of ``time.monotonic()``, which is one
    clock for all processes of a machine (clock_gettime(2), CLOCK_MONOTONIC).

    :ivar number: ``Connection.id``.
    :ivar peer: its address, packed.
    :ivar head: the request head, as far as it is kept.
    :ivar opened: when it was upgraded.
    :ivar heard: when the peer last said something.
    :ivar ping_sent: when the ping that the peer has not answered was sent; 0: there is none.
    :ivar suspended: when it was taken off its worker: its pause begins.
    :ivar state: ``ws.state``, packed (`state.pack`); not looked into here.
    :ivar inbox: messages that were received and not consumed.
    :ivar unsent: frames that the kernel did not take; of the first a part may have been sent.
    :ivar topics: what it is subscribed to; from version 2 on.
    :ivar position: of the messages of topics, what it was sent: by the serial number of the node
        that put them on the bus, the number of the last one (and what else `Bus.position` says).
    :ivar secure: a trusted proxy says that the client uses TLS; from version 3 on.
    :ivar lately: when it subscribed, to topics to which it did while connections moved already;
        from version 4 on.
    """

    number: Annotated[int, Meta(ge=0)]
    peer: bytes
    head: bytes
    subprotocol: str | None
    opened: float
    heard: float
    ping_sent: float
    suspended: float
    state: bytes
    inbox: list[Message]
    unsent: list[bytes]
    unfinished: Half | None
    topics: list[Joined] = []
    position: dict[int, Annotated[int, Meta(ge=0)]] = {}
    secure: bool = False
    lately: dict[str, float] = {}


class Row(NamedTuple):
    """How records of one version are written and read."""

    encode: Callable[[Record], bytes]
    decode: Callable[[bytes], Record]


def row(fields: int, half_fields: int, kind: type[Record] = Record) -> Row:
    """A version whose arrays are the first fields of today's.

    :param fields: of `Record`; so ``half_fields`` of `Half`.
    :param kind: what is read.
    """
    encoder = msgspec.msgpack.Encoder()
    decoder = msgspec.msgpack.Decoder(kind)
    #: How an array of so many begins. (An item that is None takes one byte.)
    begin = encoder.encode([None] * fields)[:-fields]
    whole = fields == len(kind.__struct_fields__) and half_fields == len(Half.__struct_fields__)

    def cut(record: Record) -> bytes:
        return encoder.encode(
            [
                _values(value, half_fields) if isinstance(value, Half) else value
                for value in _values(record, fields)
            ]
        )

    def read(data: bytes) -> Record:
        # A field that is not this version's would be taken for a later one's.
        if not data.startswith(begin):
            raise ValueError(f"no array of {fields}")
        return decoder.decode(data)

    return Row(encoder.encode if whole else cut, read)


def _values(struct: msgspec.Struct, fields: int) -> list[Any]:
    return [getattr(struct, name) for name in struct.__struct_fields__[:fields]]


#: From this version on a connection's topics move with it.
TOPICS: Final = 2
#: And what a trusted proxy says of it.
PROXIES: Final = 3
#: And since when it is subscribed.
LATELY: Final = 4
_TABLE: Final[dict[int, Row]] = {
    1: row(12, 9),
    TOPICS: row(14, 9),
    PROXIES: row(15, 9),
    LATELY: row(16, 9),
}
#: The lowest and the highest version that this code reads and writes.
VERSIONS: Final = (min(_TABLE), max(_TABLE))


def encode(record: Record, version: int) -> bytes:
    """A record for a reader of that version.

    :raises RecordError: there is no such version, or something does not fit (a text that UTF-8
        cannot hold, 4 GiB in one piece).
    """
    how = _row_of(version)
    try:
        return how.encode(record)
    except (ValueError, TypeError, OverflowError) as error:
        raise RecordError(f"connection {record.number} cannot be recorded: {error}") from error


def decode(data: bytes, version: int) -> Record:
    """The record that a writer of that version wrote.

    :raises RecordError: there is no such version; ``data`` is no such record; or it says what no
        connection can be in.
    """
    how = _row_of(version)
    try:
        record = how.decode(data)
        problem = _check(record)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise RecordError(
            f"a record of {len(data)} bytes, version {version}, is not understood: {error}"
        ) from error
    if problem:
        raise RecordError(f"the record of connection {record.number} cannot be: {problem}")
    return record


def _row_of(version: int) -> Row:
    try:
        return _TABLE[version]
    except KeyError:
        lowest, highest = VERSIONS
        raise RecordError(
            f"record version {version} is not known here, only {lowest} to {highest}"
        ) from None


def _check(record: Record) -> str:
    """What a connection cannot be in, beyond what the types say; empty if there is nothing."""
    if len(record.peer) not in _PEER_SIZES:
        return f"a peer of {len(record.peer)} bytes"
    if not _REQUEST_LINE.match(record.head) or not record.head.endswith(b"\r\n\r\n"):
        return "a head that is none"
    times = [(name, getattr(record, name)) for name in _TIMES]
    for name, at in (*times, *record.lately.items()):
        if not 0 <= at < math.inf:  # not a number is neither
            return f"{name} at {at}"
    for message in record.inbox:
        if type(message) is not str and type(message) is not bytes:
            return f"a message that is a {type(message).__name__}"
    if not all(record.unsent):
        return "an empty frame"
    for joined in record.topics:
        names.check(joined.topic)
    return "" if record.unfinished is None else _check_half(record.unfinished)


def _check_half(half: Half) -> str:
    """The same of what is unfinished: only what `Decoder` leaves."""
    if half.more and not half.rest:
        return "frames are left, but no bytes"
    if not half.opcode:
        message = half.body, half.utf8, half.fragments, half.left, half.mask, half.final
        return "" if half.rest and message == _NO_MESSAGE else "parts of no message"
    if not half.fragments or len(half.mask) != 4:
        return "a message without a frame"
    if half.left and half.rest:
        return "bytes behind a frame that is not complete"
    if half.final and not half.left:
        return "a message that is complete"
    if half.opcode == TEXT:
        return _check_text(half)
    return "" if half.utf8 is None else "a character of no text"


def _check_text(half: Half) -> str:
    """The decoder must hold what the body leaves undecoded: nobody compares the two later."""
    try:
        taken = codecs.utf_8_decode(half.body, "strict", False)[1]
    except UnicodeDecodeError:
        return "a text that is not UTF-8"
    return "" if half.utf8 == (half.body[taken:], 0) else "a character that is not the text's"


def half_of(unfinished: Unfinished | None) -> Half | None:
    """What is unfinished, for a record. (A copy: the original can go on.)"""
    if unfinished is None:
        return None
    return Half(
        rest=unfinished.rest,
        more=unfinished.more,
        opcode=unfinished.opcode,
        body=bytes(unfinished.body),
        utf8=None if unfinished.utf8 is None else unfinished.utf8.getstate(),
        fragments=unfinished.fragments,
        left=unfinished.left,
        mask=unfinished.mask,
        final=unfinished.final,
    )


def unfinished_of(half: Half | None) -> Unfinished | None:
    """What is unfinished, of a record that was decoded."""
    if half is None:
        return None
    unfinished = Unfinished(half.rest)
    unfinished.more = half.more
    if half.opcode:
        unfinished.begin(half.opcode)
    unfinished.body += half.body
    if unfinished.utf8 is not None and half.utf8 is not None:
        unfinished.utf8.setstate(half.utf8)
    unfinished.fragments = half.fragments
    unfinished.left = half.left
    unfinished.mask = half.mask
    unfinished.final = half.final
    return unfinished
