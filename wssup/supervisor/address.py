"""One address: its listening sockets, one per slot, and what the kernel is asked to do with it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import stat
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from wssup.config.addresses import TcpAddress, UnixAddress, parse_bind
from wssup.errors import ListenError
from wssup.kernel.listeners import describe_listener
from wssup.supervisor.bpf import Instruction, program, source_program
from wssup.supervisor.steering import folded

__all__ = ["Address", "effective"]

#: <asm-generic/socket.h>; the socket module lacks them.
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_SO_ATTACH_REUSEPORT_CBPF = 51
#: Where it stands in struct tcp_info (<linux/tcp.h>).
_UNACKED = 24
#: Drops segments that open a connection (SYN without ACK, in byte 13 of the TCP header) and passes
#: all others.
_NO_NEW = (
    Instruction(0x30, 0, 0, 13),
    Instruction(0x54, 0, 0, 0x12),
    Instruction(0x15, 0, 1, 0x02),
    Instruction(0x06, 0, 0, 0),
    Instruction(0x06, 0, 0, 0xFFFFFFFF),
)
#: A peer that vanished is noticed by keepalive after 60 s + 4 × 15 s, and as soon by unacknowledged
#: data (tcp(7)).
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000),
)


def _attach(sock: socket.socket, option: int, code: Sequence[Instruction]) -> None:
    """Attach a classic BPF program (``struct sock_fprog``, socket(7))."""
    filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in code))
    sock.setsockopt(
        socket.SOL_SOCKET, option, struct.pack("@HP", len(code), ctypes.addressof(filters))
    )


def _queued(sock: socket.socket) -> int:
    """The length of a listener's accept queue: of one that listens, TCP_INFO tells it as
    ``tcpi_unacked`` (net/ipv4/tcp.c, tcp_get_info).
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
    return int.from_bytes(info[_UNACKED:], sys.byteorder)


def _resolved(text: str, where: TcpAddress) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """What to bind for an address."""
    try:
        found = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(
            f"bind address {text}: {where.host!r} cannot be resolved ({error.strerror})",
            "write an IP address, or [::] for all",
        ) from None
    # A name may stand for several addresses; one bind is one address.
    family, _, _, _, target = min(found, key=lambda f: f[0] != socket.AF_INET)
    return family, target


def effective(text: str) -> str:
    """The address that a bind means, its name resolved, as a socket of it tells.

    :raises ListenError: if it cannot be resolved.
    """
    where = parse_bind(text)
    if isinstance(where, UnixAddress):
        return str(where)
    _, target = _resolved(text, where)
    return str(TcpAddress(target[0], target[1]))


class Address:
    """One bind address and its listeners.

    :ivar text: as configured; what the address is known by.
    :ivar shared: one listener serves all slots (unix sockets have no SO_REUSEPORT groups).
    :ivar activated: its listeners are a socket unit's, and are as many as they are: all slots share
        them.
    :ivar kept: how many of its listeners the service manager's fd store has.
    :ivar retirement: its linger, if a reload removed it; it is served until that is over.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.where = parse_bind(text)
        self.shared = isinstance(self.where, UnixAddress)
        self.retirement: trio.CancelScope | None = None
        self.listening = 0
        self.activated = False
        self.kept = 0
        self._sockets: list[socket.socket] = []
        self._inode: tuple[int, int] | None = None
        self._family = socket.AF_UNIX
        self._target: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """The effective address: with the port the kernel chose for port 0."""
        if not self._sockets or isinstance(self.where, UnixAddress):
            return self.text
        return str(TcpAddress(self.where.host, self._sockets[0].getsockname()[1]))

    def bind(self, slots: int, *, mode: int, v6_alone: bool) -> None:
        """Make and bind the first ``slots`` sockets, without listening yet.

        :param mode: permissions of a unix socket's file.
        :param v6_alone: an IPv4 address of the same port is bound too, so ``[::]`` must not include
            it.
        :raises ListenError: naming the address, the reason, and who holds it if that can be seen.
        """
        if isinstance(self.where, UnixAddress):
            self._bind_unix(self.where.path, mode)
            return
        self._resolve(self.where)
        for _ in range(slots):
            self._bind_tcp(v6_alone=v6_alone)

    def take(self, descriptors: Sequence[int], backlog: int, *, activated: bool) -> None:
        """Own listeners that listen already: those of an earlier master of this service, in slot
        order, or those of a socket unit.

        :raises ListenError: if the address cannot be resolved any more.
        """
        self.activated = activated
        for descriptor in descriptors:
            sock = socket.socket(fileno=descriptor)
            self._sockets.append(sock)
            sock.setblocking(False)
            if isinstance(self.where, TcpAddress):
                self._configure(sock)
            with contextlib.suppress(OSError):
                # An earlier master may have been about to close it.
                sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            sock.listen(backlog)
        self.listening = len(self._sockets)
        self.kept = 0 if activated else self.listening
        if isinstance(self.where, TcpAddress):
            self._resolve(self.where)
            self.shared = activated and len(self._sockets) == 1
            if self.shared:
                # Alone in its group it has the queue of all, which workers know it by.
                self._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        elif not activated:
            self._note_file(self.where.path)

    @property
    def held(self) -> bool:
        """Whether the listeners stay open when the master closes its own."""
        return self.activated or 0 < self.kept == self.listening

    def extend(self, slots: int, backlog: int) -> None:
        """Have listeners for ``slots`` slots, listening.

        :raises ListenError: as :meth:`bind`; others can bind what does not listen yet.
        """
        while not self.shared and not self.activated and len(self._sockets) < slots:
            self._bind_tcp(v6_alone=bool(self._v6_only()))
        # There may be more that an extension has left which then failed.
        for sock in self._sockets[self.listening : slots]:
            try:
                sock.listen(backlog)
            except OSError as error:
                raise self._refused(error) from error
            self.listening += 1

    def fileno(self, slot: int) -> int:
        """The listener of a slot."""
        return self._sockets[slot % len(self._sockets) if self._divided else slot].fileno()

    @property
    def _divided(self) -> bool:
        """Whether slots share listeners."""
        return self.shared or self.activated

    def steer(self, shares: Sequence[int], *, by_source: bool = False) -> None:
        """Give new connections to slots in proportion to ``shares``, or by the client's address to
        one of those that have a share.

        :raises OSError: if the kernel has no SO_ATTACH_REUSEPORT_CBPF (before 4.5).
        """
        if self.shared:
            return
        mine = folded(shares, self.listening) if self.activated else shares[: self.listening]
        code = source_program(mine) if by_source else program(mine)
        _attach(self._sockets[0], _SO_ATTACH_REUSEPORT_CBPF, code)

    def queued(self) -> list[int]:
        """How many connections wait to be accepted from each slot's listener; empty where slots
        share listeners.
        """
        if self._divided:
            return []
        return [_queued(sock) for sock in self._sockets[: self.listening]]

    def refuse_new(self) -> None:
        """Let no further connection begin; those in flight can still be accepted. The sockets of a
        socket unit are not ours to close.
        """
        if self.activated:
            return
        self._remove_file()
        for sock in self._sockets:
            if not self.shared:
                # Where a sandbox refuses the filter, whoever comes in the last moment is reset.
                with contextlib.suppress(OSError):
                    _attach(sock, _SO_ATTACH_FILTER, _NO_NEW)

    def close(self) -> None:
        """Close the master's copies, and remove a unix socket's file if it is still ours and nobody
        holds the socket.
        """
        for sock in self._sockets:
            sock.close()
        if not self.held:
            self._remove_file()

    def descriptors(self) -> list[int]:
        """Those of all listeners, in slot order."""
        return [sock.fileno() for sock in self._sockets[: self.listening]]

    def _remove_file(self) -> None:
        if isinstance(self.where, UnixAddress) and self._inode is not None:
            with contextlib.suppress(FileNotFoundError):
                found = Path(self.where.path).lstat()
                if (found.st_dev, found.st_ino) == self._inode:
                    Path(self.where.path).unlink()
            self._inode = None

    def _resolve(self, where: TcpAddress) -> None:
        self._family, self._target = _resolved(self.text, where)

    def _v6_only(self) -> int:
        if self._family != socket.AF_INET6:
            return 0
        return self._sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)

    def _bind_tcp(self, *, v6_alone: bool) -> None:
        first = not self._sockets
        target = self._target
        if not first:
            target = (target[0], self._sockets[0].getsockname()[1], *target[2:])
        try:
            sock = socket.socket(self._family, socket.SOCK_STREAM)
        except OSError as error:
            raise ListenError(f"bind address {self.text}: {error.strerror}") from None
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._configure(sock)
            if self._family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6_alone))
            if not first:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # The first bind is exclusive: with SO_REUSEPORT it would silently share the port with a
            # second instance, or an orphan, of the same user.
            sock.bind(target)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError as error:
            sock.close()
            raise self._refused(error) from error
        self._sockets.append(sock)

    def _configure(self, sock: socket.socket) -> None:
        """What connections inherit."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)

    def _bind_unix(self, path: str, mode: int) -> None:
        try:
            self._clear_the_way(path)
        except FileNotFoundError:
            pass  # the usual case
        except OSError as error:
            raise self._refused(error) from error
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # The file appears with the permissions of the umask; nobody can connect before
            # listen().
            sock.bind(path)
            Path(path).chmod(mode)
        except OSError as error:
            sock.close()
            raise self._refused(error) from error
        self._note_file(path)
        self._sockets.append(sock)

    def _note_file(self, path: str) -> None:
        found = Path(path).lstat()
        self._inode = (found.st_dev, found.st_ino)

    def _clear_the_way(self, path: str) -> None:
        """Remove the socket file of an instance that is dead, and of no other."""
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise ListenError(
                f"bind address {self.text}: something that is no socket is there",
                "remove it, or name another path",
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
                return
            except BlockingIOError:
                pass  # its queue is full: somebody listens all the more
        raise ListenError(
            f"bind address {self.text} is in use: somebody listens there",
            "end that process, or name another path",
        )

    def _refused(self, error: OSError) -> ListenError:
        remedy = ""
        if error.errno == errno.EADDRINUSE and isinstance(self.where, TcpAddress):
            holder = describe_listener(self.where.port)
            return ListenError(
                f"bind address {self.text} is in use" + (f" by {holder}" if holder else ""),
                "end that process, or bind another port",
            )
        if error.errno == errno.EACCES:
            remedy = (
                "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; "
                "a unix socket needs a directory that can be written to"
            )
        elif error.errno == errno.EADDRNOTAVAIL:
            remedy = "this machine has no such address; see 'ip address'"
        return ListenError(f"bind address {self.text}: {error.strerror}", remedy)
