"""The link of a handoff session: batches of records with descriptors one way, answers the other.

A stream (unix(7)): a record may be larger than a datagram can be. Descriptors travel beside the
first byte of the batch they belong to, and a read never goes past the end of bytes that have some,
so those of a batch are there before its last byte. Numbers are big-endian:

=======  ==========================================
4 bytes  the size of what follows
2 bytes  records in this batch, as many descriptors
4 bytes  the size of a record, then the record; …
=======  ==========================================
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from wssup.channel import MSG_CMSG_CLOEXEC
from wssup.errors import MessageError

__all__ = ["BATCH", "LONGEST", "Incoming", "Outgoing", "Progress"]

#: Records in a batch; the kernel passes at most 253 descriptors at a time (SCM_MAX_FD).
BATCH: Final = 32
#: Bytes of a batch at most. One record alone may have most of them: its queues are bounded by the
#: limits of connections (config/limits.py).
LONGEST: Final = (1 << 32) - 1
_HEADER = struct.Struct("!IH")
_SIZE = struct.Struct("!I")
_READ = 256 << 10
#: What sendmsg(2) says when there is no memory, or too many descriptors of this user are on their
#: way already. The socket itself is writable then, so epoll would tell nothing new.
_NO_ROOM = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})


class Progress(Enum):
    """How far writing has come."""

    DONE = auto()
    FULL = auto()  # go on when the socket is writable
    LATER = auto()  # go on after a while


class Outgoing:
    """What is sent: batches, each written as far as the kernel takes it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._queue: deque[tuple[memoryview, list[int]]] = deque()

    def add(self, records: Sequence[bytes], descriptors: Sequence[int]) -> None:
        """Queue a batch. Its descriptors must stay open until it is answered."""
        body = b"".join(part for record in records for part in (_SIZE.pack(len(record)), record))
        header = _HEADER.pack(len(body) + 2, len(records))
        self._queue.append((memoryview(header + body), list(descriptors)))

    def flush(self) -> Progress:
        """Write what can be written.

        :raises OSError: the link is broken, or shut. That says nothing about what was sent before.
        """
        while self._queue:
            data, descriptors = self._queue[0]
            ancillary = []
            if descriptors:
                rights = array.array("i", descriptors)
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            flags = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
            try:
                sent = self._end.sendmsg([data], ancillary, flags)
            except BlockingIOError:
                return Progress.FULL
            except OSError as error:
                if error.errno in _NO_ROOM:
                    return Progress.LATER
                raise
            # The descriptors went with the first byte.
            self._queue[0] = (data[sent:], [])
            if sent == len(data):
                self._queue.popleft()
        return Progress.DONE


class Incoming:
    """What is received: bytes and descriptors, until a batch is whole."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._data = bytearray()
        self._descriptors: deque[int] = deque()

    def read(self) -> list[tuple[bytes, int]] | None:
        """Read once.

        :returns: the records of the batches that are whole now, each with its descriptor, which is
            the caller's from here on; ``None`` at the end.
        :raises BlockingIOError: nothing is there.
        :raises MessageError: this is no batch, or descriptors were lost because this process is at
            its limit (recvmsg(2), MSG_CTRUNC).
        """
        space = socket.CMSG_SPACE(BATCH * 4)
        try:
            data, ancillary, flags, _ = self._end.recvmsg(
                _READ, space, MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            raise
        except OSError:
            # The sender is gone, and what it had not read with it; nothing of it could be answered.
            return None
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise MessageError("descriptors were lost: this process is at its limit")
        if not data:
            return None
        self._data += data
        return self._batches()

    def _batches(self) -> list[tuple[bytes, int]]:
        found: list[tuple[bytes, int]] = []
        try:
            while (records := self._next()) is not None:
                found += [(record, self._descriptors.popleft()) for record in records]
        except MessageError:
            self._descriptors.extend(descriptor for _, descriptor in found)
            raise
        return found

    def _next(self) -> list[bytes] | None:
        """The records of the next batch, if it is whole."""
        if len(self._data) < _HEADER.size:
            return None
        size, count = _HEADER.unpack_from(self._data)
        if not 1 <= count <= BATCH or not 2 <= size <= LONGEST:
            raise MessageError(f"a batch of {count} records in {size} bytes")
        if len(self._data) < 4 + size:
            return None
        body = bytes(self._data[_HEADER.size : 4 + size])
        del self._data[: 4 + size]
        records = _records(body, count)
        if len(self._descriptors) < count:
            raise MessageError(f"{len(self._descriptors)} descriptors for {count} records")
        return records

    def close(self) -> None:
        """Close what came and belongs to nothing whole."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()


def _records(body: bytes, count: int) -> list[bytes]:
    records, at = [], 0
    for _ in range(count):
        if at + _SIZE.size > len(body):
            raise MessageError("a batch that ends within a record")
        (size,) = _SIZE.unpack_from(body, at)
        at += _SIZE.size
        if at + size > len(body):
            raise MessageError("a batch that ends within a record")
        records.append(body[at : at + size])
        at += size
    if at != len(body):
        raise MessageError("a batch with bytes behind its records")
    return records
