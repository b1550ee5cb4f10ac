"""Clients that connect at a pace and stay: a few bytes of state each, on one epoll."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

from benchmarks.engine.native import MeasureError
from tests.harness.raw import TEXT, frame, request

__all__ = ["Client", "Crowd"]

#: IP_BIND_ADDRESS_NO_PORT (ip(7)); the socket module lacks it.
_NO_PORT = 24
#: Connections of one source address: the kernel's search for a free port stays short.
_PER_SOURCE = 2000
#: Seconds for everything that is waited for.
_PATIENCE = 120.0
#: Seconds between two steps of the pace.
_STEP = 0.002


@dataclass(slots=True)
class Client:
    """One connection; times in seconds of CLOCK_MONOTONIC.

    :ivar begun: when it connected; ``opened``: when the handshake was done, 0 before.
    :ivar heard: what came since.
    """

    socket: socket.socket
    begun: float
    opened: float = 0.0
    sent: bool = False
    lost: bool = False
    heard: bytes = b""


class Crowd:
    """Clients of one address.

    :param address: ``host:port``, or ``unix:`` and a path.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._epoll.close()

    def open(self, count: int, per_second: float) -> list[Client]:
        """So many more, at that pace, and wait until the handshakes of all are done.

        :raises MeasureError: if one is refused, or not answered.
        """
        fresh: list[Client] = []
        began = time.monotonic()
        while len(fresh) < count:
            due = min(count, int((time.monotonic() - began) * per_second) + 1)
            while len(fresh) < due:
                fresh.append(self._connect())
            self._turn(_STEP)
        while not all(client.opened for client in fresh):
            if any(client.lost for client in fresh):
                raise MeasureError("a connection was refused")
            if time.monotonic() > began + count / per_second + _PATIENCE:
                raise MeasureError("a handshake was not answered")
            self._turn(0.1)
        return fresh

    def forget_lost(self, count: int) -> None:
        """Wait until the server has ended so many, and forget them."""
        deadline = time.monotonic() + _PATIENCE
        while sum(client.lost for client in self._clients.values()) < count:
            if time.monotonic() > deadline:
                raise MeasureError("connections of a killed worker did not end")
            self._turn(0.1)
        for fd in [fd for fd, client in self._clients.items() if client.lost]:
            self._clients.pop(fd).socket.close()

    def who(self) -> Counter[str]:
        """Ask everybody's worker who it is."""
        for client in self._clients.values():
            client.heard = b""
            client.socket.send(frame(TEXT, b"who"))
        deadline = time.monotonic() + _PATIENCE
        while not all(client.heard for client in self._clients.values()):
            if time.monotonic() > deadline:
                raise MeasureError("a question was not answered")
            self._turn(0.1)
        return Counter(client.heard[2:].decode() for client in self._clients.values())

    def close(self) -> None:
        """End all at once, without a trace in TIME-WAIT (socket(7), SO_LINGER)."""
        for client in self._clients.values():
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()
        self._clients.clear()

    def _connect(self) -> Client:
        unix = self._address.startswith("unix:")
        sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        client = Client(sock, time.monotonic())
        self._clients[sock.fileno()] = client
        if unix:
            # It waits for room in the listener's queue, as a client does.
            sock.connect(self._address.removeprefix("unix:"))
            sock.setblocking(False)
        else:
            sock.setblocking(False)
            host, _, port = self._address.rpartition(":")
            sock.setsockopt(socket.IPPROTO_IP, _NO_PORT, 1)
            place = self._made // _PER_SOURCE
            sock.bind((f"127.1.{place // 200 % 200}.{place % 200 + 1}", 0))
            error = sock.connect_ex((host, int(port)))
            if error not in {0, errno.EINPROGRESS}:
                raise MeasureError(f"connect: {errno.errorcode[error]}")
        self._made += 1
        self._epoll.register(sock.fileno(), select.EPOLLOUT)
        return client

    def _turn(self, seconds: float) -> None:
        for fd, bits in self._epoll.poll(seconds, 256):
            client = self._clients[fd]
            if bits & select.EPOLLOUT and not client.sent:
                self._epoll.modify(fd, select.EPOLLIN)
                with contextlib.suppress(OSError):
                    client.socket.send(request())
                    client.sent = True
                    continue
            self._read(fd, client)

    def _read(self, fd: int, client: Client) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = client.socket.recv(4096)
        if not data:
            client.lost = True
            self._epoll.unregister(fd)
        elif client.opened:
            client.heard += data
        elif data.startswith(b"HTTP/1.1 101 "):
            client.opened = time.monotonic()
        else:
            raise MeasureError(f"an answer that is none: {data[:80]!r}")
