"""The control groups of a process (cgroups(7)), of version 1 and 2, wherever they are mounted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Mounts", "groups", "membership", "mounts"]


class Mounts(NamedTuple):
    """Where control groups are mounted.

    :ivar unified: the directory of version 2, if any; ``controllers``: directories of version 1.
    """

    unified: str | None
    controllers: dict[str, str]


def groups(
    pid: int | None, controller: str, proc: Path = Path("/proc")
) -> Iterator[tuple[Path, int]]:
    """The control group of a process (this one) and those above it, as directories that may not be
    there, with the version of the hierarchy: a limit binds at every level.
    """
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


def membership(text: str) -> dict[str, str]:
    """The control groups of a process by controller; version 2 is the empty name
    (/proc/PID/cgroup, cgroups(7)).
    """
    found = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                found[controller] = parts[2]
    return found


def mounts(lines: Iterable[str]) -> Mounts:
    """Control groups among /proc/mounts."""
    unified: str | None = None
    controllers: dict[str, str] = {}
    for line in lines:
        words = line.split()
        if len(words) < 4:
            continue
        if words[2] == "cgroup2":
            unified = unified or words[1]
        elif words[2] == "cgroup":
            for option in words[3].split(","):
                controllers.setdefault(option, words[1])
    return Mounts(unified, controllers)
