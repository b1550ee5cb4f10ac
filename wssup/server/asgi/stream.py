"""The descriptor of an HTTP connection, on trio: bounded reads and writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import trio
from trio.lowlevel import wait_readable, wait_writable

__all__ = ["Stream"]

_READ: Final = 64 << 10


class Stream:
    """A socket that does not block, as long as it is this task's.

    :ivar fd: its descriptor; -1 once it was given away.
    """

    __slots__ = ("_send_timeout", "fd")

    def __init__(self, fd: int, send_timeout: float) -> None:
        self.fd = fd
        self._send_timeout = send_timeout

    def release(self) -> int:
        """Give the descriptor away."""
        fd, self.fd = self.fd, -1
        return fd

    def read_some(self) -> bytes | None:
        """What is there: empty at the end, or when it broke; ``None``: nothing yet."""
        try:
            return os.read(self.fd, _READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    async def wait_readable(self) -> None:
        """Wait until there is something, or the end."""
        await wait_readable(self.fd)

    async def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Write all of it; whether the client took it, each bit of it in time."""
        left = [memoryview(part) for part in parts if part]
        while left:
            try:
                written = os.writev(self.fd, left)
            except BlockingIOError:
                with trio.move_on_after(self._send_timeout) as scope:
                    await wait_writable(self.fd)
                if scope.cancelled_caught:
                    return False
                continue
            except OSError:
                return False
            while written and left:
                if written < len(left[0]):
                    left[0] = left[0][written:]
                    break
                written -= len(left.pop(0))
        return True
