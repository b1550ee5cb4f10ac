"""Measures how fast this machine accepts connections, over loopback.

This process accepts, another one connects. Each connection is reset at once, so
that none lingers and no port is used up.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time

from wssup.doctor.collect import memory_total
from wssup.doctor.facts import Hardware

__all__ = ["SECONDS", "measure"]

SECONDS = 2.0
"""How long is measured."""

#: Seconds until the other process must have begun.
_PATIENCE = 10.0
_BACKLOG = 512


def measure(cores: int, seconds: float) -> Hardware | None:
    """The machine's speed; ``None`` where nothing can be measured (no loopback)."""
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
            rate, took = _rate(listener, seconds)
    except OSError:
        return None
    return Hardware(
        cores=cores, memory=memory_total(), accepts_per_second=rate, seconds=round(took, 3)
    )


def _rate(listener: socket.socket, seconds: float) -> tuple[float, float]:
    port = listener.getsockname()[1]
    # -I: neither the current directory nor the environment decides what is imported.
    command = [sys.executable, "-I", "-S", "-c", _CONNECTOR, str(port), str(seconds + _PATIENCE)]
    connector = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own code
    try:
        listener.setblocking(False)
        if not select.select([listener], [], [], _PATIENCE)[0]:
            return 0.0, 0.0
        return _count(listener, seconds)
    finally:
        connector.kill()
        connector.wait()


def _count(listener: socket.socket, seconds: float) -> tuple[float, float]:
    """Accept for so long; connections per second, and how long it was."""
    count, began = 0, time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            select.select([listener], [], [], 0.1)
            continue
        except OSError:
            continue
        count += 1
        client.close()
    return count / (now - began), now - began


_CONNECTOR = """\
import socket, struct, sys, time
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    client = socket.socket()
    try:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
        client.connect(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        pass
    client.close()
"""
