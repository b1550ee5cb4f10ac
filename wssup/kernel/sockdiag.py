"""Asking the kernel for its sockets: requests and answers of sock_diag(7), as bytes.

Pure: sockets.py sends and receives. A request for listeners names the state LISTEN alone, so the
kernel walks its table of listeners and none of the connections, however many there are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

from wssup.errors import MessageError
from wssup.kernel.tcp import ALL_STATES, TcpSocket, TcpState

__all__ = [
    "Family",
    "Queue",
    "answers",
    "request",
    "tcp_answers",
    "tcp_request",
]

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
_LISTEN: Final = 1 << TcpState.LISTEN  # unix sockets use these numbers as well
_INET_DIAG_INFO: Final = 2
_INET_DIAG_SKMEMINFO: Final = 7
_SK_MEMINFO_DROPS: Final = 8
_UDIAG_SHOW_RQLEN: Final = 0x10
_UNIX_DIAG_RQLEN: Final = 4
_INET_REQUEST: Final = struct.Struct("=BBBxI48x")  # family, protocol, extensions, states, id
_UNIX_REQUEST: Final = struct.Struct("=BBHIII8x")  # family, protocol, -, states, inode, show
#: After family, state, timer, retransmissions and the socket's id: expires, rqueue, wqueue, uid,
#: inode.
_INET_ANSWER: Final = struct.Struct("=4x48x4xIIII")
#: Family and state; of the socket's id, in network order: ports, and addresses of either family.
_INET_ID_4: Final = struct.Struct(">BB2xHH4s12x4s12x")
_INET_ID_6: Final = struct.Struct(">BB2xHH16s16s")
#: tcpi_last_data_recv, tcpi_last_ack_recv of struct tcp_info (<linux/tcp.h>); milliseconds.
_HEARD: Final = struct.Struct("=52xII")
#: Bytes of an answer that is longer than any without tcp_info.
_WITH_INFO: Final = _INET_ANSWER.size + _HEARD.size
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
    return _request(body, sequence)


def tcp_request(
    family: Family,
    sequence: int,
    states: Collection[TcpState] = ALL_STATES,
    *,
    heard: bool = False,
) -> bytes:
    """The request for the TCP sockets of a family that are in one of these states.

    :param heard: ask for :attr:`TcpSocket.heard`, too; an answer is three times as long then.
    """
    wanted = sum(1 << state for state in set(states))
    extensions = 1 << (_INET_DIAG_INFO - 1) if heard else 0
    return _request(_INET_REQUEST.pack(family, _IPPROTO_TCP, extensions, wanted), sequence)


def _request(body: bytes, sequence: int) -> bytes:
    length = _NLMSGHDR.size + len(body)
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    return _NLMSGHDR.pack(length, _SOCK_DIAG_BY_FAMILY, flags, sequence, 0) + body


def answers(data: bytes, family: Family, sequence: int) -> tuple[list[Queue], bool]:
    """The listeners in one datagram of the answer, and whether it was the last one.

    :param sequence: the request's; what answers another one is skipped.
    :raises OSError: the kernel answered with an error.
    :raises MessageError: the bytes are no messages.
    """
    return _answers(data, sequence, _unix if family is Family.UNIX else _inet)


def tcp_answers(data: bytes, family: Family, sequence: int) -> tuple[list[TcpSocket], bool]:
    """The TCP sockets in one datagram of the answer; otherwise as :func:`answers`."""
    identity = _INET_ID_4 if family is Family.IPV4 else _INET_ID_6

    def socket(data: bytes, at: int, end: int) -> TcpSocket:
        _, state, local_port, remote_port, local, remote = identity.unpack_from(data, at)
        rqueue, wqueue, uid, inode = _INET_ANSWER.unpack_from(data, at)
        heard = _heard(data, at + _INET_ANSWER.size, end) if end - at > _WITH_INFO else None
        return TcpSocket(
            state, local, local_port, remote, remote_port, inode, uid, rqueue, wqueue, heard
        )

    return _answers(data, sequence, socket)


_T = TypeVar("_T")


def _answers(
    data: bytes, sequence: int, parse: Callable[[bytes, int, int], _T]
) -> tuple[list[_T], bool]:
    """What `parse` makes of each answer: it is given the bytes, and where it begins and ends."""
    found: list[_T] = []
    try:
        for kind, number, at, end in _messages(data):
            if number != sequence:
                continue
            if kind == _SOCK_DIAG_BY_FAMILY:
                found.append(parse(data, at, end))
            elif kind == _NLMSG_DONE:
                return found, True
            elif kind == _NLMSG_ERROR:
                (error,) = _ERRNO.unpack_from(data, at)
                raise OSError(-error, "sock_diag refuses")
    except struct.error as error:
        raise MessageError(f"an answer of sock_diag is cut off: {error}") from error
    return found, False


def _messages(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Type and sequence number of each netlink message, and where its body begins and ends."""
    at, size = 0, len(data)
    while at < size:
        length, kind, _, number, _ = _NLMSGHDR.unpack_from(data, at)
        if length < _NLMSGHDR.size or at + length > size:
            raise MessageError(f"a message of {length} bytes in {size - at}")
        yield kind, number, at + _NLMSGHDR.size, at + length
        at += _aligned(length)


def _inet(data: bytes, at: int, end: int) -> Queue:
    # Of a listener, rqueue is the length of its accept queue and wqueue the bound (tcp_diag.c).
    length, limit, _, inode = _INET_ANSWER.unpack_from(data, at)
    drops = None
    memory = _attributes(data, at + _INET_ANSWER.size, end).get(_INET_DIAG_SKMEMINFO)
    if memory is not None and len(memory) >= 4 * (_SK_MEMINFO_DROPS + 1):
        (drops,) = struct.unpack_from("=I", memory, 4 * _SK_MEMINFO_DROPS)
    return Queue(inode, length, limit, drops)


def _heard(data: bytes, at: int, end: int) -> float | None:
    """Seconds since the last segment of the peer."""
    info = _attributes(data, at, end).get(_INET_DIAG_INFO, b"")
    if len(info) < _HEARD.size:
        return None
    data_ms, segment_ms = _HEARD.unpack_from(info)
    return float(min(data_ms, segment_ms)) / 1000


def _unix(data: bytes, at: int, end: int) -> Queue:
    (inode,) = _UNIX_ANSWER.unpack_from(data, at)
    lengths = _attributes(data, at + _UNIX_ANSWER.size, end).get(_UNIX_DIAG_RQLEN, b"")
    length, limit = _RQLEN.unpack_from(lengths) if lengths else (0, 0)
    return Queue(inode, length, limit, None)


def _attributes(data: bytes, at: int, end: int) -> dict[int, bytes]:
    """The attributes behind an answer, by type."""
    found: dict[int, bytes] = {}
    while at + _NLATTR.size <= end:
        length, kind = _NLATTR.unpack_from(data, at)
        if length < _NLATTR.size or at + length > end:
            raise MessageError(f"an attribute of {length} bytes in {end - at}")
        found[kind] = data[at + _NLATTR.size : at + length]
        at += _aligned(length)
    return found


def _aligned(length: int) -> int:
    """Netlink pads everything to 4 bytes."""
    return length + 3 & ~3
