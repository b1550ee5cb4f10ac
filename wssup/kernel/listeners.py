"""Who listens on TCP ports."""

from __future__ import annotations

import os
from contextlib import suppress

from wssup.errors import MessageError
from wssup.kernel import procfs
from wssup.kernel.sockdiag import Family
from wssup.kernel.sockets import SockDiag, tcp_table
from wssup.kernel.tcp import TcpSocket, TcpState, distinct

__all__ = ["describe_listener", "listening"]

#: Characters of a command line that an error message has room for.
_LONGEST = 80


def listening() -> list[TcpSocket]:
    """All TCP listeners of this network namespace; none where neither netlink nor /proc tells.
    Asked for these alone, the kernel does not walk a million connections.
    """
    alone = {TcpState.LISTEN}
    try:
        with SockDiag() as kernel:
            found = [*kernel.tcp(Family.IPV4, alone), *kernel.tcp(Family.IPV6, alone)]
            return distinct(found)
    except (OSError, MessageError):
        pass
    try:
        return [sock for sock in tcp_table().sockets if sock.state == TcpState.LISTEN]
    except OSError:
        return []


def describe_listener(port: int) -> str:
    """Who listens on a TCP port: ``pid 4711 (nginx)``; empty if that cannot be seen."""
    found = [sock for sock in listening() if sock.local_port == port]
    owners = procfs.owners(sock.inode for sock in found)
    for pid in (pid for pids in owners.values() for pid in pids):
        with suppress(OSError):  # it ended
            return f"pid {pid} ({(procfs.command_line(pid) or '')[:_LONGEST]})"
    if found and os.geteuid():
        return f"a process of another user ({len(found)} listening sockets)"
    return ""
