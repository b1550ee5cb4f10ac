"""A connection's record as bytes: of every version, torn, damaged, and of what cannot be."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.property.test_frames_streams import (
    streams,
)
from wssup.server.frames import BINARY, TEXT, Decoder
from wssup.server.handoff import record as records
from wssup.server.handoff.record import Half, Joined, Record, RecordError, decode, encode

VERSIONS = records.VERSIONS
LIMITLESS = Decoder(message_bytes=1 << 40, fragments=1 << 40)
_HEAD = b"GET /chat?room=1 HTTP/1.1\r\nHost: example.org\r\n\r\n"
EMPTY = Record(7 << 32, b"", _HEAD, None, 1.0, 2.0, 0.0, 3.0, b"", [], [], None)
#: In the middle of a text whose last character lacks a byte.
_HALF = Half(b"", False, TEXT, b"a\xf0\x9f\x98", (b"\xf0\x9f\x98", 0), 2, 1, b"mask", True)

every_version = pytest.mark.parametrize("version", range(VERSIONS[0], VERSIONS[1] + 1))
versions = st.integers(*VERSIONS)


_times = st.floats(0, 1e12) | st.integers(0, 1 << 40).map(float)


@st.composite
def _halves(draw: st.DrawFn) -> Half | None:
    """What a decoder leaves of a stream that ends anywhere."""
    data = draw(streams()).data
    end = draw(st.integers(0, min(40, len(data))) | st.integers(0, len(data)))
    return records.half_of(LIMITLESS.decode(data[:end], None, draw(st.integers(1, 5)))[1])


any_record = st.builds(
    Record,
    number=st.integers(0, 2**64 - 1),
    peer=st.sampled_from([0, 6, 18]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    head=st.sampled_from([_HEAD, b"\r\nGET / HTTP/1.1\r\n\r\n"]),
    subprotocol=st.none() | st.text(),
    opened=_times,
    heard=_times,
    ping_sent=_times,
    suspended=_times,
    state=st.binary(max_size=40),
    inbox=st.lists(st.text() | st.binary(max_size=300), max_size=5),
    unsent=st.lists(st.binary(min_size=1, max_size=300), max_size=5),
    unfinished=_halves(),
    topics=st.lists(
        st.builds(
            Joined,
            st.text(
                st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=9
            ),
            st.booleans(),
            st.none() | st.text(max_size=5),
            st.dictionaries(st.text(max_size=5), st.integers(0, 2**64 - 1), max_size=2),
        ),
        max_size=3,
    ),
    position=st.dictionaries(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), max_size=3),
    lately=st.dictionaries(st.text(max_size=5), _times, max_size=2),
)


def _equal(found: Record, expected: Record) -> None:
    assert found == expected
    assert list(map(type, found.inbox)) == list(map(type, expected.inbox))


@settings(max_examples=100, deadline=None)
@given(any_record, versions)
def test_what_is_encoded_is_decoded(record: Record, version: int) -> None:
    """Every record arrives as it was sent, text as text and bytes as bytes; before version 2
    without its topics, before 3 without what proxies say, before 4 without times of subscriptions.
    """
    arrived = decode(encode(record, version), version)
    if version < records.TOPICS:
        record = msgspec.structs.replace(record, topics=[], position={})
    if version < records.PROXIES:
        record = msgspec.structs.replace(record, secure=False)
    if version < records.LATELY:
        record = msgspec.structs.replace(record, lately={})
    _equal(arrived, record)


@settings(max_examples=75, deadline=None)
@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers(0, 9) | st.floats() | st.text() | st.binary(),
        st.lists,
    ).map(msgspec.msgpack.encode),
    versions,
)
@example(encode(EMPTY, 1)[: -len(b"\x90\x90\xc0")] + b"\x91" * 5000, 1)
@example(b"\x9c\xdd\xff\xff\xff\xff", 1)
def test_any_bytes_as_a_record(data: bytes, version: int) -> None:
    """Bytes that are no record are a RecordError, and nothing else is ever raised."""
    with pytest.raises(RecordError):
        decode(data, version)


@settings(max_examples=100, deadline=None)
@given(any_record, versions, st.data())
def test_a_record_that_is_torn(record: Record, version: int, more: st.DataObject) -> None:
    """Of a record its first bytes, or more bytes than it has, are a RecordError."""
    data = encode(record, version)
    with pytest.raises(RecordError):
        decode(data[: more.draw(st.integers(0, len(data) - 1))], version)
    with pytest.raises(RecordError):
        decode(data + more.draw(st.binary(min_size=1, max_size=9)), version)


@settings(max_examples=200, deadline=None)
@given(
    any_record,
    versions,
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
    st.binary(max_size=30),
)
def test_a_record_that_is_damaged(
    record: Record, version: int, damage: list[tuple[int, int]], following: bytes
) -> None:
    """A record some of whose bytes were changed is a RecordError, or another record; and that is
    one with which a decoder can go on, whatever comes.
    """
    data = bytearray(encode(record, version))
    for place, byte in damage:
        data[place % len(data)] = byte
    try:
        found = decode(bytes(data), version)
    except RecordError:
        return
    _equal(decode(encode(found, version), version), found)
    state = records.unfinished_of(found.unfinished)
    decoder = Decoder(message_bytes=1 << 16, fragments=100)
    for _ in range(50):
        _, state = decoder.decode(following, state, 3)


def _with_half(**changes: Any) -> Record:
    return msgspec.structs.replace(EMPTY, unfinished=msgspec.structs.replace(_HALF, **changes))


_NO_MESSAGE: dict[str, Any] = {
    "opcode": 0, "body": b"", "utf8": None, "fragments": 0, "left": 0, "mask": b"", "final": False
}  # fmt: skip
_IMPOSSIBLE: list[dict[str, Any]] = [
    {"number": -1}, {"number": True}, {"peer": b"12345"}, {"peer": ""}, {"subprotocol": 1},
    {"head": b""}, {"head": _HEAD[:-1]}, {"head": b"GET HTTP/1.1\r\n\r\n"},
    {"opened": -1.0}, {"heard": math.nan}, {"ping_sent": math.inf}, {"suspended": "now"},
    {"state": {"a": 1}}, {"inbox": ["a", 1]}, {"inbox": [None]}, {"unsent": ["abc"]},
    {"unsent": [b"abc", b""]}, {"unfinished": 1}, {"unfinished": []},
]  # fmt: skip
_IMPOSSIBLE_HALVES: list[dict[str, Any]] = [
    {"opcode": 3}, {"opcode": 9}, {"opcode": -1}, {"opcode": True}, {"final": 1},
    # No message, but parts of one; and nothing at all.
    {**_NO_MESSAGE, "rest": b"\x81", "body": b"a"}, {**_NO_MESSAGE, "rest": b"\x81", "left": 4},
    {**_NO_MESSAGE, "rest": b"\x81", "fragments": 1}, _NO_MESSAGE,
    # Frames are left, but no bytes; bytes behind a frame that lacks some; a complete message.
    {"left": 0, "final": False, "more": True}, {"rest": b"abc"}, {"left": 0},
    {"fragments": 0}, {"fragments": -1}, {"left": -1}, {"left": 1 << 63},
    {"mask": b""}, {"mask": b"12345"},
    # The decoder is not where the text is.
    {"utf8": None}, {"opcode": BINARY}, {"utf8": (b"\xf0\x9f", 0)}, {"body": b"\x80\xf0\x9f\x98"},
    {"utf8": (b"\xf0\x9f\x98", 1)}, {"utf8": (b"", 0)}, {"body": b"", "utf8": (b"\xf0", 0)},
]  # fmt: skip
_RECORDS = [msgspec.structs.replace(EMPTY, **changes) for changes in _IMPOSSIBLE]
_RECORDS += [_with_half(**changes) for changes in _IMPOSSIBLE_HALVES]


@every_version
@pytest.mark.parametrize("record", _RECORDS, ids=map(str, _IMPOSSIBLE + _IMPOSSIBLE_HALVES))
def test_what_no_connection_can_be_in(record: Record, version: int) -> None:
    """A record that says what cannot be is an error, and no connection is made of it."""
    _equal(decode(encode(_with_half(), version), version), _with_half())
    with pytest.raises(RecordError):
        decode(encode(record, version), version)


@every_version
def test_what_cannot_be_recorded(version: int) -> None:
    """A text that UTF-8 cannot hold, and a number of more than 64 bits, are errors that name the
    connection.
    """
    for changes in ({"inbox": ["\ud800"]}, {"number": 1 << 64}):
        record = msgspec.structs.replace(EMPTY, **changes)
        with pytest.raises(RecordError, match=f"connection {record.number} cannot be recorded"):
            encode(record, version)


# Versions.


@pytest.mark.parametrize("version", [VERSIONS[0] - 1, VERSIONS[1] + 1, -1, 1 << 40])
def test_a_version_that_nobody_knows(version: int) -> None:
    """It is an error that says which are known, both ways."""
    with pytest.raises(RecordError, match=f"version {version} is not known here, only 1 to 4"):
        encode(EMPTY, version)
    with pytest.raises(RecordError, match=f"version {version} is not known here, only 1 to 4"):
        decode(encode(EMPTY, 1), version)


def test_the_bytes_of_version_1() -> None:
    """They stay as they are for ever: workers that are running already read and write them."""
    record = Record(
        5, b"\x7f\0\0\1\x1f\x90", b"GET / HTTP/1.1\r\n\r\n", "chat", 1.5, 2.5, 0.0, 3.5,
        b"\x81\xa1a\x01", ["a", b"b"], [b"\x81\x01c"], _HALF,
    )  # fmt: skip
    data = bytes.fromhex(
        "9c05c4067f0000011f90c412474554202f20485454502f312e310d0a0d0aa463686174"
        "cb3ff8000000000000cb4004000000000000cb0000000000000000cb400c000000000000"
        "c40481a1610192a161c4016291c403810163"
        "99c400c201c40461f09f9892c403f09f98000201c4046d61736bc3"
    )
    assert encode(record, 1) == data
    assert decode(data, 1) == record


def test_the_bytes_of_version_2() -> None:
    """They end with the topics and the position in their messages; version 1 leaves these out."""
    record = Record(
        5, b"", b"GET / HTTP/1.1\r\n\r\n", None, 1.5, 2.5, 0.0, 3.5, b"", [], [], None,
        [Joined("a"), Joined("b", positions=True, member="ann", ahead={"f.1": 9})],
        {1: 7, 300: 70000},
    )  # fmt: skip
    data = bytes.fromhex(
        "9e05c400c412474554202f20485454502f312e310d0a0d0ac0"
        "cb3ff8000000000000cb4004000000000000cb0000000000000000cb400c000000000000"
        "c4009090c0"
        "9294a161c2c08094a162c3a3616e6e81a3662e3109820107cd012cce00011170"
    )
    assert encode(record, 2) == data
    assert decode(data, 2) == record
    older = msgspec.structs.replace(record, topics=[], position={})
    assert decode(encode(record, 1), 1) == older


def test_the_bytes_of_version_3() -> None:
    """They end with whether the client uses TLS; version 2 leaves it out."""
    record = msgspec.structs.replace(EMPTY, secure=True)
    data = encode(EMPTY, 2)
    assert data[:1] + encode(record, 3)[1:] == data + b"\xc3"
    assert decode(encode(record, 3), 3) == record
    assert decode(encode(record, 2), 2) == EMPTY


def test_the_bytes_of_version_4() -> None:
    """They end with when it subscribed to topics, as others moved; version 3 leaves it out."""
    record = msgspec.structs.replace(EMPTY, lately={"t": 1.5})
    data = encode(EMPTY, 3)
    assert encode(record, 4) == b"\xdc\0\x10" + data[1:] + bytes.fromhex("81a174cb3ff8000000000000")
    assert decode(encode(record, 4), 4) == record
    assert decode(encode(record, 3), 3) == EMPTY


@pytest.mark.parametrize("at", [-1.0, math.nan, math.inf])
def test_a_time_that_is_none(at: float) -> None:
    """A record with a subscription at no time is an error that names the topic."""
    record = msgspec.structs.replace(EMPTY, lately={"chat": at})
    with pytest.raises(RecordError, match="chat"):
        decode(encode(record, 4), 4)


@pytest.mark.parametrize("topic", ["", "a\0b", "a" * 256])
def test_a_topic_that_is_none(topic: str) -> None:
    """A record with a topic of a name that no topic can have is an error."""
    record = msgspec.structs.replace(EMPTY, topics=[Joined(topic)])
    with pytest.raises(RecordError, match="topic"):
        decode(encode(record, 2), 2)


class _Half2(Half, array_like=True, frozen=True, forbid_unknown_fields=True):
    extension: bytes = b"later"


class _Record5(Record, array_like=True, frozen=True, forbid_unknown_fields=True):
    weight: int = 1


@settings(max_examples=100, deadline=None)
@given(any_record, st.integers(0, 9))
def test_a_later_version_beside_the_first(record: Record, weight: int) -> None:
    """A row with one more field is all that a later version needs: it reads what it writes, an
    older reader gets the older arrays, and what an older writer wrote has defaults.
    """
    fifth = records.row(17, 9, _Record5)
    fourth = records.row(16, 9, _Record5)
    values = [getattr(record, name) for name in record.__struct_fields__]
    later = _Record5(*[*values, weight])
    assert fifth.decode(fifth.encode(later)) == later
    assert fourth.decode(encode(record, 4)) == _Record5(*values)
    half = [getattr(_HALF, name) for name in Half.__struct_fields__]
    for written, read in ((record.unfinished, record.unfinished), (_Half2(*half), _HALF)):
        whole = msgspec.structs.replace(later, unfinished=written)
        assert fourth.encode(whole) == encode(msgspec.structs.replace(record, unfinished=read), 4)
    # Neither is taken for the other.
    with pytest.raises(ValueError, match="no array of 17"):
        fifth.decode(encode(record, 4))
    with pytest.raises(RecordError, match="no array of 16"):
        decode(fifth.encode(later), 4)
