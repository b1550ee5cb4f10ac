"""Who listens on the instance's addresses besides the instance."""

from __future__ import annotations

import ipaddress
import pwd
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from wssup.config.addresses import TcpAddress, UnixAddress, parse_bind
from wssup.doctor.facts import Holder
from wssup.doctor.served import ListenQueue
from wssup.errors import MessageError
from wssup.kernel import procfs
from wssup.kernel.listeners import listening
from wssup.kernel.sockdiag import Family
from wssup.kernel.sockets import SockDiag, unix_table
from wssup.kernel.tcp import TcpSocket, shown

__all__ = ["conflicts", "holders", "own_sockets", "queues"]

#: The process id of the service manager.
_SYSTEMD: Final = 1


def holders(binds: Iterable[str], own: frozenset[int] | None) -> list[Holder]:
    """Processes that listen where `binds` say, besides those that have the sockets `own`.

    :param own: inodes; ``None`` if it cannot be known which are the instance's: then nobody is
        named.
    """
    addresses = _addresses(binds)
    if not addresses or own is None:
        return []
    others = [sock for sock in listening() if sock.inode not in own]
    pairs = [
        (address, sock) for address in addresses for sock in others if conflicts(address, sock)
    ]
    owners = procfs.owners(sock.inode for _, sock in pairs)
    found: dict[tuple[str, str], Holder] = {}
    for address, sock in pairs:
        who, unit = _who(sock, owners.get(sock.inode, ()))
        found[str(address), who] = Holder(str(address), who, unit)
    return list(found.values())


def queues(binds: Iterable[str], own: frozenset[int] | None) -> list[ListenQueue]:
    """The accept queues at `binds` among the sockets `own`; empty if these are not known."""
    binds = list(binds)
    addresses = _addresses(binds)
    if own is None:
        return []
    found = [
        ListenQueue(shown(sock.local, sock.local_port), sock.rqueue, sock.wqueue)
        for sock in (listening() if addresses else ())
        if sock.inode in own and any(conflicts(address, sock) for address in addresses)
    ]
    parsed = map(parse_bind, binds)
    paths = {where.path for where in parsed if isinstance(where, UnixAddress)}
    return [*found, *(_unix_queues(paths, own) if paths else ())]


def _unix_queues(paths: set[str], own: frozenset[int]) -> list[ListenQueue]:
    """Those of unix sockets: /proc has their paths, and only netlink their lengths."""
    try:
        names = {sock.inode: sock.path for sock in unix_table() if sock.path in paths}
        with SockDiag() as kernel:
            found = kernel.listeners(Family.UNIX)
    except (OSError, MessageError):
        return []
    return [
        ListenQueue(f"unix:{names[queue.inode]}", queue.length, queue.limit)
        for queue in found
        if queue.inode in names and queue.inode in own
    ]


def _addresses(binds: Iterable[str]) -> list[TcpAddress]:
    parsed = map(parse_bind, binds)
    return [where for where in parsed if isinstance(where, TcpAddress) and where.port]


def conflicts(address: TcpAddress, sock: TcpSocket) -> bool:
    """Whether a listening socket is in the way of an address. A name that is no address is taken
    for every one.
    """
    if address.port != sock.local_port:
        return False
    theirs = ipaddress.ip_address(sock.local)
    if isinstance(theirs, ipaddress.IPv6Address) and theirs.ipv4_mapped is not None:
        theirs = theirs.ipv4_mapped
    try:
        ours = ipaddress.ip_address(address.host.partition("%")[0])
    except ValueError:
        return True
    if theirs.is_unspecified or ours.is_unspecified:
        # [::] may or may not include IPv4: if it does not, it is not in the way.
        return ours.version == theirs.version or 6 in (
            ours.version if ours.is_unspecified else 4,
            theirs.version if theirs.is_unspecified else 4,
        )
    return ours == theirs


def own_sockets(pids: Iterable[int]) -> frozenset[int] | None:
    """The sockets that processes have, by inode; ``None`` if this user may not know."""
    found: set[int] = set()
    for pid in pids:
        try:
            table = procfs.descriptors(pid)
        except OSError:
            continue
        if table is None:
            return None
        found.update(entry.inode for entry in table.values() if entry.kind == "socket")
    return frozenset(found)


def _who(sock: TcpSocket, pids: Iterable[int]) -> tuple[str, bool]:
    """The process that has a socket, or at least its user; and whether that is systemd alone, which
    keeps it for a service that is not running.

    :param pids: of those that have it, as far as they can be seen.
    """
    first = None
    for pid in pids:
        with suppress(OSError):  # it ended
            who = f"pid {pid} ({procfs.command_line(pid)})"
            if pid != _SYSTEMD or not _is_systemd(pid):
                return who, False
            first = who
    if first is not None:
        return first, True
    try:
        return f"a process of user {pwd.getpwuid(sock.uid).pw_name}", False
    except KeyError:
        return f"a process of user {sock.uid}", False


def _is_systemd(pid: int) -> bool:
    """In a container the first process is any."""
    status = procfs.status(pid)
    return status is not None and status.name == "systemd"
