"""The control group that limits a process most, of all that it is in (cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wssup.doctor.facts import Group
from wssup.doctor.parsing import fields, membership, mounts, service

__all__ = ["memory_group", "tasks_group", "unit_of"]

#: Version 1 says 2^63 - 4096 for "no limit".
_UNLIMITED: Final = 1 << 60


def memory_group(pid: int | None, *, proc: Path = Path("/proc")) -> Group | None:
    """Of memory: what is in use is without file pages that can be dropped at once."""
    found = []
    for directory, version in _groups(pid, "memory", proc):
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
    for directory, version in _groups(pid, "pids", proc):
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


def _groups(pid: int | None, controller: str, proc: Path) -> Iterator[tuple[Path, int]]:
    """The group and those above it, with the version of the hierarchy."""
    try:
        member = membership((proc / ("self" if pid is None else str(pid)) / "cgroup").read_text())
        mounted = mounts((proc / "mounts").read_text().splitlines())
    except OSError:
        return
    # A path of a container may be one outside of it: then only the top can be seen.
    if controller in member and controller in mounted.controllers:
        yield from _upwards(Path(mounted.controllers[controller]), member[controller], 1)
    if "" in member and mounted.unified is not None:
        yield from _upwards(Path(mounted.unified), member[""], 2)


def _upwards(top: Path, path: str, version: int) -> Iterator[tuple[Path, int]]:
    group = top / path.lstrip("/")
    if ".." in group.parts:
        group = top
    while True:
        yield group, version
        if group == top:
            return
        group = group.parent


def _number(path: Path) -> int | None:
    """``None`` for "max", and for what is not there."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
