"""System calls on the descriptors of connections, which are plain numbers."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import termios

__all__ = ["discard", "local_address", "packed", "read", "shut", "unpacked", "untaken"]


def read(fd: int, buffers: list[bytearray]) -> int:
    """Read once: bytes, 0 when the peer is gone, -1 when there is nothing."""
    try:
        return os.readv(fd, buffers)
    except BlockingIOError:
        return -1
    except OSError:
        return 0


def discard(fd: int, buffers: list[bytearray]) -> bool:
    """Read once and throw away; whether the peer is gone."""
    return read(fd, buffers) == 0


def shut(fd: int) -> bool:
    """Send the end of our stream (shutdown(2)); whether the peer is still there."""
    # The socket object only lends its method: its descriptor is taken back.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    finally:
        sock.detach()
    return True


def untaken(fd: int) -> int:
    """Bytes in the kernel that the peer has not taken yet (tcp(7), unix(7): SIOCOUTQ)."""
    found = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def packed(address: object) -> bytes:
    """A peer's address and port in network order, 6 or 18 bytes; empty for a unix socket.

    :param address: as ``socket.accept()`` gives it: a pair for IPv4, four values for IPv6.
    """
    if not isinstance(address, tuple):
        return b""
    host, port = str(address[0]), int(address[1])
    if len(address) == 2:
        return socket.inet_aton(host) + port.to_bytes(2, "big")
    # The zone of a link-local address ("%eth0") is no part of it.
    host = host.partition("%")[0]
    return socket.inet_pton(socket.AF_INET6, host) + port.to_bytes(2, "big")


def unpacked(peer: bytes) -> tuple[str, int]:
    """Address and port of what `packed` made; not of a unix socket."""
    family = socket.AF_INET if len(peer) == 6 else socket.AF_INET6
    return socket.inet_ntop(family, peer[:-2]), int.from_bytes(peer[-2:], "big")


def local_address(fd: int) -> tuple[str, int] | str:
    """Where a socket is bound to (getsockname(2)); a path for a unix socket."""
    # Whatever it really is: a path is the longest address that there may be, and what getsockname()
    # returns goes by the address itself.
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        name = sock.getsockname()
    finally:
        sock.detach()
    return name if isinstance(name, str) else (name[0], name[1])
