"""Asks the kernel for its sockets: sockdiag.py over a netlink socket, or tables of /proc/net.

/proc is for where netlink is refused (seccomp, RestrictAddressFamilies), and for processes of
another network namespace, whose sockets sock_diag does not show from here.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from wssup.errors import MessageError
from wssup.kernel import unix
from wssup.kernel.sockdiag import (
    Family,
    Queue,
    answers,
    request,
    tcp_answers,
    tcp_request,
)
from wssup.kernel.tcp import ALL_STATES, TcpSocket, TcpState, distinct, from_lines
from wssup.kernel.unix import UnixSocket

__all__ = ["SockDiag", "TcpTable", "same_network", "tcp_table", "unix_table"]

T = TypeVar("T")

#: <linux/netlink.h>; the socket module lacks it.
_NETLINK_SOCK_DIAG: Final = 4
#: Bytes of a datagram at most: the kernel fills what is offered.
_RECEIVED: Final = 65536
#: Seconds. The answer is there when the request was taken.
_PATIENCE: Final = 1.0


class SockDiag:
    """A netlink socket for questions, opened with the first one.

    Questions raise ``OSError`` where the kernel refuses and ``MessageError`` where it answers
    strangely; the socket is closed then, since what is left of the answer must not be taken for the
    next one's, and the next question opens another.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequences = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def listeners(self, family: Family) -> list[Queue]:
        """The accept queues of all listeners of a family in this network namespace."""
        return self._ask(
            lambda number: request(family, number), lambda data, n: answers(data, family, n)
        )

    def tcp(
        self,
        family: Family,
        states: Collection[TcpState] = ALL_STATES,
        *,
        heard: bool = False,
    ) -> list[TcpSocket]:
        """The TCP sockets of a family in this network namespace that are in one of the states.

        :param heard: with :attr:`TcpSocket.heard`.
        """
        return self._ask(
            lambda number: tcp_request(family, number, states, heard=heard),
            lambda data, n: tcp_answers(data, family, n),
        )

    def close(self) -> None:
        """Let go of the netlink socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(
        self,
        make: Callable[[int], bytes],
        parse: Callable[[bytes, int], tuple[list[T], bool]],
    ) -> list[T]:
        sock = self._socket
        if sock is None:
            sock = self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
            )
            sock.settimeout(_PATIENCE)
        number = next(self._sequences) & 0xFFFFFFFF
        found: list[T] = []
        last = False
        try:
            sock.sendto(make(number), (0, 0))
            while not last:
                part, last = parse(sock.recv(_RECEIVED), number)
                found += part
        except (OSError, MessageError):
            self.close()
            raise
        return found


class TcpTable(NamedTuple):
    """The TCP sockets of a network namespace.

    :ivar heard: whether :attr:`TcpSocket.heard` is known of those in CLOSE_WAIT.
    """

    sockets: list[TcpSocket]
    heard: bool


def tcp_table(pid: int | None = None) -> TcpTable:
    """All TCP sockets of the network namespace of a process (this one), in any state.

    From /proc it takes four times as long.

    :raises OSError: neither netlink nor /proc tells.
    """
    if pid is None or same_network(pid):
        try:
            return TcpTable(distinct(_from_netlink()), heard=True)
        except (OSError, MessageError):
            pass
    directory = Path("/proc", "self" if pid is None else str(pid), "net")
    found = from_lines(_lines(directory / "tcp"))
    with suppress(FileNotFoundError):  # a kernel without IPv6
        found += from_lines(_lines(directory / "tcp6"))
    return TcpTable(distinct(found), heard=False)


def unix_table(pid: int | None = None) -> list[UnixSocket]:
    """All unix sockets of the network namespace of a process (this one).

    :raises OSError: /proc does not tell.
    """
    directory = Path("/proc", "self" if pid is None else str(pid), "net")
    return unix.from_lines(_lines(directory / "unix"))


def same_network(pid: int) -> bool:
    """Whether a process is in this network namespace; yes if this user may not know."""
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        return True


def _from_netlink() -> list[TcpSocket]:
    found: list[TcpSocket] = []
    others = ALL_STATES - {TcpState.CLOSE_WAIT}
    with SockDiag() as kernel:
        for family in (Family.IPV4, Family.IPV6):
            found += kernel.tcp(family, others)
            # Asked last, so that one whose peer closes meanwhile is in both, and not in neither.
            found += kernel.tcp(family, {TcpState.CLOSE_WAIT}, heard=True)
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "surrogateescape").split("\n")[1:]
