"""The addresses that a server serves, and which sockets belong to them."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import NamedTuple

from wssup.kernel.tcp import TcpSocket, TcpState, shown
from wssup.kernel.unix import UnixSocket

__all__ = ["Place", "Places", "listened", "named", "served"]

_MAPPED = bytes(10) + b"\xff\xff"
"""What stands before an IPv4 address that was mapped into IPv6 (RFC 4291 section 2.5.5.2)."""


class Place(NamedTuple):
    """An address that is served.

    :ivar text: as people are shown it.
    :ivar host: 4 or 16 bytes; empty: any address of this machine.
    :ivar port: 0 of a unix socket.
    :ivar path: of a unix socket, as /proc/net/unix has it; otherwise empty.
    """

    text: str
    host: bytes
    port: int
    path: str


class Places:
    """All addresses of a server."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.all = tuple(dict.fromkeys(places))
        self._paths = {place.path: place for place in self.all if place.path}
        self._ports: dict[int, list[Place]] = {}
        for place in self.all:
            if place.port:
                self._ports.setdefault(place.port, []).append(place)

    @property
    def unix(self) -> bool:
        """Whether there is a unix socket among them."""
        return bool(self._paths)

    def tcp(self, sock: TcpSocket) -> Place | None:
        """Whose a socket is, by its own end."""
        return self.at(sock.local, sock.local_port)

    def at(self, host: bytes, port: int) -> Place | None:
        """Whose an address is."""
        for place in self._ports.get(port, ()):
            if not place.host or place.host == _plain(host):
                return place
        return None

    def path(self, sock: UnixSocket) -> Place | None:
        """Whose a unix socket is; those of clients have no path."""
        return self._paths.get(sock.path)


def named(text: str) -> Place | None:
    """The address as the status document's ``bind`` has it; ``None`` if it is none."""
    if text.startswith("unix:"):
        return Place(text, b"", 0, text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    try:
        number = int(port)
        packed = ipaddress.ip_address(host.strip("[]").partition("%")[0]).packed
    except ValueError:
        return None
    return Place(text, _host(packed), number, "")


def listened(
    tcp: Iterable[TcpSocket], unix: Iterable[UnixSocket], inodes: Collection[int]
) -> Places:
    """The addresses of those listeners that are among `inodes`."""
    found = [
        Place(shown(sock.local, sock.local_port), _host(sock.local), sock.local_port, "")
        for sock in tcp
        if sock.state == TcpState.LISTEN and sock.inode in inodes
    ]
    found += [
        Place(f"unix:{sock.path}", b"", 0, sock.path)
        for sock in unix
        if sock.state == "listening" and sock.inode in inodes and sock.path
    ]
    return Places(sorted(found))


def served(names: Iterable[str], found: Places) -> Places:
    """The addresses of an instance.

    :param names: as its status document has them. One that is a host's name is in `found` only.
    :param found: what its listeners have.
    """
    known = list(filter(None, map(named, names)))
    there = {place[1:] for place in known}
    return Places([*known, *(place for place in found.all if place[1:] not in there)])


def _host(packed: bytes) -> bytes:
    return _plain(packed) if any(packed) else b""


def _plain(packed: bytes) -> bytes:
    """An IPv4 address as such, also where it is written as an IPv6 one."""
    return packed.removeprefix(_MAPPED)
