"""A port for what is started with a number and cannot be told 0."""

from __future__ import annotations

import random
import socket
from pathlib import Path

__all__ = ["free_port"]

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody has, on any address.

    It lies below those that the kernel gives to clients (ip(7), ip_local_port_range): with
    thousands of them at once, one of those would often be taken again before it is used.
    """
    lowest = int(_RANGE.read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(lowest // 2, lowest)
        try:
            for family, host in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
                with socket.socket(family) as probe:
                    probe.bind((host, port))
        except OSError:
            continue
        return port
