"""The control group that limits a process most, of all that it is in (cgroups(7))."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from wssup.doctor.facts import Group
from wssup.doctor.parsing import fields, service
from wssup.kernel.cgroups import groups

__all__ = ["memory_group", "tasks_group", "unit_of"]

#: Version 1 says 2^63 - 4096 for "no limit".
_UNLIMITED: Final = 1 << 60


def memory_group(pid: int | None, *, proc: Path = Path("/proc")) -> Group | None:
    """Of memory: what is in use is without file pages that can be dropped at once."""
    found = []
    for directory, version in groups(pid, "memory", proc):
        v1 = version == 1
        limit = _number(directory / ("memory.limit_in_bytes" if v1 else "memory.max"))
        used = _number(directory / ("memory.usage_in_bytes" if v1 else "memory.current"))
        if limit is None or used is None or limit >= _UNLIMITED:
            continue
        try:
            stat = fields((directory / "memory.stat").read_text())
        except OSError:
            stat = {}
        used -= stat.get("total_inactive_file" if v1 else "inactive_file", 0)
        found.append(Group(str(directory), version, limit, max(0, used)))
    return min(found, key=lambda group: group.room, default=None)


def tasks_group(pid: int | None, *, proc: Path = Path("/proc")) -> Group | None:
    """Of processes and threads."""
    found = []
    for directory, version in groups(pid, "pids", proc):
        limit, used = _number(directory / "pids.max"), _number(directory / "pids.current")
        if limit is not None and used is not None:
            found.append(Group(str(directory), version, limit, used))
    return min(found, key=lambda group: group.room, default=None)


def unit_of(pid: int, *, proc: Path = Path("/proc")) -> str | None:
    """The unit of the service that a process is of, if it is one's."""
    try:
        return service((proc / str(pid) / "cgroup").read_text("utf-8", "replace"))
    except OSError:
        return None


def _number(path: Path) -> int | None:
    """``None`` for "max", and for what is not there."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
