"""The pure parts of the bridge: queue, pauses, wishes, names and the form of messages."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.bridge.fleet import slot
from wssup.bridge.outbox import Letter, Outbox
from wssup.bridge.owed import Owed
from wssup.bridge.packing import Names, Parcel, pack, unpack
from wssup.bridge.pauses import Pauses
from wssup.bridge.wishes import Wishes
from wssup.errors import MessageError

PARCELS = st.builds(
    Parcel,
    source=st.from_regex(r"[0-9a-f]{8}\.[1-9][0-9]{0,9}", fullmatch=True),
    sequence=st.integers(10, 2**60 - 1),
    after=st.integers(0, 5),
    before=st.integers(5, 9),
    text=st.just(False),
    at=st.floats(0, 4e9),
    data=st.binary(max_size=300),
)


@given(PARCELS)
def test_a_message_arrives_as_it_was(parcel: Parcel) -> None:
    """Packed and unpacked, a message is the same."""
    assert unpack(pack(parcel)) == parcel


@given(st.binary(max_size=200))
def test_what_anybody_may_publish_is_refused_in_one_way(data: bytes) -> None:
    """Bytes that are no message raise nothing but MessageError."""
    try:
        unpack(data)
    except MessageError:
        return


@pytest.mark.parametrize(
    "fields",
    [
        (1, "abababab.1", 5, 0, 0, True, 0.0, b"\xff"),
        (1, "abababab.1", 5, 5, 5, False, 0.0, b""),
        (1, "abababab.1", 5, 3, 2, False, 0.0, b""),
        (1, "abababab.1", 0, -1, -1, False, 0.0, b""),
        (1, "abababab.1", 2**60, 0, 0, False, 0.0, b""),
        (1, "ABABABAB.1", 5, 0, 0, False, 0.0, b""),
        (1, "abababab", 5, 0, 0, False, 0.0, b""),
        (1, "abababab.1" * 40, 5, 0, 0, False, 0.0, b""),
        (1, "ab.1", 5, 0, 0, False, 0.0, b""),
        (1, "abababab.0", 5, 0, 0, False, 0.0, b""),
        (1, "abababab.01", 5, 0, 0, False, 0.0, b""),
        (2, "abababab.1", 5, 0, 0, False, 0.0, b""),
        (1, "abababab.1", 5, 0, 0, False, 0.0),
        [[]] * 8,
    ],
    ids=[
        "text that is no UTF-8",
        "after itself",
        "after what is before",
        "number 0",
        "number beyond 60 bits",
        "no hexadecimal name",
        "no serial number",
        "long name",
        "short name",
        "the source of clocks",
        "a serial number in two ways",
        "another version",
        "too short",
        "lists",
    ],
)
def test_a_message_that_cannot_be_is_refused(fields: object) -> None:
    """What would reach a client as broken text, or break the books, is no message."""
    with pytest.raises(MessageError):
        unpack(msgspec.msgpack.encode(fields))


def test_names_lead_back_to_their_topic() -> None:
    """A channel's topic is found again; what is in no namespace of ours has none."""
    names = Names("acme")
    assert names.channel("room:4") == b"acme:room:4"
    assert names.topic(b"acme:room:4") == "room:4"
    assert names.history("room:4") == b"acme:history:room:4"
    assert names.marks("ø") == "acme:marks:ø".encode()
    assert names.topic(b"acm:room") is None
    assert names.topic(b"acme:\xff") is None
    assert names.topic(b"acme:") is None
    assert names.topic(b"acme:a\nb") is None


def test_slots_are_the_server_s() -> None:
    """A name's slot is what a Redis server says to CLUSTER KEYSLOT, braces included."""
    known = {
        b"123456789": 12739,
        b"foo": 12182,
        b"{foo}bar": 12182,
        b"bar{foo}baz{x}": 12182,
    }
    assert {name: slot(name) for name in known} == known
    assert slot(b"foo{}{bar}") == slot(b"foo{}{bar}") != slot(b"bar")
    assert slot(b"foo{{bar}}zap") == slot(b"{bar")


def letter(number: int, size: int = 100) -> Letter:
    return Letter("t", "abababab.1", number, bytes(size))


def test_a_full_queue_loses_the_oldest() -> None:
    """Beyond its bound the queue drops from its front, counts it, and stays in order."""
    outbox = Outbox(10 * letter(0).size)
    assert [gone for n in range(13) for gone in outbox.put(letter(n))] == [*map(letter, range(3))]
    assert (outbox.lost, len(outbox)) == (3, 10)
    assert [x.sequence for x in outbox.take(100, 1 << 20)] == list(range(3, 13))
    assert (outbox.size, len(outbox)) == (0, 0)


def test_one_message_always_has_room() -> None:
    """A message larger than the whole queue is sent all the same, in place of all others."""
    outbox = Outbox(1000)
    outbox.put(letter(1))
    assert outbox.put(letter(2, 5000)) == [letter(1)]
    assert [x.sequence for x in outbox.take(10, 100)] == [2]


@given(
    st.lists(st.one_of(st.integers(0, 3000), st.tuples(st.integers(1, 5), st.integers(1, 5000)))),
    st.integers(500, 10_000),
)
def test_the_queue_is_a_bounded_queue(steps: list[int | tuple[int, int]], limit: int) -> None:
    """Whatever comes and goes: the order holds, nothing is doubled, what is missing was counted,
    and the size is that of what waits, within the bound but for a single message.
    """
    outbox, taken, count = Outbox(limit), [], 0
    for step in steps:
        if isinstance(step, int):
            outbox.put(letter(count, step))
            count += 1
        else:
            batch = outbox.take(*step)
            assert bool(batch) or not outbox
            assert len(batch) <= step[0]
            taken += [x.sequence for x in batch]
        assert outbox.size <= limit or len(outbox) == 1
    rest = outbox.take(count + 1, 1 << 40)
    taken += [x.sequence for x in rest]
    assert taken == sorted(set(taken))
    assert len(taken) + outbox.lost == count
    assert outbox.size == 0


def test_pauses_double_up_to_a_bound_and_are_spread() -> None:
    """Each pause is at most twice the one before and 10 s, and the dice decide how much of it."""
    pauses = Pauses(0.1, 10, 10, lambda: 0.5)
    assert [round(pauses.next(lived=0), 3) for _ in range(9)] == [
        *(0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0),
    ]
    assert pauses.next(lived=9.9) == 5.0
    assert pauses.next(lived=10) == 0.05


WISHES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcdef"), st.booleans()),
        st.integers(1, 4),
        st.just("anew"),
    ),
    max_size=60,
)


@given(WISHES)
def test_the_server_is_asked_for_what_is_wanted(steps: list[tuple[str, bool] | int | str]) -> None:
    """However wishes come, go and come again, also between connections: once nothing is due, what
    the server was asked for is what is wanted, and nothing was said twice.
    """
    wishes, wanted, server = Wishes(), set(), set()

    def say(most: int) -> bool:
        ask, leave = wishes.due(most)
        assert len(ask) + len(leave) <= most
        assert not server & set(ask)
        assert set(leave) <= server
        server.update(ask)
        server.difference_update(leave)
        for topic in ask:
            wishes.heard(topic)
        return bool(ask or leave)

    for step in steps:
        if isinstance(step, tuple):
            wishes.want(*step)
            (wanted.add if step[1] else wanted.discard)(step[0])
        elif step == "anew":
            wishes.begin()
            server.clear()
        else:
            assert isinstance(step, int)
            say(step)
    while say(3):
        pass
    assert server == wanted
    assert wishes.settled
    assert wishes.counts == (len(wanted), len(wanted))


def test_wishes_that_came_and_went_are_forgotten() -> None:
    """However many topics come and go while nobody looks, nothing is kept of them."""
    wishes = Wishes()
    for number in range(1000):
        wishes.want(f"t{number}", True)
        wishes.want(f"t{number}", False)
    assert not wishes._changed
    wishes.want("a", True)
    wishes.due(10)
    wishes.want("a", False)
    wishes.want("a", True)
    assert wishes.due(10) == ([], [])


def test_what_is_subscribed_to_again_is_told() -> None:
    """A new connection goes on with what was confirmed on the one before, and is still wanted."""
    wishes = Wishes()
    for topic in "abc":
        wishes.want(topic, True)
    wishes.due(10)
    for topic in "ab":
        wishes.heard(topic)
    wishes.want("b", False)
    assert wishes.begin() == {"a"}
    assert wishes.due(10) == (["a", "c"], [])


def test_what_the_server_has() -> None:
    """What it has confirmed, until it is asked to take that back."""
    wishes = Wishes()
    wishes.want("a", True)
    wishes.due(10)
    assert not wishes.has("a")
    wishes.heard("a")
    assert wishes.has("a")
    wishes.want("a", False)
    assert wishes.has("a")
    wishes.due(10)
    wishes.want("a", True)
    assert not wishes.has("a")


def last(topic: str, source: str, number: int) -> Letter:
    return Letter(topic, source, number, b"")


def test_what_the_server_is_owed() -> None:
    """Of each topic and source the highest number, until the server was told of that one."""
    owed = Owed(most=3)
    assert not owed
    owed.add([last("t", "a.1", 5), last("t", "a.1", 4), last("t", "b.1", 9)])
    owed.add([last("u", "a.1", 7)])
    assert owed.some(1) == {"t": {"a.1": 5, "b.1": 9}}
    told = owed.some(10)
    owed.add([last("t", "a.1", 6)])
    owed.told(told)
    assert owed.some(10) == {"t": {"a.1": 6}}
    owed.told({"t": {"a.1": 6}, "never": {"a.1": 1}})
    assert not owed
    owed.add(last(topic, "a.1", 1) for topic in "abcd")
    assert list(owed.some(10)) == ["b", "c", "d"]
    owed.refuse(["c", "never"])
    owed.add([last("c", "a.1", 2)])
    assert list(owed.some(10)) == ["b", "d"]
    owed.again(10)
    assert owed.some(10) == {"b": {"a.1": 1}, "d": {"a.1": 1}, "c": {"a.1": 2}}
    owed.refuse("bd")
    assert [topic for topic in "abcd" if owed.has(topic)] == ["b", "c", "d"]
    owed.told({"b": {"a.1": 1}, "c": {"a.1": 3}, "d": {"b.1": 5}})
    assert (owed.some(9), owed.refused) == ({}, {"d": {"a.1": 1}})
    for topic in "efgh":
        owed.add([last(topic, "a.1", 1)])
        owed.refuse([topic])
    assert list(owed.refused) == ["f", "g", "h"]
    owed.again(2)
    assert (list(owed.some(9)), list(owed.refused)) == (["f", "g"], ["h"])


def test_settled_is_when_the_server_has_confirmed() -> None:
    """What was asked for is not yet subscribed to."""
    wishes = Wishes()
    wishes.want("a", True)
    assert not wishes.settled
    assert wishes.due(10) == (["a"], [])
    assert not wishes.settled
    wishes.heard("a")
    assert wishes.settled
    wishes.begin()
    assert not wishes.settled
