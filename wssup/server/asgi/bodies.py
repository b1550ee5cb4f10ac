"""The bodies of HTTP/1.1 requests (RFC 9112 sections 6 and 7): where they end, and what is in them.

Pure: bytes go in, bytes come out. Strict, as requests that two servers read differently are an
attack ("smuggling"): whatever is ambiguous is refused, although the standard would let much of it
be mended.
"""

from __future__ import annotations

import re
from typing import Final

from wssup.server.handshake import BadRequestError, Head

__all__ = ["Body", "Chunked", "Sized", "body_of", "wants_continue"]

#: 18 digits are less than 2**63.
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
#: The size of a chunk: 15 hexadecimal digits are less than 2**63; then an extension, which nobody
#: has a use for.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_LONGEST_SIZE_LINE: Final = 256
#: Fields behind the last chunk; they are thrown away.
_LONGEST_TRAILERS: Final = 8192
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_CRLF: Final = b"\r\n"


class Sized:
    """A body of a known size.

    :ivar is_complete: nothing of it is missing any more.
    """

    __slots__ = ("_left",)

    def __init__(self, size: int) -> None:
        self._left = size

    @property
    def is_complete(self) -> bool:
        """Whether nothing of it is missing any more."""
        return not self._left

    def take(self, buffer: bytearray) -> bytes:
        """Take what belongs to it out of a buffer."""
        found = bytes(buffer[: self._left])
        del buffer[: self._left]
        self._left -= len(found)
        return found


class Chunked:
    """A body in chunks.

    :param most: bytes that it may have.
    """

    __slots__ = ("_left", "_most", "_state", "_trailers", "is_complete")

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = 0
        self._trailers = 0
        self._state = _HEAD
        self.is_complete = False

    def take(self, buffer: bytearray) -> bytes:
        """Take what belongs to it out of a buffer; what is in it is returned.

        :raises BadRequestError: it is not as it should be, or too large (413).
        """
        found = bytearray()
        while not self.is_complete and self._step(buffer, found):
            pass
        return bytes(found)

    def _step(self, buffer: bytearray, found: bytearray) -> bool:
        """One line, or what there is of a chunk; whether there was any."""
        if self._state is _DATA:
            part = buffer[: self._left]
            found += part
            del buffer[: self._left]
            self._left -= len(part)
            if not self._left:
                self._state = _END
            return bool(part)
        if self._state is _END:
            if not _CRLF.startswith(buffer[:2]):
                raise BadRequestError("a chunk does not end where it says")
            if len(buffer) < len(_CRLF):
                return False
            del buffer[:2]
            self._state = _HEAD
            return True
        line = self._line(buffer)
        if line is None:
            return False
        if self._state is _HEAD:
            self._begin(line)
        elif not line:
            self.is_complete = True
        elif not _TRAILER.fullmatch(line):
            raise BadRequestError("a trailer field is not in order")
        return True

    def _line(self, buffer: bytearray) -> bytes | None:
        """A line without its end, if it is there."""
        most = _LONGEST_SIZE_LINE
        if self._state is _TRAILERS:
            most = _LONGEST_TRAILERS - self._trailers
        end = buffer.find(b"\n", 0, most + 2)
        if end < 0:
            if len(buffer) > most:
                raise BadRequestError("a line between chunks is too long")
            return None
        if not end or buffer[end - 1] != _CRLF[0]:
            raise BadRequestError("a line between chunks ends without CR")
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        self._trailers += len(line) + len(_CRLF) if self._state is _TRAILERS else 0
        return line

    def _begin(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise BadRequestError("the size of a chunk is not in order")
        self._left = int(found[1], 16)
        self._most -= self._left
        if self._most < 0:
            raise BadRequestError("the body is too large", 413)
        self._state = _DATA if self._left else _TRAILERS


_HEAD: Final = 0
_DATA: Final = 1
_END: Final = 2
_TRAILERS: Final = 3

Body = Sized | Chunked


def body_of(head: Head, most: int) -> Body:
    """The body that a request has.

    :param head: examined by `handshake.examine`.
    :param most: bytes that it may have.
    :raises BadRequestError: that is not clear, or it is too large (413), or in a transfer coding
        that is not known here (501).
    """
    fields = head.fields
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise BadRequestError("Content-Length beside Transfer-Encoding")
        if head.version != "1.1":
            raise BadRequestError(f"Transfer-Encoding in HTTP/{head.version}")
        if coding.lower() != b"chunked":
            raise BadRequestError("the only transfer coding here is chunked", 501)
        return Chunked(most)
    if length is None:
        return Sized(0)
    if not _LENGTH.fullmatch(length):
        raise BadRequestError("Content-Length is no number")
    if int(length) > most:
        raise BadRequestError("the body is too large", 413)
    return Sized(int(length))


def wants_continue(head: Head) -> bool:
    """Whether a client waits for a word before it sends the body (RFC 9110 section 10.1.1).

    :raises BadRequestError: it expects something else (417).
    """
    expected = head.get(b"expect")
    if expected is None or head.version != "1.1":
        return False
    if expected.lower() != b"100-continue":
        raise BadRequestError("only 100-continue can be expected", 417)
    return True
