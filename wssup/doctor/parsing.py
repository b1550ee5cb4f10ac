"""Reads the texts of /proc, /sys and control groups. Pure."""

from __future__ import annotations

import re
from typing import Final

from wssup.kernel.cgroups import membership

__all__ = [
    "fields",
    "integers",
    "ports",
    "service",
    "sockstat",
]

_KIB: Final = 1024
#: systemd.unit(5).
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.@\\-]+\.(?:service|scope|slice)")


def fields(text: str) -> dict[str, int]:
    """``MemTotal:  24105 kB`` and ``inactive_file 4096`` as bytes, by name."""
    found = {}
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].removeprefix("-").isdecimal():
            found[words[0]] = int(words[1]) * (_KIB if words[2:3] == ["kB"] else 1)
    return found


def integers(text: str) -> tuple[int, ...] | None:
    """Numbers between spaces; ``None`` if that is something else."""
    try:
        return tuple(int(word) for word in text.split()) or None
    except ValueError:
        return None


def sockstat(text: str) -> dict[str, int]:
    """``TCP: inuse 5 orphan 0`` as ``TCP.inuse`` and so on (/proc/net/sockstat)."""
    found = {}
    for line in text.splitlines():
        group, _, rest = line.partition(":")
        words = rest.split()
        for name, value in zip(words[::2], words[1::2], strict=False):
            if value.isdecimal():
                found[f"{group}.{name}"] = int(value)
    return found


def ports(span: str, reserved: str) -> int | None:
    """How many ports connect(2) may choose from (ip_local_port_range, ip_local_reserved_ports)."""
    bounds = integers(span)
    if bounds is None or len(bounds) != 2:
        return None
    low, high = bounds
    count = max(0, high - low + 1)
    for part in reserved.strip().split(",") if reserved.strip() else ():
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            continue
        begin, end = max(low, int(first)), min(high, int(last or first))
        count -= max(0, end - begin + 1)
    return max(0, count)


def service(text: str) -> str | None:
    """The unit of a process that is a service's, by its control group (/proc/PID/cgroup);
    ``None`` for a session's, a container's, or a name that systemd gives to none.
    """
    member = membership(text)
    for controller in ("name=systemd", ""):
        parts = member.get(controller, "").split("/")
        # Below a unit there may be groups that are its own business.
        units = [part for part in parts if _UNIT.fullmatch(part)]
        if units:
            return units[-1] if units[-1].endswith(".service") else None
    return None
