"""Any packet of the bus through its codec, in any pieces, and any bytes into it."""

from __future__ import annotations

import struct
import typing
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.errors import MessageError
from wssup.topics.packets import (
    Entry,
    Feed,
    Packet,
    Published,
    encode,
    encode_published,
)

words = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1)
marks = st.dictionaries(words, numbers, max_size=3)
entries = st.builds(
    Entry,
    words,
    st.booleans(),
    st.binary(max_size=20),
    words,
    numbers,
    st.floats(allow_nan=False),
    numbers,
    numbers,
)
_BY_TYPE: dict[object, st.SearchStrategy[object]] = {
    int: numbers,
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: words,
    bytes: st.binary(max_size=40),
    str | None: st.none() | words,
    list[str]: st.lists(words, max_size=4),
    dict[str, int]: marks,
    dict[int, int]: st.dictionaries(numbers, numbers, max_size=3),
    list[Entry]: st.lists(entries, max_size=3),
    list[tuple[str, dict[str, int], dict[str, int]]]: st.lists(
        st.tuples(words, marks, marks), max_size=3
    ),
}


def _of(kind: type) -> st.SearchStrategy[Packet]:
    hints = {k: v for k, v in typing.get_type_hints(kind).items() if not k.startswith("_")}
    return st.builds(kind, *[_BY_TYPE[hint] for hint in hints.values()])


any_packet = st.one_of([_of(kind) for kind in typing.get_args(Packet)])


@settings(max_examples=100, deadline=None)
@given(st.lists(any_packet, max_size=8), st.data())
def test_however_the_stream_is_cut_the_same_packets_come(
    packets: list[Packet], data: st.DataObject
) -> None:
    """Packets of all kinds arrive as they were sent, in whatever pieces."""
    stream = b"".join(map(encode, packets))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    feed = Feed()
    found: list[Packet] = []
    for begin, end in pairwise([0, *cuts, len(stream)]):
        found += feed.feed(stream[begin:end])
    assert found == packets
    assert [type(packet) for packet in found] == [type(packet) for packet in packets]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes(pieces: list[bytes]) -> None:
    """Any bytes are packets or a MessageError, and nothing else is ever raised."""
    feed = Feed(1 << 16)
    try:
        for piece in pieces:
            feed.feed(piece)
    except MessageError:
        return


@settings(max_examples=150, deadline=None)
@given(any_packet, st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4))
def test_damaged_packets(packet: Packet, damage: list[tuple[int, int]]) -> None:
    """A packet some of whose bytes were changed, its size aside, is another one or an error."""
    data = bytearray(encode(packet))
    for position, byte in damage:
        data[4 + position % (len(data) - 4)] = byte
    try:
        Feed().feed(bytes(data))
    except MessageError:
        return


@settings(max_examples=100, deadline=None)
@given(_of(Published))
def test_the_fast_way_to_encode_a_message_is_the_same(packet: Packet) -> None:
    """What publishes without a struct says byte for byte what the struct says."""
    assert isinstance(packet, Published)
    fast = encode_published(
        packet.number,
        packet.topic,
        packet.text,
        packet.data,
        packet.exclude,
        packet.at,
        packet.source,
        packet.sequence,
    )
    assert fast == encode(packet)


@pytest.mark.parametrize("size", [1001, 1 << 20, 2**32 - 1])
def test_a_packet_that_is_too_long_is_refused_before_it_has_come(size: int) -> None:
    """Its size is enough to refuse it: nothing is collected."""
    with pytest.raises(MessageError, match=f"{size} bytes"):
        Feed(1000).feed(struct.pack("<I", size) + b"x")


def test_a_long_packet_in_small_pieces_is_collected_once() -> None:
    """Megabytes in pieces of a read are not copied again and again."""
    packet = Published(1, "t", False, b"x" * (8 << 20), 0, 0.0, None, 1)
    data = encode(packet)
    feed = Feed()
    found: list[Packet] = []
    for at in range(0, len(data), 4096):
        found += feed.feed(data[at : at + 4096])
    assert found == [packet]


def test_text_that_is_none_is_an_error_of_the_sender() -> None:
    """A lone surrogate (PEP 383) cannot be sent, and says so."""
    with pytest.raises(MessageError, match="UTF-8"):
        encode(Published(1, "\udcff", False, b"", 0, 0.0, None, 1))
