"""Many clients at once that connect, ask for a WebSocket, and stay whatever becomes of them."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Storm", "storm"]

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: storm\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_SWITCHED = b"HTTP/1.1 101 "


class Storm:
    """Clients that were started.

    :ivar served: those that have a WebSocket, and were not cut off since they were last looked at.
    """

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._poll = select.epoll()
        self._clients: dict[int, socket.socket] = {}
        self._unsent: set[int] = set()
        self._answers: dict[int, bytes] = {}
        self.served: set[int] = set()

    def add(self, count: int) -> None:
        """So many more clients begin to connect."""
        for _ in range(count):
            client = socket.socket()
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(self._where)
            number = client.fileno()
            self._clients[number] = client
            self._unsent.add(number)
            self._answers[number] = b""
            self._poll.register(number, select.EPOLLIN | select.EPOLLOUT)

    def watch(self, seconds: float) -> None:
        """Do what is to be done on the clients for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for number, _ in self._poll.poll(left, 512):
                self._turn(number)

    def until_served(self, count: int, seconds: float = 60) -> None:
        """Wait until so many have a WebSocket."""
        deadline = time.monotonic() + seconds
        while len(self.served) < count:
            assert time.monotonic() < deadline, f"{len(self.served)} of {count} are served"
            self.watch(0.05)

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients.values():
            client.close()
        self._poll.close()

    def _turn(self, number: int) -> None:
        client = self._clients[number]
        try:
            if number in self._unsent:
                client.send(_HANDSHAKE)
                self._unsent.discard(number)
                self._poll.modify(number, select.EPOLLIN)
                return
            data = client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(number)
            self.served.discard(number)
            return
        self._answers[number] = (self._answers[number] + data)[: len(_SWITCHED)]
        if self._answers[number] == _SWITCHED:
            self.served.add(number)


@contextmanager
def storm(address: str) -> Iterator[Storm]:
    """Clients of ``host:port``; closed at the end."""
    host, _, port = address.rpartition(":")
    clients = Storm(host, int(port))
    try:
        yield clients
    finally:
        clients.close()
