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


def descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of a process and what they are, as /proc/PID/fd names them."""
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(descriptor.name)] = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def unix_sockets() -> dict[str, tuple[str, str]]:
    """All unix sockets: their type (``stream``, ``seqpacket``…) and path, which may be empty."""
    types = {"0001": "stream", "0002": "dgram", "0005": "seqpacket"}
    found = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        path = fields[7] if len(fields) > 7 else ""
        found[f"socket:[{fields[6]}]"] = (types.get(fields[4], "closed"), path)
    return found
