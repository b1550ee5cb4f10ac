"""Frames: what each rule of RFC 6455 section 5 and 7.4 makes of given bytes."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from wssup.server.frames import (
    BINARY,
    CLOSE,
    PONG,
    TEXT,
    Close,
    Decoder,
    Event,
    Ping,
    Pong,
    Unfinished,
    Violation,
    close_payload,
    encode,
)

MASK = b"\x37\xfa\x21\x3d"
_PART = 0  # the first byte of a frame that is a middle part of a message
_LAST = 0x80  # and of one that is the last
_PROTOCOL, _DATA, _TOO_BIG = 1002, 1007, 1009


def masked(payload: bytes) -> bytes:
    """Section 5.3, as it stands there."""
    return bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))


def frame(first: int, payload: bytes = b"", length: bytes = b"") -> bytes:
    """A masked frame whose first byte is ``first``.

    :param length: in place of the shortest form.
    """
    size = len(payload)
    if not length:
        if size < 126:
            length = bytes([0x80 | size])
        elif size < 1 << 16:
            length = b"\xfe" + size.to_bytes(2, "big")
        else:
            length = b"\xff" + size.to_bytes(8, "big")
    return bytes([first]) + length + MASK + masked(payload)


def text(payload: str | bytes) -> bytes:
    return frame(0x81, payload if isinstance(payload, bytes) else payload.encode())


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(0x88, code.to_bytes(2, "big") + reason)


class Decoded(NamedTuple):
    events: list[Event]
    state: Unfinished | None


def decoded(data: bytes, *, message_bytes: int = 1 << 20, fragments: int = 100) -> Decoded:
    decoder = Decoder(message_bytes=message_bytes, fragments=fragments)
    return Decoded(*decoder.decode(data, None, 100))


def violation(data: bytes, *, message_bytes: int = 1 << 20, fragments: int = 100) -> int:
    """The code of the violation that is the last event."""
    events, state = decoded(data, message_bytes=message_bytes, fragments=fragments)
    assert state is None
    assert events
    last = events[-1]
    assert isinstance(last, Violation), events
    assert last.reason
    # It goes into a close frame.
    assert close_payload(last.code, last.reason)[2:].decode() == last.reason
    return last.code


# Whole messages.


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"", []),
        (bytes.fromhex("818537fa213d7f9f4d5158"), ["Hello"]),  # section 5.7
        (bytes.fromhex("8a8537fa213d7f9f4d5158"), [Pong(b"Hello")]),  # section 5.7
        (text(""), [""]),
        (frame(0x82), [b""]),
        (text("añ€😀\0\ufeff"), ["añ€😀\0\ufeff"]),
        (frame(0x82, b"\xff\x00\xfe"), [b"\xff\x00\xfe"]),
        (frame(0x89), [Ping(b"")]),
        (frame(0x89, b"\xff" * 125), [Ping(b"\xff" * 125)]),
        (frame(0x8A, b"?"), [Pong(b"?")]),
        (frame(0x88), [Close(1005, "")]),
        (close(1000), [Close(1000, "")]),
        (close(4999, "größer".encode()), [Close(4999, "größer")]),
        (close(1001, b"r" * 123), [Close(1001, "r" * 123)]),
        (text("1") + frame(0x89, b"2") + frame(0x82, b"3"), ["1", Ping(b"2"), b"3"]),
        # Parts (section 5.4), also empty ones, and control frames between them.
        (frame(1, b"Hel") + frame(_LAST, b"lo"), ["Hello"]),
        (frame(2, b"a") + frame(_PART, b"b") + frame(_LAST, b"c"), [b"abc"]),
        (frame(1) + frame(_PART) + frame(_LAST), [""]),
        (frame(2) + frame(_LAST), [b""]),
        (frame(1, b"a") + frame(_LAST), ["a"]),
        (frame(1, b"\xf0\x9f") + frame(_PART, b"\x98") + frame(_LAST, b"\x80"), ["😀"]),
        (frame(1, b"\xf0") + frame(0x89) + frame(_LAST, b"\x9f\x98\x80"), [Ping(b""), "😀"]),
        (frame(1, b"a") + frame(0x88), [Close(1005, "")]),
        (frame(2, b"a") + frame(_LAST, b"b") + text("c") + frame(2, b""), [b"ab", "c"]),
    ],
)
def test_what_is_in_order(data: bytes, events: list[Event]) -> None:
    """Messages and control frames in order come out as they were sent, in their order and of
    their types.
    """
    found = decoded(data).events
    assert found == events
    assert list(map(type, found)) == list(map(type, events))


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 127, 255, 256, 65535, 65536, 100_001])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_sizes(kind: int, size: int) -> None:
    """A message of any size arrives, whatever form its length has and however it divides by 4."""
    payload = bytes(index % 0x80 for index in range(size))
    events, state = decoded(frame(0x80 | kind, payload) + frame(0x89))
    assert events == [payload.decode() if kind == TEXT else payload, Ping(b"")]
    assert state is None


# Frames that are none.


def test_the_first_byte() -> None:
    """Of the 256 first bytes those with a reserved bit or an opcode that is none break the
    protocol, as does a control frame in parts and a continuation of nothing; said with the second.
    """
    for first in range(256):
        opcode, final = first & 0x0F, first >= 0x80
        in_order = opcode in {TEXT, BINARY} or (opcode in {8, 9, 10} and final)
        events, state = decoded(bytes([first, 0x80]))
        if in_order and not first & 0x70:
            assert events == []
            assert state is not None
        else:
            assert [type(event) for event in events] == [Violation]
            assert violation(bytes([first, 0x80])) == _PROTOCOL


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x00",  # not masked (section 5.1)
        b"\x81\x05Hello",
        b"\x88\x02\x03\xe8",
        b"\x89\xfe",  # a control frame of more than 125 bytes (section 5.5)
        b"\x8a\xff",
        b"\x88\xfe\x00\x7e",
        b"\x81\xfe\x00\x00",  # lengths that are not in the shortest form (section 5.2)
        b"\x81\xfe\x00\x7d",
        b"\x82\xff" + bytes(8),
        b"\x82\xff" + (125).to_bytes(8, "big"),
        b"\x82\xff" + (126).to_bytes(8, "big"),
        b"\x82\xff" + (0xFFFF).to_bytes(8, "big"),
        b"\x82\xff" + (1 << 63).to_bytes(8, "big"),  # the first bit of the length is not 0
        b"\x82\xff" + b"\xff" * 8,
        frame(1, b"a") + b"\x81\x80",  # a message within another (section 5.4)
        frame(2, b"a") + b"\x01\x80",
        frame(2) + b"\x02\x80",
        text("a") + b"\x80\x80",  # a continuation of nothing
        b"\x00\x80",
        frame(1) + frame(_LAST) + b"\x80\x80",
        frame(0x88, b"\x03"),  # half a code (section 5.5.1)
    ],
)
def test_what_breaks_the_protocol(data: bytes) -> None:
    """Each of these is a violation with 1002, told as soon as the header says it."""
    assert violation(data) == _PROTOCOL
    assert violation(data + bytes(200)) == _PROTOCOL


def test_close_codes() -> None:
    """Of all numbers only those that an endpoint may send are taken (section 7.4 and the registry
    it founds): 1000 to 1003, 1007 to 1014, 3000 to 4999.
    """
    allowed = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    for code in range(1 << 16):
        (event,) = decoded(close(code, b"r")).events
        if code in allowed:
            assert event == Close(code, "r")
            assert close_payload(code, "r") == code.to_bytes(2, "big") + b"r"
        else:
            assert isinstance(event, Violation)
            assert event.code == _PROTOCOL


_NO_UTF8 = [
    *(b"\x80", b"\xbf", b"\xff", b"\xfe", b"a\xe2\x28\xa1", b"\xc3\x28"),
    *(b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xf0\x80\x80\x80"),  # too long
    *(b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80"),  # surrogates
    *(b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80"),  # beyond U+10FFFF
]
_HALVES = [b"\xc3", b"\xe2\x82", b"\xf0", b"\xf0\x9f\x98"]


@pytest.mark.parametrize("wrong", _NO_UTF8 + _HALVES)
def test_text_that_is_not_utf8(wrong: bytes) -> None:
    """Text that is not UTF-8, or ends within a character, is a violation with 1007 (section 8.1),
    in one frame and in parts; so is a close reason. What came before it stands.
    """
    assert violation(text(wrong)) == _DATA
    assert violation(text(b"good" + wrong)) == _DATA
    assert violation(frame(1, wrong) + frame(_LAST)) == _DATA
    assert violation(frame(1, wrong[:1]) + frame(_LAST, wrong[1:])) == _DATA
    assert violation(close(1000, wrong)) == _DATA
    events = decoded(text("before") + text(wrong) + text("after")).events
    assert events == ["before", Violation(_DATA, "text that is not UTF-8")]
    assert decoded(frame(0x82, wrong)).events == [wrong]
    assert decoded(frame(0x89, wrong)).events == [Ping(wrong)]


@pytest.mark.parametrize("wrong", _NO_UTF8)
def test_text_that_cannot_become_utf8_is_told_at_once(wrong: bytes) -> None:
    """The rest of a long text is not waited for once it is wrong (Autobahn 6.4 calls it fail-fast);
    half a character may still become one.
    """
    whole = text(wrong + b" " * 1000)
    assert violation(whole[: 8 + len(wrong)]) == _DATA
    assert violation(frame(1, wrong)) == _DATA
    for half in _HALVES:
        assert decoded(frame(1, half)).events == []


@pytest.mark.parametrize("last", [frame(0x88), b"\x83\x80", text(b"\xff")])
def test_nothing_is_decoded_after_the_end(last: bytes) -> None:
    """After a Close or a Violation comes no further event, whatever bytes follow, and no state."""
    events, state = decoded(text("a") + last + text("b") + frame(0x89))
    assert len(events) == 2
    assert events[0] == "a"
    assert isinstance(events[1], Close | Violation)
    assert state is None


# Limits.


def test_the_limit_of_a_message_counts_bytes() -> None:
    """A message of exactly the limit is taken, one byte more is 1009. Bytes count, not characters;
    the parts of a message are added up, messages are not, and pings are not measured.
    """
    for data in (
        text("€" * 4),
        frame(0x82, bytes(12)),
        frame(1, b"a" * 5) + frame(_LAST, b"b" * 7),
    ):
        assert len(decoded(data, message_bytes=12).events) == 1
        assert violation(data, message_bytes=11) == _TOO_BIG
    data = (
        text("12345") * 2 + frame(0x82, b"12345") + frame(0x89, bytes(125)) + close(1000, b"r" * 9)
    )
    assert len(decoded(data, message_bytes=5).events) == 5


def test_the_limit_is_judged_from_the_header() -> None:
    """What a frame announces is enough: no byte of its payload is waited for, nor its mask."""
    assert violation(b"\x81\xfe\x03\xe9", message_bytes=1000) == _TOO_BIG
    assert violation(b"\x82\x8b", message_bytes=10) == _TOO_BIG
    assert violation(frame(1, b"a" * 6) + b"\x00\x85", message_bytes=10) == _TOO_BIG
    huge = b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big")
    assert violation(huge, message_bytes=1 << 30) == _TOO_BIG


def test_the_limit_of_parts() -> None:
    """So many frames of a message are taken, and one more is 1009; single frames, control frames
    and other messages do not count.
    """
    whole = frame(1, b"a") + frame(_PART) * 2 + frame(0x89) * 5 + frame(_LAST)
    assert decoded(whole, fragments=4).events == [Ping(b"")] * 5 + ["a"]
    assert decoded(whole * 2, fragments=4).events[-1] == "a"
    assert violation(whole, fragments=3) == _TOO_BIG
    assert decoded(text("a") * 5, fragments=1).events == ["a"] * 5
    for cut in range(1, len(text("a"))):
        assert decoded(text("a")[:cut], fragments=1).events == []
    assert violation(frame(1) + frame(_LAST), fragments=1) == _TOO_BIG


# The budget.

_MIXED = text("a") + frame(0x89) + frame(1, b"b") + frame(0x8A) + frame(_LAST, b"c") + frame(0x82)
_MIXED_EVENTS: list[Event] = ["a", Ping(b""), Pong(b""), "bc", b""]


@pytest.mark.parametrize("budget", range(1, 8))
def test_the_budget(budget: int) -> None:
    """A call takes at most so many frames, control frames and parts too, and says whether it left
    any; the rest comes with the next calls, without further bytes.
    """
    decoder = Decoder(message_bytes=100, fragments=100)
    calls, found = 1, list[Event]()
    events, state = decoder.decode(_MIXED, None, budget)
    while True:
        assert len(events) <= budget
        found += events
        if state is None or not state.more:
            break
        events, state = decoder.decode(b"", state, budget)
        calls += 1
    assert state is None
    assert found == _MIXED_EVENTS
    assert calls == -(-6 // budget)


def test_more_is_what_the_budget_left() -> None:
    """`more` is set for a frame that was left, not for one whose header has not come; it falls
    when the rest turns out to be incomplete. What comes meanwhile is put behind what was left.
    """
    decoder = Decoder(message_bytes=100, fragments=100)
    events, state = decoder.decode(text("a") + text("b")[:-1], None, 1)
    assert events == ["a"]
    assert state is not None
    assert state.more
    events, state = decoder.decode(b"", state, 1)
    assert events == []
    assert state is not None
    assert not state.more
    assert decoder.decode(text("b")[-1:], state, 1) == (["b"], None)
    events, state = decoder.decode(text("a") + b"\x81", None, 1)
    assert events == ["a"]
    assert state is not None
    assert not state.more
    state = Unfinished(text("a") + text("b"))
    events, state = decoder.decode(text("c")[:3], state, 1)
    assert events == ["a"]
    assert decoder.decode(text("c")[3:], state, 9) == (["b", "c"], None)


# From the server.


@pytest.mark.parametrize(
    ("opcode", "payload", "head"),
    [
        (TEXT, b"Hello", "8105"),  # section 5.7, as the next three
        (PONG, b"Hello", "8a05"),
        (BINARY, bytes(256), "827e0100"),
        (BINARY, bytes(65536), "827f0000000000010000"),
        (CLOSE, b"", "8800"),
        (PONG, bytes(125), "8a7d"),
        (TEXT, b"a" * 126, "817e007e"),
        (TEXT, b"a" * 65535, "817effff"),
    ],
)
def test_encode(opcode: int, payload: bytes, head: str) -> None:
    """A frame is final, not masked, and says its length in the shortest form."""
    assert encode(opcode, payload) == bytes.fromhex(head) + payload


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (None, None, b""),
        (None, "lost", b""),
        (1005, "lost", b""),
        (1000, None, b"\x03\xe8"),
        (1000, "", b"\x03\xe8"),
        (4999, "a€", b"\x13\x87a\xe2\x82\xac"),
        (1000, "r" * 124, b"\x03\xe8" + b"r" * 123),
        (1000, "r" * 100_000, b"\x03\xe8" + b"r" * 123),
        (1000, "r" * 121 + "€", b"\x03\xe8" + b"r" * 121),
        (1000, "r" * 120 + "€", b"\x03\xe8" + b"r" * 120 + "€".encode()),
        (1000, "r" * 120 + "😀", b"\x03\xe8" + b"r" * 120),
        (1000, "😀" * 31, b"\x03\xe8" + "😀".encode() * 30),
    ],
)
def test_close_payload(code: int | None, reason: str | None, payload: bytes) -> None:
    """A close frame has a code and a reason or neither; a reason that is too long is cut between
    two characters, so that no client sees half of one.
    """
    found = close_payload(code, reason)
    assert found == payload
    assert len(found) <= 125


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1006, 1015, 2999, 5000, 65535, 65536, 1 << 40])
def test_close_payload_of_a_code_that_nobody_may_send(code: int) -> None:
    """A code that no endpoint may send is a ValueError that says what to use."""
    with pytest.raises(ValueError, match=r"3000 to 4999"):
        close_payload(code, "reason")


def test_a_reason_that_is_no_text() -> None:
    """A reason that UTF-8 cannot carry is a ValueError, not a frame that breaks the protocol."""
    with pytest.raises(ValueError, match="surrogates"):
        close_payload(1000, "\ud800")
