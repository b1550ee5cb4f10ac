"""Asking the kernel for its listeners: requests and answers of sock_diag(7), as bytes.

Pure: queues.py sends and receives. A request names the state LISTEN alone, so the kernel walks its
table of listeners and none of the connections, however many there are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from wssup.errors import MessageError

__all__ = ["Family", "Queue", "answers", "request"]

# <linux/netlink.h>
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 0x01
_NLM_F_DUMP: Final = 0x300
_NLMSGHDR: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ERRNO: Final = struct.Struct("=i")
_NLATTR: Final = struct.Struct("=HH")  # length, type

# <linux/sock_diag.h>, <linux/inet_diag.h>, <linux/unix_diag.h>
_SOCK_DIAG_BY_FAMILY: Final = 20
_IPPROTO_TCP: Final = 6
_LISTEN: Final = 1 << 10  # TCP_LISTEN, which unix sockets use as well
_INET_DIAG_SKMEMINFO: Final = 7
_SK_MEMINFO_DROPS: Final = 8
_UDIAG_SHOW_RQLEN: Final = 0x10
_UNIX_DIAG_RQLEN: Final = 4
_INET_REQUEST: Final = struct.Struct("=BBBxI48x")  # family, protocol, extensions, states, id
_UNIX_REQUEST: Final = struct.Struct("=BBHIII8x")  # family, protocol, -, states, inode, show
#: After family, state, timer, retransmissions and the socket's id: expires, rqueue, wqueue, uid,
#: inode.
_INET_ANSWER: Final = struct.Struct("=4x48x4xIIII")
_UNIX_ANSWER: Final = struct.Struct("=4xI8x")  # family, type, state, -; inode; cookie
_RQLEN: Final = struct.Struct("=II")


class Family(IntEnum):
    """The families of listeners there are (socket(2))."""

    UNIX = 1
    IPV4 = 2
    IPV6 = 10


class Queue(NamedTuple):
    """The accept queue of a listener.

    :ivar inode: of the socket.
    :ivar length: connections that wait to be accepted.
    :ivar limit: how many may wait (listen(2), net.core.somaxconn).
    :ivar drops: what the kernel dropped at this listener since it was made, mostly because its
        queue was full; ``None`` where the kernel does not count it (unix sockets wait instead).
    """

    inode: int
    length: int
    limit: int
    drops: int | None


def request(family: Family, sequence: int) -> bytes:
    """The request for all listeners of a family in this network namespace."""
    if family is Family.UNIX:
        body = _UNIX_REQUEST.pack(family, 0, 0, _LISTEN, 0, _UDIAG_SHOW_RQLEN)
    else:
        extensions = 1 << (_INET_DIAG_SKMEMINFO - 1)
        body = _INET_REQUEST.pack(family, _IPPROTO_TCP, extensions, _LISTEN)
    length = _NLMSGHDR.size + len(body)
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    return _NLMSGHDR.pack(length, _SOCK_DIAG_BY_FAMILY, flags, sequence, 0) + body


def answers(data: bytes, family: Family, sequence: int) -> tuple[list[Queue], bool]:
    """The listeners in one datagram of the answer, and whether it was the last one.

    :param sequence: the request's; what answers another one is skipped.
    :raises OSError: the kernel answered with an error.
    :raises MessageError: the bytes are no messages.
    """
    found: list[Queue] = []
    try:
        for kind, number, body in _messages(data):
            if number != sequence:
                continue
            if kind == _NLMSG_DONE:
                return found, True
            if kind == _NLMSG_ERROR:
                (error,) = _ERRNO.unpack_from(body)
                raise OSError(-error, "sock_diag refuses")
            if kind == _SOCK_DIAG_BY_FAMILY:
                found.append(_unix(body) if family is Family.UNIX else _inet(body))
    except struct.error as error:
        raise MessageError(f"an answer of sock_diag is cut off: {error}") from error
    return found, False


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each netlink message."""
    at = 0
    while at < len(data):
        length, kind, _, number, _ = _NLMSGHDR.unpack_from(data, at)
        if length < _NLMSGHDR.size or at + length > len(data):
            raise MessageError(f"a message of {length} bytes in {len(data) - at}")
        yield kind, number, data[at + _NLMSGHDR.size : at + length]
        at += _aligned(length)


def _inet(body: bytes) -> Queue:
    # Of a listener, rqueue is the length of its accept queue and wqueue the bound (tcp_diag.c).
    length, limit, _, inode = _INET_ANSWER.unpack_from(body)
    drops = None
    memory = _attributes(body[_INET_ANSWER.size :]).get(_INET_DIAG_SKMEMINFO)
    if memory is not None and len(memory) >= 4 * (_SK_MEMINFO_DROPS + 1):
        (drops,) = struct.unpack_from("=I", memory, 4 * _SK_MEMINFO_DROPS)
    return Queue(inode, length, limit, drops)


def _unix(body: bytes) -> Queue:
    (inode,) = _UNIX_ANSWER.unpack_from(body)
    lengths = _attributes(body[_UNIX_ANSWER.size :]).get(_UNIX_DIAG_RQLEN, b"")
    length, limit = _RQLEN.unpack_from(lengths) if lengths else (0, 0)
    return Queue(inode, length, limit, None)


def _attributes(data: bytes) -> dict[int, bytes]:
    """The attributes behind an answer, by type."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _NLATTR.size <= len(data):
        length, kind = _NLATTR.unpack_from(data, at)
        if length < _NLATTR.size or at + length > len(data):
            raise MessageError(f"an attribute of {length} bytes in {len(data) - at}")
        found[kind] = data[at + _NLATTR.size : at + length]
        at += _aligned(length)
    return found


def _aligned(length: int) -> int:
    """Netlink pads everything to 4 bytes."""
    return length + 3 & ~3
