"""The codec's known forms; any message and any bytes are in tests/property."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from wssup import messages
from wssup.errors import MessageError
from wssup.messages import Accept, Drain, Failed, Hello, Load, Message, decode, encode


def test_every_message_has_a_type_of_its_own() -> None:
    """All messages of the module are in the union that is decoded, under different names."""
    kinds = [m for m in vars(messages).values() if isinstance(m, type)]
    structs = {m for m in kinds if issubclass(m, msgspec.Struct) and m.__struct_config__.tag}
    structs.discard(messages._Message)
    assert structs == set(get_args(Message))
    assert len({m.__struct_config__.tag for m in structs}) == len(structs)
    assert {m.__name__ for m in structs} <= set(messages.__all__)


def test_messages_are_frozen() -> None:
    """Nobody can change a message that others hold."""
    with pytest.raises(AttributeError):
        Accept(True).on = False  # type: ignore[misc]


def test_the_form_on_the_wire() -> None:
    """A message is a MessagePack map with its fields and ``type``: a later version must read it."""
    assert msgspec.msgpack.decode(encode(Hello(1, 7))) == {"type": "hello", "protocol": 1, "pid": 7}


def test_a_later_version_may_add_fields() -> None:
    """Fields that are not known are left out, and those with defaults may be missing."""
    data = {"type": "accept", "on": True, "invented": [1, {"later": None}]}
    assert decode(msgspec.msgpack.encode(data)) == Accept(True)
    drain = {"type": "drain", "code": 1012, "reason": "", "window": 1, "timeout": 2}
    assert decode(msgspec.msgpack.encode(drain)) == Drain(1012, "", 1.0, 2.0, wait=False)


def test_text_that_is_no_unicode_arrives_readable() -> None:
    """A lone surrogate in an application's error, or in a path, arrives with a backslash."""
    assert decode(encode(Failed("caf\udce9", "ok"))) == Failed("caf\\udce9", "ok")
    load = Load(1, "a", 1, "m:app", "/srv/\udcff", True, "s", "m:main", {"dirs": ["\ud800", 1]})
    found = decode(encode(load))
    assert isinstance(found, Load)
    assert (found.app_dir, found.preload) == ("/srv/\\udcff", True)
    assert found.settings == {"dirs": ["\\ud800", 1]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        msgspec.msgpack.encode({"type": "invented"}),
        msgspec.msgpack.encode({"type": "accept"}),
        msgspec.msgpack.encode({"type": "accept", "on": "yes"}),
        msgspec.msgpack.encode({"on": True}),
        encode(Accept(True)) + b"\xc0",
        encode(Accept(True))[:-1],
        b"\x82\xa4type\xa6accept\xa2on\xd9\x01\xff",
        b"\x81\xa4type\xa1\xff",
        b"\x82\xa4type\xa6accept\xa8invented" + b"\x91" * 100_000 + b"\xc0",
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    """Bytes that are no message of this version raise MessageError with how many they are."""
    with pytest.raises(MessageError, match=f"a message of {len(data)} bytes is not understood"):
        decode(data)
