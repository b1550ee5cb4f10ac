"""Any stream of frames through the decoder, however it is cut, and any bytes that are none."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wssup.server.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Close,
    Decoder,
    Event,
    Ping,
    Pong,
    Unfinished,
    Violation,
    encode,
)

#: A header without its payload, and a control frame without its last byte.
_MOST_REST = 130
_LIMITLESS = Decoder(message_bytes=1 << 40, fragments=1 << 40)


def client_frame(first: int, payload: bytes, mask: bytes) -> bytes:
    """A masked frame whose first byte is ``first`` (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    key = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return head + mask + number.to_bytes(size, "big")


class Stream(NamedTuple):
    """Bytes from a client, and what they say."""

    data: bytes
    events: list[Event]


masks = st.binary(min_size=4, max_size=4)
codes = st.sampled_from([1000, 1001, 1002, 1003, 1007, 1011, 1013, 3000, 4999])
#: Sizes about which a length changes its form; their payload repeats what is short.
_sizes = st.sampled_from([3, 124, 125, 126, 127, 128, 300, 65535, 65536])
_bodies = st.one_of(
    st.text(max_size=12),
    st.binary(max_size=12),
    st.builds(lambda size, char: (char * size)[:size], _sizes, st.sampled_from(["a", "é", "😀"])),
    st.builds(lambda size, part: (part * size)[:size], _sizes, st.binary(min_size=1, max_size=3)),
)
_short = st.binary(max_size=5) | st.integers(0, 125).map(bytes)


@st.composite
def controls(draw: st.DrawFn) -> Stream:
    """A few pings and pongs, mostly none."""
    data, events = b"", list[Event]()
    for opcode in draw(st.lists(st.sampled_from([PING, PONG]), max_size=2)):
        payload = draw(_short)
        data += client_frame(0x80 | opcode, payload, draw(masks))
        events.append(Ping(payload) if opcode == PING else Pong(payload))
    return Stream(data, events)


@st.composite
def messages(draw: st.DrawFn) -> Stream:
    """A message in one or more frames, with control frames between them."""
    body = draw(_bodies)
    payload = body.encode() if isinstance(body, str) else body
    places = st.integers(0, len(payload))
    cuts = [0, *sorted(draw(st.lists(places, max_size=3))), len(payload)]
    data, events = b"", list[Event]()
    opcode = TEXT if isinstance(body, str) else BINARY
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        between = draw(controls())
        data += between.data
        events += between.events
        first = (0 if number else opcode) | (0x80 if number == len(cuts) - 2 else 0)
        data += client_frame(first, payload[start:end], draw(masks))
    return Stream(data, [*events, body])


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Messages one after another; perhaps a close frame at the end."""
    found = draw(st.lists(messages(), max_size=4))
    data, events = b"".join(one.data for one in found), [e for one in found for e in one.events]
    if draw(st.booleans()):
        code, reason = draw(codes), draw(st.text(max_size=30))
        payload = code.to_bytes(2, "big") + reason.encode()
        data += client_frame(0x80 | CLOSE, payload, draw(masks))
        events.append(Close(code, reason))
    return Stream(data, events)


def _mutated(data: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    for place, new, gone in changes:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + gone :]
    return data


#: Streams some bytes of which were changed, inserted or lost; mostly near their beginning.
mutated = st.builds(
    lambda stream, changes: _mutated(stream.data, changes),
    streams(),
    st.lists(
        st.tuples(st.integers(0, 40) | st.integers(0), st.binary(max_size=3), st.integers(0, 3)),
        min_size=1,
        max_size=3,
    ),
)
#: Bytes that look like frames at the first glance, and bytes that do not.
_firsts = st.sampled_from([0, 1, 2, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A]) | st.integers(0, 255)
_seconds = st.sampled_from([0x80, 0x81, 0x85, 0xFD, 0xFE, 0xFF]) | st.integers(0, 255)
garbage = st.binary(max_size=60) | st.lists(
    st.builds(lambda a, b, rest: bytes((a, b)) + rest, _firsts, _seconds, st.binary(max_size=20)),
    max_size=5,
).map(b"".join)

#: Where the reads end, and how many frames the calls take, again and again.
cuttings = st.lists(st.integers(0, 40) | st.integers(0, 1 << 17), max_size=12)
budgets = st.lists(st.integers(1, 3) | st.integers(1, 100), min_size=1, max_size=5)


def pieces_of(data: bytes, cutting: Sequence[int]) -> list[bytes]:
    """``data`` cut at these places."""
    places = sorted({place for place in cutting if place <= len(data)})
    return [data[start:end] for start, end in itertools.pairwise([0, *places, len(data)])]


def decoded(pieces: Sequence[bytes], budget: Iterator[int], decoder: Decoder) -> list[Event]:
    """What comes out if ``pieces`` are read one after another, as the pump does it."""
    found: list[Event] = []
    state: Unfinished | None = None
    for piece in pieces:
        data: bytes = piece
        while True:
            most = next(budget)
            # A message whose last frame was begun before does not count again; a header that is
            # none is no frame.
            begun = state is not None and state.opcode != 0
            held = len(state.rest) if state is not None and not data else 1 << 40
            events, state = decoder.decode(data, state, most)
            taken = sum(not isinstance(event, Violation) for event in events)
            assert taken <= most + begun
            assert not any(isinstance(event, Close | Violation) for event in events[:-1])
            found += events
            if found and isinstance(found[-1], Close | Violation):
                assert state is None
                return found
            if state is None or not state.more:
                break
            assert len(state.rest) < held, "a call that gets nowhere"
            data = b""
    return found


def at_once(data: bytes, decoder: Decoder = _LIMITLESS) -> list[Event]:
    """What comes out in one call."""
    events, state = decoder.decode(data, None, 1 << 40)
    assert state is None or not state.more
    return events


def _same(found: list[Event], expected: list[Event]) -> None:
    assert found == expected
    # A Ping equals a Pong, and a Close a Violation, if they are of the same parts.
    assert list(map(type, found)) == list(map(type, expected))


@settings(max_examples=75, deadline=None)
@given(streams(), cuttings, budgets)
def test_a_stream_however_it_is_cut(stream: Stream, cutting: list[int], most: list[int]) -> None:
    """Messages and control frames come out as they were sent, wherever reads end and however few
    frames are taken at a time; then nothing is left.
    """
    _same(at_once(stream.data), stream.events)
    _same(
        decoded(pieces_of(stream.data, cutting), itertools.cycle(most), _LIMITLESS), stream.events
    )
    assert _LIMITLESS.decode(stream.data, None, 1 << 40)[1] is None


@settings(max_examples=60, deadline=None)
@given(streams().filter(lambda stream: len(stream.data) < 2000), budgets)
def test_a_stream_that_drips(stream: Stream, most: list[int]) -> None:
    """The same comes out if bytes come one by one."""
    pieces = [bytes((byte,)) for byte in stream.data]
    _same(decoded(pieces, itertools.cycle(most), _LIMITLESS), stream.events)


@settings(max_examples=150, deadline=None)
@given(mutated | garbage, cuttings, budgets, st.integers(1, 200) | st.none(), st.integers(1, 5))
@example(b"\x81\x86\0\0\0\0\xed\xa0\x80abc", list(range(12)), [1], None, 3)
@example(b"\x01\x83\0\0\0\0\xf4\x90\x80\x80\x80\0\0\0\0", list(range(12)), [1], None, 3)
@example(b"\x01\x81\0\0\0\0\xc3\x89\x80\0\0\0\0\x80\x80\0\0\0\0", list(range(20)), [1], None, 3)
def test_any_bytes_however_they_are_cut(
    data: bytes, cutting: list[int], most: list[int], message_bytes: int | None, fragments: int
) -> None:
    """Bytes that are no frames, or break a limit: the same events and the same violation come out,
    wherever reads end; nothing is ever raised.
    """
    decoder = Decoder(message_bytes=message_bytes or 1 << 40, fragments=fragments)
    expected = at_once(data, decoder)
    _same(decoded(pieces_of(data, cutting), itertools.cycle(most), decoder), expected)
    _same(
        decoded([bytes((byte,)) for byte in data[:300]], itertools.cycle(most), decoder),
        at_once(data[:300], decoder),
    )


@settings(max_examples=100, deadline=None)
@given(mutated | garbage, cuttings, budgets, st.integers(1, 200), st.integers(1, 5))
def test_what_is_held_is_bounded(
    data: bytes, cutting: list[int], most: list[int], message_bytes: int, fragments: int
) -> None:
    """Whatever comes, no more is held than the largest message and a frame's beginning; while
    frames are left by a budget, what was read besides.
    """
    decoder = Decoder(message_bytes=message_bytes, fragments=fragments)
    state: Unfinished | None = None
    left = itertools.cycle(most)
    for piece in pieces_of(data, cutting):
        events, state = decoder.decode(piece, state, next(left))
        for _ in range(len(piece)):
            if state is None or not state.more:
                break
            assert len(state.rest) <= _MOST_REST + len(piece)
            assert len(state.body) <= message_bytes
            events, state = decoder.decode(b"", state, next(left))
        if state is not None:
            assert not state.more
            assert len(state.rest) <= _MOST_REST
            assert len(state.body) <= message_bytes
            assert state.held == len(state.rest) + len(state.body)
        if events and isinstance(events[-1], Close | Violation):
            break


@settings(max_examples=100, deadline=None)
@given(_bodies, masks)
def test_what_is_encoded_is_decoded(body: str | bytes, mask: bytes) -> None:
    """A frame of the server's, with the mask that a client's has, is decoded to what was encoded;
    without one it is a violation.
    """
    payload = body.encode() if isinstance(body, str) else body
    opcode = TEXT if isinstance(body, str) else BINARY
    data = encode(opcode, payload)
    start = len(data) - len(payload)
    masked = client_frame(data[0], payload, mask)
    assert data[:2] == bytes((masked[0], masked[1] & 0x7F))
    assert data[2:start] == masked[2:start]
    _same(at_once(masked), [body])
    assert [type(event) for event in at_once(data)] == [Violation]


# Memory.


def _peak(work: Callable[[], object]) -> int:
    """The most bytes that were allocated meanwhile."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [100, 20_000])
def test_a_frame_that_drips_costs_its_bytes(size: int) -> None:
    """A frame that comes byte by byte is held as far as it has come, and the memory behind it is
    in proportion.
    """
    data = client_frame(0x81, b"x" * size, b"mask") + client_frame(0x89, b"y" * 125, b"mask")
    decoder = Decoder(message_bytes=1 << 20, fragments=100)

    def drip() -> None:
        state: Unfinished | None = None
        found: list[Event] = []
        for count, byte in enumerate(data, 1):
            events, state = decoder.decode(bytes([byte]), state, 10)
            found += events
            assert state is None or state.held <= count
        assert [type(event) for event in found] == [str, Ping]

    assert _peak(drip) < 4 * size + 10_000


def test_a_length_that_is_announced_costs_nothing() -> None:
    """Memory is taken for what has come, not for what a header promises: the largest length there
    is costs no more than a small one.
    """
    decoder = Decoder(message_bytes=1 << 63, fragments=100)
    data = b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big") + b"mask"

    def begin() -> None:
        events, state = decoder.decode(data, None, 10)
        assert events == []
        assert state is not None
        assert state.held == 0
        events, state = decoder.decode(b"abc", state, 10)
        assert state is not None
        assert state.held == 3

    assert _peak(begin) < 10_000
