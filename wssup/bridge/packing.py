"""What is said on a channel of the server, and what channels and keys are called. Pure.

====================================  ==============================================
channel ``NAMESPACE:TOPIC``           each message, once
stream ``NAMESPACE:history:TOPIC``    the same, in its field ``m`` (``bus_history``)
hash ``NAMESPACE:marks:TOPIC``        by source, the number of its last message there
====================================  ==============================================
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec

from wssup.errors import MessageError
from wssup.topics.names import check

__all__ = ["Names", "Parcel", "pack", "unpack"]

#: What can stand in a position (topics/position.py): one that could not would spoil those of all
#: clients of its topic.
_SOURCE: Final = re.compile(r"[0-9a-f]{8}\.[1-9][0-9]{0,9}", re.ASCII)
_HIGHEST: Final = (1 << 60) - 1


class Parcel(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A message between instances. The tag is the version of its form.

    :ivar source: who published it, and ``sequence`` as which of its messages over all topics.
    :ivar after: no message of this source and topic has a number above this one and below
        ``sequence``: whoever has seen those up to here has missed none between.
    :ivar before: the same of this source and any topic.
    :ivar text: whether ``data`` is text, as UTF-8.
    :ivar at: when it was published, in seconds since the epoch by the publisher's clock.
    """

    source: str
    sequence: int
    after: int
    before: int
    text: bool
    at: float
    data: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Parcel)


def pack(parcel: Parcel) -> bytes:
    """A message as bytes (MessagePack)."""
    return _encoder.encode(parcel)


def unpack(data: bytes) -> Parcel:
    """The message that the bytes are.

    :raises MessageError: they are none; anybody who may write to the server can say anything.
    """
    try:
        parcel = _decoder.decode(data)
        if parcel.text:
            parcel.data.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"a message of {len(data)} bytes is not understood: {error}") from None
    if not _is_source(parcel.source):
        raise MessageError(f"a message of a source that is none: {parcel.source[:40]!a}")
    if not 0 <= parcel.after <= parcel.before < parcel.sequence <= _HIGHEST:
        raise MessageError(
            f"a message with the number {parcel.sequence} after {parcel.after}, {parcel.before}"
        )
    return parcel


@lru_cache(maxsize=1024)
def _is_source(text: str) -> bool:
    return _SOURCE.fullmatch(text) is not None


class Names:
    """The names of channels and keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._channels = f"{namespace}:".encode()
        self._history = f"{namespace}:history:".encode()
        self._marks = f"{namespace}:marks:".encode()

    def channel(self, topic: str) -> bytes:
        """Where its messages are published."""
        return self._channels + topic.encode()

    @property
    def everything(self) -> bytes:
        """The pattern of all channels; a namespace has no characters that mean anything there."""
        return self._channels + b"*"

    def topic(self, channel: bytes) -> str | None:
        """The topic of a channel; ``None``: it is a channel of somebody else."""
        if not channel.startswith(self._channels):
            return None
        try:
            return check(channel[len(self._channels) :].decode())
        except ValueError:
            return None

    def history(self, topic: str) -> bytes:
        """The key of its stream."""
        return self._history + topic.encode()

    def marks(self, topic: str) -> bytes:
        """The key of its hash of last numbers."""
        return self._marks + topic.encode()
