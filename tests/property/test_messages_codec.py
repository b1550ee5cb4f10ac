"""Any message through the codec, and any bytes into it."""

from __future__ import annotations

import typing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.errors import MessageError
from wssup.messages import Message, decode, encode
from wssup.questions import ConnectionSeen

#: What settings are made of (msgspec.to_builtins).
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_BY_TYPE = {
    int: st.integers(-(2**63), 2**64 - 1),
    int | None: st.none() | st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: st.text(),
    int | None: st.none() | st.integers(-(2**63), 2**64 - 1),
    bytes: st.binary(),
    list[str]: st.lists(st.text()),
    list[int]: st.lists(st.integers(-(2**63), 2**64 - 1)),
    tuple[int, int]: st.tuples(st.integers(-(2**63), 2**63), st.integers(-(2**63), 2**63)),
    dict[str, Any]: st.dictionaries(st.text(), values),
}
_BY_TYPE[list[ConnectionSeen]] = st.lists(
    st.builds(
        ConnectionSeen,
        **{name: _BY_TYPE[hint] for name, hint in typing.get_type_hints(ConnectionSeen).items()},
    )
)


def _of(kind: type) -> st.SearchStrategy[Message]:
    hints = {k: v for k, v in typing.get_type_hints(kind).items() if not k.startswith("_")}
    return st.builds(kind, **{name: _BY_TYPE[hint] for name, hint in hints.items()})


any_message = st.one_of([_of(kind) for kind in typing.get_args(Message)])


@settings(max_examples=75, deadline=None)
@given(any_message)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    """Every message of every type arrives as it was sent, and of the same type."""
    found = decode(encode(message))
    assert type(found) is type(message)
    assert found == message


@settings(max_examples=75, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a message or a MessageError, and nothing else is ever raised."""
    try:
        decode(data)
    except MessageError:
        return


@settings(max_examples=75, deadline=None)
@given(any_message, st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4))
def test_damaged_messages(message: Message, damage: list[tuple[int, int]]) -> None:
    """A message some of whose bytes were changed is another message or a MessageError."""
    data = bytearray(encode(message))
    for position, byte in damage:
        data[position % len(data)] = byte
    try:
        decode(bytes(data))
    except MessageError:
        return
