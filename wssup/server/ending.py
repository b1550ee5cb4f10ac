"""How connections end: the pieces that decide nothing themselves, and the count of it."""

from __future__ import annotations

import os
import random
import socket
import time
from typing import NamedTuple

from trio_websocket import ConnectionClosed

from wssup import logs
from wssup.scoreboard import ClosedReason, HandshakeFailure, Label, RefusedReason, RowWriter
from wssup.server.connection import Connection
from wssup.server.loops import Loop

_log = logs.get()

__all__ = ["Leave", "count", "discard", "packed", "read", "shut", "wake_all"]


class Leave(NamedTuple):
    """An order to close connections.

    :ivar until: the end of the window, in seconds of ``time.monotonic()``.
    """

    code: int
    reason: str
    verdict: Label
    until: float

    def draw(self, chance: random.Random, now: float) -> tuple[float, int, str, Label]:
        """A moment in what is left of the window, and what to say then."""
        left = max(0.0, self.until - now)
        return now + chance.random() * left, self.code, self.reason, self.verdict


def read(fd: int, buffers: list[bytearray]) -> int:
    """Read once: bytes, 0 when the peer is gone, -1 when there is nothing."""
    try:
        return os.readv(fd, buffers)
    except BlockingIOError:
        return -1
    except OSError:
        return 0


def discard(fd: int, buffers: list[bytearray]) -> bool:
    """Read and throw away; whether the peer is gone."""
    return read(fd, buffers) == 0


def shut(fd: int) -> bool:
    """Send the end of our stream (shutdown(2)); whether the peer is gone."""
    try:
        # The socket object only lends its method: its descriptor is given back.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
        try:
            sock.shutdown(socket.SHUT_WR)
        finally:
            sock.detach()
    except OSError:
        return True
    return False


def packed(family: int, address: object) -> bytes:
    """A peer's address and port in network order, 6 or 18 bytes; empty for a unix socket."""
    if not isinstance(address, tuple) or family not in {socket.AF_INET, socket.AF_INET6}:
        return b""
    host = str(address[0]).partition("%")[0]
    return socket.inet_pton(family, host) + int(address[1]).to_bytes(2, "big")


def wake_all(loop: Loop, connection: Connection, *, over: bool = False) -> None:
    """Tell all who wait for something of a connection that it is being closed.

    :param over: it has ended, which is what those in `aclose` wait for.
    """
    closed = connection.closed
    waiting = [connection.receiver, *(connection.more_receivers or ())]
    waiting += [waiter for waiter, _ in connection.senders or ()]
    waiting += (connection.pings or {}).values()
    connection.receiver = connection.more_receivers = None
    connection.senders = connection.pings = None
    for waiter in waiting:
        if waiter is not None:
            loop.wake_error(waiter, ConnectionClosed(closed))
    if over:
        for waiter in connection.closers or ():
            loop.wake(waiter, None)
        connection.closers = None


def count(row: RowWriter, connection: Connection) -> None:
    """Write a connection's end to the scoreboard: exactly once, under what decided it."""
    verdict = connection.verdict
    match verdict:
        case HandshakeFailure():
            row.handshake_failed(verdict)
        case RefusedReason():
            row.refused(verdict)
        case ClosedReason():
            assert connection.closed is not None
            lifetime = time.monotonic() - connection.opened
            row.closed(verdict, lifetime, connection.closed.code, by_client=connection.by_client)
    assert verdict is not None
    _log.debug("closed", reason=verdict.label)
