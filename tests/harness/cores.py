"""Both cores of the seam in one process: see ``wssup.server.wire``."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

import pytest

from wssup.server import wire, wire_pure
from wssup.server.frames import Decoder

#: What the tests use of a core is what the pump uses: ``Wire``, ``WireConnection``, ``broadcast``.
PURE: Final[ModuleType] = wire_pure
COMPILED: Final[ModuleType] = wire

needs_compiled = pytest.mark.skipif(
    not wire.COMPILED, reason="the compiled core is not there, or not wanted"
)
CORES: Final = [
    pytest.param(PURE, id="pure"),
    pytest.param(COMPILED, id="compiled", marks=needs_compiled),
]

#: Sizes about which a length changes its form.
SIZES = [0, 1, 7, 8, 9, 124, 125, 126, 127, 2048, 2049, 4000, 65535, 65536, 200_000]
TEXTS = ["", "a", "x" * 126, "é", "ÿ" * 100, "€", "😀" * 40, "a\0b", "日本語" * 2000]

_kinds: dict[tuple[ModuleType, str], type[Any]] = {}


def subclass(core: ModuleType, name: str) -> type[Any]:
    """A class of the core as the engine has it: a Python class with slots of its own."""
    if (core, name) not in _kinds:
        slots = {"__slots__": ("__weakref__",)} if name == "WireConnection" else {}
        _kinds[core, name] = type(name, (getattr(core, name),), slots)
    return _kinds[core, name]


class End:
    """A connection of a core, and the client's end of it.

    :ivar ours: the connection.
    :ivar client: the client's socket; what waits for it gives up in the end.
    """

    def __init__(self, core: ModuleType, wire: Any, buffer: int = 0) -> None:
        self._socket, self.client = socket.socketpair()
        self._socket.setblocking(False)
        self.client.settimeout(5)
        if buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.ours = subclass(core, "WireConnection")()
        self.ours.wire = wire
        self.ours.fd = self._socket.fileno()
        self.ours.unfinished = self.ours.outbox = None
        self.ours.out_bytes = 0

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self._socket.close()

    def said(self, size: int) -> bytes:
        """So many bytes that the client got."""
        data = b""
        while len(data) < size:
            data += (part := self.client.recv(size - len(data)))
            assert part, "the end"
        return data

    def read_of_what_waits(self, most: int) -> bytes:
        """One read of what there is for the client now."""
        try:
            return os.read(self.client.fileno(), most)
        except BlockingIOError:
            return b""

    def waiting(self) -> bytes:
        """What there is for the client now."""
        data = b""
        while part := self.read_of_what_waits(1 << 16):
            data += part
        return data


def a_wire(
    core: ModuleType, *, message_bytes: int = 1 << 20, fragments: int = 16, read_bytes: int = 4096
) -> Any:
    """What connections share."""
    decoder = Decoder(message_bytes=message_bytes, fragments=fragments)
    return subclass(core, "Wire")(decoder, read_bytes=read_bytes, message_bytes=message_bytes)


@contextmanager
def an_end(core: ModuleType, *, buffer: int = 0, **limits: int) -> Iterator[End]:
    """One connection."""
    end = End(core, a_wire(core, **limits), buffer)
    try:
        yield end
    finally:
        end.close()


def counts(wire: Any) -> tuple[int, ...]:
    """A wire's counters."""
    return (wire.messages_in, wire.bytes_in, wire.messages_out, wire.bytes_out, wire.queued)


def a_broken_number() -> int:
    """A descriptor's number that is nobody's."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor
