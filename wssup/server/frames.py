"""WebSocket frames (RFC 6455 section 5): bytes in, events out; messages in, bytes out.

Pure: nothing here knows a socket, a loop or a clock. A connection between two messages has no state
at all, so an idle one costs nothing here. Whatever ends in the middle of a frame or of a message is
kept in an `Unfinished`, which the caller stores and gives back with the next bytes.

Events are plain: a text message is a ``str``, a binary one ``bytes``; the rest are `Ping`, `Pong`,
`Close`, and `Violation` for a client that broke the protocol or a limit, after which nothing more
is decoded.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final, NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled module on this platform

    def apply_mask(data: bytes | bytearray | memoryview, mask: bytes | bytearray) -> bytes:
        """``data`` XOR the repeated ``mask`` (RFC 6455 section 5.3), as one large number."""
        size = len(data)
        key = bytes(mask) * (size // 4 + 1)
        number = int.from_bytes(data, "little") ^ int.from_bytes(key[:size], "little")
        return number.to_bytes(size, "little")


__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "Close",
    "Decoder",
    "Event",
    "Ping",
    "Pong",
    "Unfinished",
    "Violation",
    "apply_mask",
    "close_payload",
    "control",
    "encode",
]

#: Opcodes (section 11.8).
CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

#: Close codes (section 7.4.1).
_PROTOCOL_ERROR = 1002
_INVALID_DATA = 1007
_TOO_BIG = 1009
NO_STATUS: Final = 1005

#: Section 5.5: a control frame's payload has at most so many bytes.
CONTROL_BYTES: Final = 125
#: Codes below 3000 that an endpoint may send: those of section 7.4.1 and of its registry.
_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class Ping(NamedTuple):
    """Section 5.5.2."""

    payload: bytes


class Pong(NamedTuple):
    """Section 5.5.3."""

    payload: bytes


class Close(NamedTuple):
    """Section 5.5.1. A frame without a code has 1005."""

    code: int
    reason: str


class Violation(NamedTuple):
    """What the client did wrong, and the code to close with."""

    code: int
    reason: str


Event = str | bytes | Ping | Pong | Close | Violation
_Utf8: Callable[[], codecs.IncrementalDecoder] = codecs.getincrementaldecoder("utf-8")


class Unfinished:
    """A connection in the middle of a frame, of a message, or of more bytes than one turn takes.

    :ivar rest: bytes that were not decoded yet.
    :ivar more: ``rest`` begins with a frame; it was left only because the budget was spent.
    :ivar opcode: of the message that is being received; 0: none.
    :ivar body: its payload so far.
    :ivar fragments: its frames so far.
    :ivar left: bytes of payload that the frame before ``rest`` still lacks.
    """

    __slots__ = ("body", "final", "fragments", "left", "mask", "more", "opcode", "rest", "utf8")

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest
        self.more = False
        self.opcode = 0
        self.body = bytearray()
        self.utf8: codecs.IncrementalDecoder | None = None
        self.fragments = 0
        self.left = 0
        self.mask = b""
        self.final = False

    @property
    def held(self) -> int:
        """Bytes held."""
        return len(self.rest) + len(self.body)

    def begin(self, opcode: int) -> None:
        """A message begins."""
        self.opcode = opcode
        self.utf8 = _Utf8() if opcode == TEXT else None

    def finished(self) -> str | bytes:
        """The message, which is complete.

        :raises UnicodeDecodeError: it ends within a character.
        """
        return self.body.decode() if self.opcode == TEXT else bytes(self.body)


class _BrokenError(Exception):
    """Ends decoding: the client broke the protocol, or a limit."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem)
        self.violation = Violation(code, problem)


class Decoder:
    """Decodes frames from clients under the limits of a worker.

    :param message_bytes: the largest message, in bytes as they are sent.
    :param fragments: the most frames of one message.
    """

    __slots__ = ("_fragments", "_message_bytes")

    def __init__(self, *, message_bytes: int, fragments: int) -> None:
        self._message_bytes = message_bytes
        self._fragments = fragments

    def decode(
        self, data: bytes, state: Unfinished | None, budget: int
    ) -> tuple[list[Event], Unfinished | None]:
        """Decode at most ``budget`` frames of ``data``, which follows what ``state`` holds.

        :returns: the events in their order, and the state to go on with (``None`` between two
            messages). Nothing more may be decoded after a `Violation` or a `Close`.
        """
        events: list[Event] = []
        if state is not None:
            data = state.rest + data if state.rest else data
            state.rest = b""
            state.more = False
        try:
            return events, self._decode(data, state, budget, events)
        except _BrokenError as broken:
            events.append(broken.violation)
        except UnicodeDecodeError:
            # RFC 6455 section 8.1.
            events.append(Violation(_INVALID_DATA, "text that is not UTF-8"))
        return events, None

    def _decode(  # noqa: C901, PLR0912, PLR0915 - one loop, as the frames come; calls cost a tenth
        self, data: bytes, state: Unfinished | None, budget: int, events: list[Event]
    ) -> Unfinished | None:
        """Add to ``events``; returns what is unfinished."""
        at, end = 0, len(data)
        message = state if state is not None and state.opcode else None
        while True:
            if message is not None and message.left:
                at = _take_payload(data, at, message)
                if message.left:
                    return message
                if message.final:
                    events.append(message.finished())
                    message = None
            header = _header(data, at, end)
            if header is None:
                return _keep(data[at:], message)
            if budget <= 0:
                message = _keep(data[at:], message)
                assert message is not None
                message.more = True
                return message
            opcode, final, start, length = header
            if opcode >= CLOSE:
                if end < start + length:
                    return _keep(data[at:], message)
                at = start + length
                events.append(control(opcode, apply_mask(data[start:at], data[start - 4 : start])))
                if opcode == CLOSE:
                    return None
                budget -= 1
                continue
            if opcode == CONTINUATION:
                if message is None:
                    raise _BrokenError(_PROTOCOL_ERROR, "a continuation of nothing")
            elif message is not None:
                raise _BrokenError(_PROTOCOL_ERROR, "a message within another one")
            # What a frame announces is judged before its payload is waited for.
            if length + (len(message.body) if message is not None else 0) > self._message_bytes:
                raise _BrokenError(_TOO_BIG, f"a message of more than {self._message_bytes} bytes")
            if end < start:
                return _keep(data[at:], message)
            budget -= 1
            if message is None and final and end >= start + length:
                at = start + length
                payload = apply_mask(data[start:at], data[start - 4 : start])
                events.append(payload if opcode == BINARY else payload.decode())
                continue
            if message is None:
                message = Unfinished()
                message.begin(opcode)
            message.fragments += 1
            if message.fragments > self._fragments:
                raise _BrokenError(_TOO_BIG, f"a message of more than {self._fragments} frames")
            message.final = final
            message.left = length
            message.mask = data[start - 4 : start]
            at = start
            if final and not length:
                events.append(message.finished())
                message = None


def _keep(rest: bytes, message: Unfinished | None) -> Unfinished | None:
    """The state that holds ``rest`` for later; ``None`` if there is nothing to hold."""
    if rest:
        message = message or Unfinished()
        message.rest = rest
    return message


def _take_payload(data: bytes, at: int, message: Unfinished) -> int:
    """Take what there is of a data frame's payload; returns the place after it.

    :raises UnicodeDecodeError: as soon as a text cannot be UTF-8 any more.
    """
    part = data[at : at + message.left]
    if part:
        mask = message.mask
        turned = len(part) % 4
        message.mask = mask[turned:] + mask[:turned]
        message.left -= len(part)
        part = apply_mask(part, mask)
        if message.utf8 is not None:
            message.utf8.decode(part)
        message.body += part
    return at + len(part)


def _header(data: bytes, at: int, end: int) -> tuple[int, bool, int, int] | None:
    """The header of the frame at ``at``: opcode, whether it is final, where its payload begins
    (perhaps beyond ``end``) and how long that is; ``None`` if its length is not there yet.

    :raises _BrokenError: it breaks section 5.2, 5.1 or 5.5.
    """
    if end - at < 2:
        return None
    first, second = data[at], data[at + 1]
    opcode, length, start = first & 0x0F, second & 0x7F, at + 6
    if first & 0x70:
        raise _BrokenError(_PROTOCOL_ERROR, "reserved bits without an extension")
    if opcode > PONG or BINARY < opcode < CLOSE:
        raise _BrokenError(_PROTOCOL_ERROR, f"opcode {opcode}, which is none")
    if not second & 0x80:
        raise _BrokenError(_PROTOCOL_ERROR, "a frame that is not masked")
    if opcode >= CLOSE and (length > CONTROL_BYTES or not first & 0x80):
        raise _BrokenError(_PROTOCOL_ERROR, "a control frame that is too long or in fragments")
    if length > CONTROL_BYTES:
        size = 2 if length == 126 else 8
        start += size
        if end < at + 2 + size:
            return None
        length = int.from_bytes(data[at + 2 : at + 2 + size], "big")
        # The shortest form that holds it, and the most significant bit is 0.
        if length <= (CONTROL_BYTES if size == 2 else 0xFFFF) or length >> 63:
            raise _BrokenError(_PROTOCOL_ERROR, "a length in a form that is not allowed")
    return opcode, first > 0x7F, start, length


def control(opcode: int, payload: bytes) -> Event:
    """What a whole control frame says; a `Violation` if it is a Close that nobody may send."""
    if opcode == PING:
        return Ping(payload)
    if opcode == PONG:
        return Pong(payload)
    if not payload:
        return Close(NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not is_sendable(code):
        return Violation(_PROTOCOL_ERROR, f"close code {code}, which nobody may send")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        return Violation(_INVALID_DATA, "a close reason that is not UTF-8")


def is_sendable(code: int) -> bool:
    """Whether a close frame may carry this code (section 7.4)."""
    return code in _SENDABLE or 3000 <= code <= 4999


def encode(opcode: int, payload: bytes) -> bytes:
    """A final frame from a server, which is not masked (section 5.1)."""
    size = len(payload)
    if size <= CONTROL_BYTES:
        return HEADS[opcode][size] + payload
    if size <= 0xFFFF:
        return b"%c\x7e%b%b" % (0x80 | opcode, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (0x80 | opcode, size.to_bytes(8, "big"), payload)


#: The first two bytes of every short frame, by opcode and size.
HEADS: Final = tuple(
    tuple(bytes((0x80 | opcode, size)) for size in range(CONTROL_BYTES + 1)) for opcode in range(11)
)


def close_payload(code: int | None, reason: str | None) -> bytes:
    """The payload of a close frame. A reason that is too long is cut between two characters.

    :param code: ``None`` or 1005: none, and no reason.
    :raises ValueError: a code that no endpoint may send (section 7.4).
    """
    if code is None or code == NO_STATUS:
        return b""
    if not is_sendable(code):
        raise ValueError(f"a close frame cannot carry code {code}: use 1000 or 3000 to 4999")
    cut = (reason or "").encode()[: CONTROL_BYTES - 2]
    return code.to_bytes(2, "big") + cut.decode(errors="ignore").encode()
