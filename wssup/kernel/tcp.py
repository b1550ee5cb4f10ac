"""TCP sockets as the kernel tells of them, and the lines of /proc/net/tcp and tcp6 (proc(5)).

Pure. sock_diag(7) is the better source (sockdiag.py): it is faster and knows ages.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

__all__ = ["ALL_STATES", "TcpSocket", "TcpState", "distinct", "from_lines", "shown"]

_WORD: Final = 8
"""Hexadecimal digits of 32 bits."""
_FIELDS: Final = 10


class TcpState(IntEnum):
    """The states of a TCP socket (``<net/tcp_states.h>``)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


ALL_STATES: Final = frozenset(TcpState)


class TcpSocket(NamedTuple):
    """A TCP socket.

    :ivar state: a :class:`TcpState`, or a number that it does not know.
    :ivar local: its address, 4 or 16 bytes in network order; ``remote`` the peer's.
    :ivar inode: 0 if no process has it: it waits in an accept queue, or was closed, and the kernel
        ends it.
    :ivar rqueue: bytes that the process has not read; of a listener: connections that wait.
    :ivar wqueue: bytes that the peer has not acknowledged; of a listener: how many connections may
        wait (0 where /proc is the source).
    :ivar heard: seconds since the last segment of the peer, ``None`` if not asked for or unknown.
        Of a socket in CLOSE_WAIT: it is in this state at least since then.
    """

    state: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    inode: int
    uid: int
    rqueue: int
    wqueue: int
    heard: float | None = None


def shown(address: bytes, port: int) -> str:
    """An address of a socket as text: ``127.0.0.1:80``, ``[::1]:80``; an IPv4 address that was
    mapped into IPv6 as IPv4 (RFC 4291 section 2.5.5.2).
    """
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    text = str(mapped or found)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def from_lines(lines: Iterable[str]) -> list[TcpSocket]:
    """The sockets of /proc/net/tcp or tcp6; lines that are none (the heading) are skipped."""
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) < _FIELDS:
            continue
        try:
            local, local_port = _address(fields[1])
            remote, remote_port = _address(fields[2])
            sent, _, unread = fields[4].partition(":")
            found.append(
                TcpSocket(
                    state=int(fields[3], 16),
                    local=local,
                    local_port=local_port,
                    remote=remote,
                    remote_port=remote_port,
                    inode=int(fields[9]),
                    uid=int(fields[7]),
                    rqueue=int(unread, 16),
                    wqueue=int(sent, 16),
                )
            )
        except ValueError:
            continue
    return found


def distinct(sockets: Iterable[TcpSocket]) -> list[TcpSocket]:
    """Each socket once, as it was seen last. The kernel gives its tables in portions and goes on at
    a position in a list; where others came into that list meanwhile, it gives one a second time.
    """
    return list({_identity(sock): sock for sock in sockets}.values())


def _identity(sock: TcpSocket) -> object:
    # Listeners may share an address, with SO_REUSEPORT; two connections never have the same ends.
    if not sock.remote_port:
        return sock.inode
    return sock.local, sock.local_port, sock.remote, sock.remote_port


def _address(field: str) -> tuple[bytes, int]:
    """``0100007F:1F90``: each 32-bit word of the address as a number of this machine."""
    address, _, port = field.partition(":")
    if len(address) not in (_WORD, 4 * _WORD):
        raise ValueError(field)
    words = (int(address[at : at + _WORD], 16) for at in range(0, len(address), _WORD))
    return b"".join(word.to_bytes(4, sys.byteorder) for word in words), int(port, 16)
