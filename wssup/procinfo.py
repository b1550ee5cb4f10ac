"""What /proc tells about other processes (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["describe_listener", "listener_inodes"]

_TCP_LISTEN = "0A"


def describe_listener(port: int) -> str:
    """Who listens on a TCP port: ``pid 4711 (nginx)``; empty if that cannot be seen."""
    inodes = set(listener_inodes(port))
    if not inodes:
        return ""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                if str(descriptor.readlink()) in inodes:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").strip()
                    shown = (
                        command.decode("utf-8", "replace") or (entry / "comm").read_text().strip()
                    )
                    return f"pid {entry.name} ({shown[:80]})"
        except OSError:
            continue  # it ended, or it is another user's
    return f"a process of another user ({len(inodes)} listening sockets)" if os.geteuid() else ""


def listener_inodes(port: int) -> Iterator[str]:
    """The sockets that listen on a TCP port, written as /proc/PID/fd shows them."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _TCP_LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"
