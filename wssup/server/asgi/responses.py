"""The heads of HTTP/1.1 responses, and how their bodies are framed (RFC 9112 section 6).

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from time import struct_time

__all__ = ["CONTINUE", "LAST_CHUNK", "Framing", "Start", "begin", "chunk", "date", "start"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: No line in it can end (RFC 9110 section 5.5).
_VALUE: Final = re.compile(rb"[^\r\n\0]*")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]
_NUMBER: Final = re.compile(rb"[0-9]{1,18}")
#: What frames a message, or is about this connection alone, is the server's to say.
_OURS: Final = frozenset({b"connection", b"transfer-encoding", b"keep-alive", b"upgrade"})
_FIRST: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class Framing(IntEnum):
    """Where a body ends."""

    NONE = 0  # there is none, whatever the application sends
    LENGTH = 1  # where Content-Length says
    CHUNKED = 2
    CLOSE = 3  # where the connection does


class Start(NamedTuple):
    """A response that the application has begun.

    :ivar lines: the fields, each with its end.
    :ivar length: what it says of the length of the body.
    :ivar closes: it wants the connection closed.
    :ivar is_dated: it says when it was made.
    """

    status: int
    lines: list[bytes]
    length: int | None
    closes: bool
    is_dated: bool


def date(when: struct_time) -> bytes:
    """A moment as HTTP writes it (RFC 9110 section 5.6.7)."""
    day, month = _DAYS[when.tm_wday], _MONTHS[when.tm_mon - 1]
    return (
        f"{day}, {when.tm_mday:02} {month} {when.tm_year} "
        f"{when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02} GMT"
    ).encode()


def start(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Start:
    """Look over what an application begins a response with.

    :raises ValueError: a status that ends no request, or a field that cannot be sent.
    """
    if not 200 <= status <= 999:
        raise ValueError(f"status {status} does not answer a request: use 200 to 599")
    lines: list[bytes] = []
    length: int | None = None
    closes = is_dated = False
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {bytes(name)!r}: {bytes(value)!r} cannot be sent")
        known = bytes(name).lower()
        if known == b"content-length":
            if not _NUMBER.fullmatch(value) or length not in {None, int(value)}:
                raise ValueError(f"Content-Length {bytes(value)!r} is not one number")
            length = int(value)
            continue
        if known == b"connection":
            closes = closes or b"close" in value.lower()
        if known in _OURS:
            continue
        is_dated = is_dated or known == b"date"
        lines.append(b"%b: %b\r\n" % (name, value.strip(b" \t")))
    return Start(status, lines, length, closes, is_dated)


def begin(
    start: Start, *, method: str, version: str, whole: int | None, keep: bool, date: bytes
) -> tuple[bytes, Framing, bool]:
    """The head of a response.

    :param whole: the size of the body, if all of it is there.
    :param keep: whether the connection can go on.
    :param date: what the field says.
    :returns: the bytes, how the body is framed, and whether the connection goes on.
    """
    status = start.status
    keep = keep and not start.closes
    length = start.length
    lines = [_FIRST.get(status) or b"HTTP/1.1 %d \r\n" % status, *start.lines]
    if not start.is_dated:
        lines.append(b"Date: %b\r\n" % date)
    bodiless = status in {204, 304}
    if length is None and whole is not None and not bodiless:
        length = whole
    framing = Framing.LENGTH
    if method == "HEAD" or bodiless:
        framing = Framing.NONE
        if status == 204:  # RFC 9110 section 8.6
            length = None
    elif length is None:
        framing = Framing.CHUNKED if version == "1.1" else Framing.CLOSE
        keep = keep and framing is Framing.CHUNKED
    if length is not None:
        lines.append(b"Content-Length: %d\r\n" % length)
    elif framing is Framing.CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if not keep:
        lines.append(b"Connection: close\r\n")
    elif version == "1.0":
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines), framing, keep


def chunk(body: bytes) -> list[bytes]:
    """A part of a body as a chunk; of an empty one nothing."""
    return [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
