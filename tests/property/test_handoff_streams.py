"""What is moved in the middle of a stream goes on exactly as if it had not been."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.property.test_frames_streams import (
    Stream,
    at_once,
    budgets,
    client_frame,
    cuttings,
    garbage,
    mutated,
    pieces_of,
    streams,
)
from tests.property.test_frames_streams import (
    _same as same,
)
from tests.property.test_handoff_record import EMPTY, LIMITLESS, VERSIONS
from wssup.server.frames import Close, Decoder, Event, Unfinished, Violation
from wssup.server.handoff import record as records
from wssup.server.handoff.record import decode, encode


def moved(state: Unfinished | None, version: int) -> Unfinished | None:
    """What is unfinished, in another worker."""
    record = msgspec.structs.replace(EMPTY, unfinished=records.half_of(state))
    return records.unfinished_of(decode(encode(record, version), version).unfinished)


def _parts(state: Unfinished | None) -> list[Any]:
    if state is None:
        return []
    parts: list[Any] = [
        getattr(state, name) for name in Unfinished.__slots__ if name not in ("utf8", "body")
    ]
    return [*parts, bytes(state.body), state.utf8 and state.utf8.getstate(), type(state.body)]


def events_of(
    pieces: Sequence[bytes],
    budget: Iterator[int],
    decoder: Decoder,
    moves: Iterator[bool],
) -> list[Event]:
    """What comes out of ``pieces``; between two calls, where ``moves`` says so, there is a move."""
    found: list[Event] = []
    state: Unfinished | None = None
    for piece in pieces:
        data, again = piece, True
        while again:
            events, state = decoder.decode(data, state, next(budget))
            found += events
            if found and isinstance(found[-1], Close | Violation):
                return found
            if next(moves):
                here = _parts(state)
                state = moved(state, VERSIONS[1])
                assert _parts(state) == here
            data, again = b"", state is not None and state.more
    return found


# Move, go on.


@st.composite
def _cut_streams(draw: st.DrawFn) -> tuple[Stream, int, int]:
    """A stream and two places in it; the middles of frames are as likely as their edges."""
    stream = draw(streams())
    places = st.integers(0, min(40, len(stream.data))) | st.integers(0, len(stream.data))
    return (stream, *sorted((draw(places), draw(places))))  # type: ignore[return-value]


@settings(max_examples=150, deadline=None)
@given(_cut_streams(), budgets)
def test_a_stream_that_is_moved(cut: tuple[Stream, int, int], most: list[int]) -> None:
    """A valid stream is cut at any two offsets, and the connection moved there after one call with
    any budget, so that frames may be left: the same events come out as were sent.
    """
    stream, first, second = cut
    data = stream.data
    budget = itertools.cycle(most)
    found: list[Event] = []
    state: Unfinished | None = None
    for piece in (data[:first], data[first:second]):
        events, state = LIMITLESS.decode(piece, state, next(budget))
        found += events
        if found and isinstance(found[-1], Close):
            return same(found, stream.events)  # nothing is decoded after it
        state = moved(state, VERSIONS[1])
    events, state = LIMITLESS.decode(data[second:], state, 1 << 40)
    assert state is None
    return same(found + events, stream.events)


@settings(max_examples=100, deadline=None)
@given(streams(), cuttings, budgets, st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_stream_that_is_moved_often(
    stream: Stream, cutting: list[int], most: list[int], moves: list[bool]
) -> None:
    """Any number of moves, between any two calls: the same events as were sent."""
    pieces = pieces_of(stream.data, cutting)
    same(events_of(pieces, itertools.cycle(most), LIMITLESS, itertools.cycle(moves)), stream.events)


def test_a_stream_that_is_moved_at_every_offset() -> None:
    """A stream with everything in it, moved after every single byte, and once at every offset."""
    text = "aé€😀".encode()
    data = (
        client_frame(0x01, text[:2], b"abcd")
        + client_frame(0x89, b"ping", b"efgh")
        + client_frame(0x00, text[2:8], b"ijkl")
        + client_frame(0x00, b"", b"mnop")
        + client_frame(0x8A, b"", b"qrst")
        + client_frame(0x80, text[8:], b"uvwx")
        + client_frame(0x82, bytes(range(200)), b"\xff\0\x80\x7f")
        + client_frame(0x81, b"x" * 65536, b"yyyy")[:300]
    )
    expected = events_of([data], itertools.repeat(100), LIMITLESS, itertools.repeat(False))
    assert len(expected) == 4
    bytewise = [bytes((byte,)) for byte in data]
    always = itertools.repeat(True)
    same(events_of(bytewise, itertools.repeat(1), LIMITLESS, always), expected)
    for place in range(len(data) + 1):
        pieces = [data[:place], data[place:]]
        for budget in (1, 100):
            same(events_of(pieces, itertools.repeat(budget), LIMITLESS, always), expected)


@settings(max_examples=150, deadline=None)
@given(
    mutated | garbage,
    cuttings,
    budgets,
    st.lists(st.booleans(), min_size=1, max_size=6),
    st.tuples(st.integers(1, 200) | st.none(), st.integers(1, 5)),
)
@example(b"\x81\x86\0\0\0\0\xed\xa0\x80abc", list(range(12)), [1], [True], (None, 3))
@example(b"\x01\x83\0\0\0\0\xf4\x90\x80\x80\x80\0\0\0\0", list(range(12)), [1], [True], (None, 3))
@example(b"\x01\x81\0\0\0\0\xc3\x80\x81\0\0\0\0a", list(range(20)), [1], [True], (None, 3))
@example(b"\x02\x80abcd\x00\x80abcd\x00\x80abcd", [6, 12], [1], [True], (None, 2))
def test_any_bytes_that_are_moved(
    data: bytes,
    cutting: list[int],
    most: list[int],
    moves: list[bool],
    limits: tuple[int | None, int],
) -> None:
    """Bytes that break the protocol or a limit: the same events and the same violation come out,
    wherever the connection is moved.
    """
    decoder = Decoder(message_bytes=limits[0] or 1 << 40, fragments=limits[1])
    pieces = pieces_of(data, cutting)
    expected = at_once(data, decoder)
    same(events_of(pieces, itertools.cycle(most), decoder, itertools.cycle(moves)), expected)


def test_the_original_goes_on() -> None:
    """A record is a copy: whoever takes a connection back goes on with what it had."""
    events, state = LIMITLESS.decode(client_frame(0x82, b"abcdef", b"mask")[:9], None, 1)
    assert events == []
    half = records.half_of(state)
    before = _parts(state)
    other = records.unfinished_of(half)
    for one in (state, other):
        events, left = LIMITLESS.decode(client_frame(0x82, b"abcdef", b"mask")[9:], one, 1)
        assert events == [b"abcdef"]
        assert left is None
    assert _parts(records.unfinished_of(half)) == before
