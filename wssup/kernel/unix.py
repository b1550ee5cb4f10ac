"""The lines of /proc/net/unix (unix(7), proc(5)). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["UnixSocket", "from_lines"]

_FIELDS: Final = 7
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON
_CONNECTING: Final = 2
_CONNECTED: Final = 3


class UnixSocket(NamedTuple):
    """A unix socket.

    :ivar inode: 0 of a connection that nobody has accepted yet.
    :ivar path: that it is bound to: of an accepted one, its listener's; empty at the client's end.
        An abstract name begins with ``@``.
    :ivar state: ``listening``, ``waiting`` (in an accept queue), ``connected`` or ``other``.
    """

    inode: int
    path: str
    state: str


def from_lines(lines: Iterable[str]) -> list[UnixSocket]:
    """The sockets of /proc/net/unix; lines that are none (the heading) are skipped."""
    found = []
    for line in lines:
        fields = line.split(None, _FIELDS)
        try:
            flags, state, inode = int(fields[3], 16), int(fields[5], 16), int(fields[6])
        except (IndexError, ValueError):
            continue
        path = fields[_FIELDS] if len(fields) > _FIELDS else ""
        found.append(UnixSocket(inode, path, _state(flags, state, inode)))
    return found


def _state(flags: int, state: int, inode: int) -> str:
    if flags & _ACCEPTS:
        return "listening"
    if state == _CONNECTED:
        return "connected"
    return "waiting" if state == _CONNECTING and not inode else "other"
