"""What of ``ws.state`` survives a move, and what is said about the rest."""

from __future__ import annotations

import collections
import copy
import datetime as dt
import enum
import math
import uuid
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wssup.server.handoff.record import RecordError
from wssup.server.handoff.state import DEPTH, StateError, pack, unpack

_MOST = 256 << 10
_ONLY = "only None, bool, int, float, str, bytes, list and dict with str keys survive a move"

_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
values: st.SearchStrategy[Any] = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
states = st.dictionaries(st.text(), values, max_size=5)


class _Text(str):
    __slots__ = ()


class _Colour(enum.IntEnum):
    RED = 1


class _Pair(NamedTuple):
    a: int
    b: int


class _Struct(msgspec.Struct):
    a: int = 1


class _Lying(type):
    """Its classes say that they are any other one, and cannot be hashed."""

    def __eq__(cls, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class _Liar(metaclass=_Lying):
    pass


#: What msgspec or json would take, or turn into something else without a word.
_OTHERS: list[Any] = [
    (1, 2),
    (),
    {1},
    frozenset(),
    bytearray(b"a"),
    memoryview(b"a"),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.date(2026, 1, 1),
    dt.timedelta(1),
    uuid.UUID(int=1),
    Decimal(1),
    1j,
    _Text("a"),
    _Colour.RED,
    _Pair(1, 2),
    _Struct(),
    _Liar(),
    collections.OrderedDict(a=1),
    collections.defaultdict(int),
    collections.deque([1]),
    object(),
    int,
    len,
    range(3),
    Ellipsis,
    msgspec.msgpack.Ext(1, b"a"),
    msgspec.Raw(b"\x01"),
    msgspec.UNSET,
    ValueError("a"),
]


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    return [list, *map(_types, value)] if isinstance(value, list) else type(value)


@settings(max_examples=150, deadline=None)
@given(states)
def test_what_is_packed_is_unpacked(state: dict[str, Any]) -> None:
    """JSON-like data with bytes comes back as it was: values, types, the order of keys."""
    before = copy.deepcopy(state)
    found = unpack(pack(state, _MOST))
    assert found == state == before
    assert _types(found) == _types(state)
    assert repr(found) == repr(state)  # also the sign of a zero, and the order


def test_numbers_at_their_edges() -> None:
    """The largest and smallest integers, infinities and not-a-number survive."""
    state = {"i": [-(2**63), 2**64 - 1], "f": [math.inf, -math.inf, -0.0, 5e-324, math.nan]}
    assert repr(unpack(pack(state, _MOST))) == repr(state)


def test_an_empty_state_costs_nothing() -> None:
    """Most connections have none: it is no bytes, whatever the limit."""
    assert pack({}, 0) == b""
    assert unpack(b"") == {}


def test_what_is_unpacked_is_not_shared() -> None:
    """An object that stands in two places becomes two."""
    both = ["a"]
    found = unpack(pack({"x": both, "y": both}, _MOST))
    assert found == {"x": ["a"], "y": ["a"]}
    assert found["x"] is not found["y"]


# What does not survive.


@st.composite
def _places(draw: st.DrawFn) -> tuple[dict[str, Any], Any, str]:
    """A state, and a list or dict in it with its path as Python writes it."""
    state = draw(states)
    at: Any = state
    path = "state"
    for key in draw(st.lists(st.text(max_size=20) | st.none(), max_size=4)):
        inner: Any = draw(st.sampled_from([list, dict]))()
        if isinstance(at, dict):
            name = key or ""
            at[name] = inner
            path += f"[{name!r}]"
        else:
            at.append(inner)
            path += f"[{len(at) - 1}]"
        at = inner
        if isinstance(at, list):
            at.extend(draw(st.lists(values, max_size=2)))
    return state, at, path


def _put(at: Any, path: str, value: Any) -> str:
    """Put a value last into a list or dict; returns where it is then."""
    if isinstance(at, dict):
        at.pop("the key", None)
        at["the key"] = value
        return f"{path}['the key']"
    at.append(value)
    return f"{path}[{len(at) - 1}]"


@settings(max_examples=150, deadline=None)
@given(_places(), st.sampled_from(_OTHERS))
def test_what_does_not_survive(place: tuple[dict[str, Any], Any, str], other: Any) -> None:
    """Anything of another type, subclasses too, is an error that names where it is and its type,
    however deep it is and whatever else there is.
    """
    state, at, path = place
    where = _put(at, path, other)
    with pytest.raises(StateError) as caught:
        pack(state, _MOST)
    name = type(other).__name__
    assert str(caught.value) in (f"{where} is a {name}; {_ONLY}", f"{where} is an {name}; {_ONLY}")


@settings(max_examples=150, deadline=None)
@given(_places(), st.sampled_from([1, None, b"a", ("a",), 1.5, _Text("a"), True]))
def test_keys_that_do_not_survive(place: tuple[dict[str, Any], Any, str], key: Any) -> None:
    """A key that is no str is an error that names the dict and the key's type."""
    state, at, path = place
    where = _put(at, path, {"first": [1], key: "value"})
    with pytest.raises(StateError) as caught:
        pack(state, _MOST)
    name = type(key).__name__
    article = "an" if name == "int" else "a"
    assert str(caught.value) == f"{where} has a key that is {article} {name}; {_ONLY}"


@settings(max_examples=100, deadline=None)
@given(_places(), st.sampled_from([2**64, -(2**63) - 1, 10**400]))
def test_integers_of_more_than_64_bits(place: tuple[dict[str, Any], Any, str], number: int) -> None:
    """They are an error that says where."""
    state, at, path = place
    where = _put(at, path, number)
    with pytest.raises(StateError) as caught:
        pack(state, _MOST)
    assert str(caught.value) == f"{where} is an int of more than 64 bits; {_ONLY}"


@settings(max_examples=100, deadline=None)
@given(_places(), st.sampled_from(["\ud800", "ab\udfffc"]))
def test_text_that_is_none(place: tuple[dict[str, Any], Any, str], text: str) -> None:
    """A lone surrogate, in a text or in a key, is an error that says where."""
    state, at, path = place
    where = _put(at, path, text)
    with pytest.raises(StateError, match="with a lone surrogate at") as caught:
        pack(state, _MOST)
    assert str(caught.value).startswith(f"{where} is a str with")
    where = _put(at, path, {text: 1}) if isinstance(at, dict) else ""
    if where:
        with pytest.raises(StateError, match="with a lone surrogate at") as caught:
            pack(state, _MOST)
        assert str(caught.value).startswith(f"{where} has a key with")


def test_the_example_of_the_documentation() -> None:
    """One sentence says where, what, and what would be taken."""
    state = {"user": {"seen": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}}
    with pytest.raises(StateError) as caught:
        pack(state, _MOST)
    assert str(caught.value) == f"state['user']['seen'] is a datetime; {_ONLY}"


def test_a_state_that_is_no_dict() -> None:
    """Whatever stands in its place is an error, and none is taken for an empty one."""
    others: list[Any] = [None, [], (), "", 0, collections.OrderedDict(), [1], "a"]
    for other in others:
        with pytest.raises(StateError):
            pack(other, _MOST)


def test_a_key_that_is_long() -> None:
    """A path stays readable in a log."""
    with pytest.raises(StateError) as caught:
        pack({"k" * 1000: ()}, _MOST)
    assert str(caught.value) == f"state['{'k' * 60}…'] is a tuple; {_ONLY}"


# Depth, cycles, sizes.


def _nested(levels: int, kind: type) -> dict[str, Any]:
    """A dict with so many levels, itself included."""
    inner: Any = kind()
    for _ in range(levels - 2):
        inner = [inner] if kind is list else {"a": inner}
    return {"a": inner}


@pytest.mark.parametrize("kind", [list, dict])
def test_depth(kind: type) -> None:
    """64 levels survive; one more is an error that says so; far more, too."""
    state = _nested(DEPTH, kind)
    assert unpack(pack(state, _MOST)) == state
    for levels in (DEPTH + 1, 100_000):
        with pytest.raises(StateError, match=r"^state\['a'\].* is nested too deep: 64 levels"):
            pack(_nested(levels, kind), _MOST)
    # The same object may be deep enough in one place and too deep in another.
    with pytest.raises(StateError, match=r"^state\['b'\].* is nested too deep: 64 levels"):
        pack({"a": state["a"], "b": [state["a"]]}, _MOST)


@pytest.mark.parametrize("filling", [0, 10, 100_000])
def test_cycles(filling: int) -> None:
    """What contains itself is an error that says so and where, however large it is."""
    state: dict[str, Any] = {"user": {"friends": ["x"] * filling}}
    state["user"]["friends"].append(state["user"])
    with pytest.raises(StateError) as caught:
        pack(state, _MOST)
    where = f"state['user']['friends'][{filling}]"
    assert str(caught.value).startswith(f"{where} contains itself, and a cycle")
    itself: dict[str, Any] = {}
    itself["a"] = itself
    with pytest.raises(StateError, match=r"^state\['a'\] contains itself"):
        pack(itself, _MOST)


def test_lists_that_contain_one_another_again_and_again() -> None:
    """Few objects that are very many when written out: an error, and at once."""
    value: Any = ["a"]
    for _ in range(DEPTH - 2):
        value = [value, value]
    with pytest.raises(StateError, match=r"^state takes at least \d+ bytes, more than limits"):
        pack({"a": value}, _MOST)
    with pytest.raises(StateError, match=r"is a tuple"):
        pack({"a": value, "b": ()}, _MOST)


def test_sizes() -> None:
    """What takes the limit goes; a byte more is an error that says both numbers."""
    state = {"a": b"x" * 1000}
    size = len(pack(state, _MOST))
    assert unpack(pack(state, size)) == state
    with pytest.raises(StateError) as caught:
        pack(state, size - 1)
    assert str(caught.value) == (
        f"state takes {size} bytes, more than limits.state_bytes ({size - 1})"
    )
    with pytest.raises(StateError, match=r"^state takes at least 300002 bytes, more than limits"):
        pack({"a": [0] * 300_000}, _MOST)


@settings(max_examples=200, deadline=None)
@given(states, st.integers(0, 60))
def test_any_size(state: dict[str, Any], most: int) -> None:
    """Whether a state is too large is decided by its bytes alone."""
    size = len(pack(state, _MOST))
    if size <= most:
        assert len(pack(state, most)) == size
    else:
        with pytest.raises(StateError, match=rf"more than limits\.state_bytes \({most}\)$"):
            pack(state, most)


# Bytes that are no state.


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda rest: b"\x81\xa1a" + rest))
@example(b"\x81\xa1a" + b"\x91" * 5000)
@example(b"\x81\xa1a" + b"\x91" * 64 + b"\x90")
@example(b"\x81\xa1a\xd6\xff\0\0\0\0")  # a time
@example(b"\x81\xa1a\xd4\x05a")  # an extension
@example(b"\x81\xa1a\x81\x01\x02")  # a key that is a number
@example(b"\x81\xa1a\x81\x91\x01\x02")  # a key that is a list
@example(b"\x81\xa1a\xa1\xff")  # text that is not UTF-8
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x90")
@example(b"\xc0")
def test_any_bytes_as_a_state(data: bytes) -> None:
    """Any bytes are a RecordError, or a state that can be packed again."""
    try:
        state = unpack(data)
    except RecordError:
        return
    assert repr(unpack(pack(state, _MOST))) == repr(state)


@settings(max_examples=100, deadline=None)
@given(states.filter(bool), st.data())
def test_a_state_that_is_torn(state: dict[str, Any], more: st.DataObject) -> None:
    """Of a packed state its first bytes (not none), or more than it has, are a RecordError."""
    data = pack(state, _MOST)
    for torn in (data[: more.draw(st.integers(1, len(data) - 1))], data + b"\0"):
        with pytest.raises(RecordError):
            unpack(torn)
