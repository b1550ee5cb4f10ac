"""What master and observer say to each other: one JSON object per line, over a stream pair.

==================  =====================================================
master → observer   :class:`Begin` first, then :class:`News`, :class:`Happened`, :class:`Ping`,
                    :class:`Published`
observer → master   :class:`Ready`, :class:`Pong`, :class:`Publish`, :class:`Failed`
==================  =====================================================

The observer asks for nothing but to publish. What it shows it is told, or reads from the
scoreboard.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from wssup.errors import MessageError
from wssup.status.facts import Facts

__all__ = [
    "LONGEST",
    "VERSION",
    "Begin",
    "Failed",
    "FromObserver",
    "Happened",
    "News",
    "Ping",
    "Pong",
    "Publish",
    "Published",
    "Ready",
    "ToObserver",
    "encode",
    "from_observer",
    "split",
    "to_observer",
]

#: The version of this vocabulary: after an upgrade an older master may start a newer observer.
VERSION: Final = 1
#: Bytes of a line at most: facts of 1000 slots, or a message that is published.
LONGEST: Final = 16 << 20


class _Line(msgspec.Struct, frozen=True, tag_field="type"):
    """What all lines share: the codec tells them apart by the field ``type``."""


class Begin(_Line, frozen=True, tag="begin"):
    """To the observer, first.

    :ivar scoreboard: the segment's name.
    :ivar token_file: where the token for publishing stands; empty: nobody may publish.
    """

    version: int
    instance: str
    scoreboard: str
    log_level: str
    log_format: str
    token_file: str


class News(_Line, frozen=True, tag="news"):
    """To the observer: the facts have changed."""

    facts: Facts


class Happened(_Line, frozen=True, tag="happened"):
    """To the observer: something happened in the life of the instance (supervisor/lifecycle.py)."""

    event: dict[str, Any]


class Ping(_Line, frozen=True, tag="ping"):
    """To the observer, each second: the master lives."""

    number: int


class Ready(_Line, frozen=True, tag="ready"):
    """From the observer: it answers whoever asks."""


class Pong(_Line, frozen=True, tag="pong"):
    """From the observer: it lives."""

    number: int


class Publish(_Line, frozen=True, tag="publish"):
    """From the observer: somebody who may publishes this; answered by :class:`Published`.

    :ivar text: whether ``data`` is text, as UTF-8.
    """

    question: int
    topic: str
    text: bool
    data: bytes


class Published(_Line, frozen=True, tag="published"):
    """To the observer.

    :ivar code: why it was not published, as a code of the control protocol; empty if it was.
    """

    question: int
    subscribers: int = 0
    code: str = ""
    error: str = ""


class Failed(_Line, frozen=True, tag="failed"):
    """From the observer, last: why it ends."""

    message: str


ToObserver: TypeAlias = Begin | News | Happened | Ping | Published
FromObserver: TypeAlias = Ready | Pong | Publish | Failed

_encoder = msgspec.json.Encoder(enc_hook=str)
_to_observer: msgspec.json.Decoder[ToObserver] = msgspec.json.Decoder(ToObserver)
_from_observer: msgspec.json.Decoder[FromObserver] = msgspec.json.Decoder(FromObserver)


def encode(line: ToObserver | FromObserver) -> bytes:
    """A line, with its end.

    Text that UTF-8 cannot hold (PEP 383) arrives with a backslash, as in messages.py.
    """
    try:
        return _encoder.encode(line) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(_printable(msgspec.to_builtins(line, enc_hook=str))) + b"\n"


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value


def to_observer(line: bytes) -> ToObserver:
    """The line of a master.

    :raises MessageError: if it is none.
    """
    try:
        return _to_observer.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"a line of {len(line)} bytes is not understood: {error}") from error


def from_observer(line: bytes) -> FromObserver:
    """The line of an observer.

    :raises MessageError: if it is none.
    """
    try:
        return _from_observer.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"a line of {len(line)} bytes is not understood: {error}") from error


def split(buffer: bytearray, most: int = LONGEST) -> list[bytes]:
    """Take the whole lines out of a buffer, without their ends.

    :raises MessageError: if one is longer than ``most`` bytes.
    """
    *lines, rest = bytes(buffer).split(b"\n")
    if max(map(len, (*lines, rest))) > most:
        raise MessageError(f"a line longer than {most} bytes")
    buffer[:] = rest
    return lines
