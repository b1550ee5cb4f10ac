"""What a socket of another process says of itself: a duplicate is asked (pidfd_getfd(2), Linux
5.6). It is for sockets that are in no table of the kernel: one that was reset still knows its own
address.

The process is not stopped and notices nothing. It needs the right to trace it: root has it, and
the same user where ``kernel.yama.ptrace_scope`` is 0.
"""

from __future__ import annotations

import ctypes
import os
import socket
from typing import Final, NamedTuple

__all__ = ["End", "own_end"]

_PIDFD_GETFD: Final = 438
"""The system call's number, on all architectures that Python runs on but Alpha."""


class End(NamedTuple):
    """A socket's own address: 4 or 16 bytes, and the port; 0 if it never had one."""

    host: bytes
    port: int


def own_end(pid: int, descriptor: int, inode: int) -> End | None:
    """The own address of a TCP socket.

    :param inode: the socket's. ``None`` if the descriptor is another one's by now, if the socket is
        of another kind, or if it may not be asked.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        borrowed = _duplicate(process, descriptor)
    finally:
        os.close(process)
    if borrowed < 0:
        return None
    try:
        if os.fstat(borrowed).st_ino != inode:
            return None
        with socket.socket(fileno=os.dup(borrowed)) as sock:
            if sock.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            host, port = sock.getsockname()[:2]
            return End(socket.inet_pton(sock.family, host.partition("%")[0]), port)
    except OSError:
        return None
    finally:
        os.close(borrowed)


def _duplicate(process: int, descriptor: int) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return int(call(*map(ctypes.c_long, (_PIDFD_GETFD, process, descriptor, 0))))
