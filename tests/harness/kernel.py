"""What the kernel says about sockets: /proc/net/tcp and /proc/PID/fd (proc(5))."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ESTABLISHED = "01"
_LISTEN = "0A"


def established(port: int) -> int:
    """How many server-side connections of a TCP port are established, in accept queues too."""
    # The table is read in pieces: while others connect and close, a line may be seen twice.
    return len({remote for remote, _ in _sockets(port, _ESTABLISHED)})


def listening(port: int) -> set[str]:
    """The sockets that listen on a TCP port, as /proc/PID/fd names them."""
    return {f"socket:[{inode}]" for _, inode in _sockets(port, _LISTEN)}


def holds(pid: int) -> set[str]:
    """The sockets that a process has open, as /proc/PID/fd names them."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # closed meanwhile
    return {name for name in found if name.startswith("socket:")}


def _sockets(port: int, state: str) -> Iterator[tuple[str, str]]:
    """Remote address and inode; the inode of a connection that was not accepted yet is 0."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[2], fields[9]
