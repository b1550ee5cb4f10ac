"""Messages and descriptors over a ``SOCK_SEQPACKET`` pair.

A datagram arrives whole or not at all, so there is no framing; end of file says that every copy of
the other end is closed. Sending never waits: the buffer holds hundreds of messages, and a peer that
has not read those is stuck.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

import trio

from wssup.errors import MessageError
from wssup.messages import Message, decode, encode

__all__ = ["Channel", "ChannelFull", "Received", "pair", "receive", "send"]

#: The longest datagram read. Its largest member is a traceback, which its sender bounds (32 KiB).
LONGEST = 192 * 1024
#: The kernel passes at most this many descriptors in one message (SCM_MAX_FD).
MOST_DESCRIPTORS = 253
#: Python's socket module lacks it: received descriptors are closed on exec (recvmsg(2)).
MSG_CMSG_CLOEXEC = 0x40000000
#: What sending says when there is no room for the message, or for its descriptors in flight.
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
#: What sending says when the other end, or this one, is closed.
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF})


class ChannelFull(Exception):  # noqa: N818 - a state of the peer, which the caller acts on
    """The peer has not read for so long that the socket's buffer is full."""


class Received(NamedTuple):
    """A message and the descriptors that came with it, which the receiver owns from now on."""

    message: Message
    descriptors: list[int]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, both blocking, both closed on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message; its descriptors stay open here.

    :raises OSError: as sendmsg(2): ``EPIPE`` when the peer is gone, ``EAGAIN`` on a full
        non-blocking end.
    """
    ancillary = []
    if descriptors:
        if len(descriptors) > MOST_DESCRIPTORS:
            raise MessageError(
                f"{len(descriptors)} descriptors in one message; {MOST_DESCRIPTORS} is the "
                f"kernel's limit"
            )
        rights = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
    end.sendmsg([encode(message)], ancillary, socket.MSG_NOSIGNAL)


def receive(end: socket.socket, flags: int = 0) -> Received | None:
    """Receive one message; ``None`` at end of file.

    :raises OSError: as recvmsg(2): ``EAGAIN`` when nothing is there and the end does not block.
    :raises MessageError: if it is not understood, or descriptors were lost on the way.
    """
    data, ancillary, message_flags, _ = end.recvmsg(
        LONGEST, socket.CMSG_SPACE(MOST_DESCRIPTORS * 4), flags | MSG_CMSG_CLOEXEC
    )
    descriptors: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
            descriptors.extend(numbers)
    try:
        # A receiver at its descriptor limit loses them silently but for this flag.
        if message_flags & socket.MSG_CTRUNC:
            raise MessageError(
                "descriptors were lost: this process is at its descriptor limit (RLIMIT_NOFILE)"
            )
        if message_flags & socket.MSG_TRUNC:
            raise MessageError(f"a message longer than {LONGEST} bytes")
        if not data:
            return None
        return Received(decode(data), descriptors)
    except MessageError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


class Channel:
    """One end of a pair, for trio."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    def fileno(self) -> int:
        """The end's descriptor, -1 when closed."""
        return self._end.fileno()

    def post(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send without waiting; ``False`` if the peer is gone (its exit is reported elsewhere).

        :raises ChannelFull: if the peer does not read.
        """
        try:
            send(self._end, message, descriptors)
        except OSError as error:
            if error.errno in _FULL:
                raise ChannelFull from error
            if error.errno not in _GONE:
                raise
            return False
        return True

    async def writable(self) -> None:
        """Wait until there may be room for a message, or the end is closed."""
        with contextlib.suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_writable(self._end)

    async def receive(self) -> Received | None:
        """The next message; ``None`` at end of file.

        :raises MessageError: if one is not understood; the channel stays usable.
        :raises trio.ClosedResourceError: if this end is closed, before or meanwhile.
        """
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._end.fileno() < 0:
                raise trio.ClosedResourceError
            try:
                return receive(self._end)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._end)
            except ConnectionResetError:
                # The peer died with unread messages of ours; what it had sent can still be read.
                continue

    def receive_nowait(self) -> Received | None:
        """A message that is already there, or ``None``.

        :raises MessageError: if it is not understood; the channel stays usable.
        """
        while True:
            try:
                return receive(self._end)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # said once, before what the peer had sent

    def close(self) -> None:
        """Close this end; who waits in :meth:`receive` gets ``trio.ClosedResourceError``."""
        if self._end.fileno() >= 0:
            trio.lowlevel.notify_closing(self._end)
            self._end.close()
