"""What the machine allows: descriptors and processors."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path
from typing import NamedTuple

from wssup.kernel.cgroups import groups

__all__ = ["Nofile", "available_cpus", "raise_nofile", "somaxconn"]


class Nofile(NamedTuple):
    """RLIMIT_NOFILE (getrlimit(2)): the soft limit as found, and both as they are now."""

    found: int
    soft: int
    hard: int


def raise_nofile() -> Nofile:
    """Raise the soft limit of open files to the hard one; children inherit it.

    The low soft limit of 1024 protects programs that call select(2); nothing here does.
    """
    found, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard
    if hard == resource.RLIM_INFINITY:
        # Not settable as such: the kernel's ceiling for one process is fs.nr_open (proc_sys_fs(5)).
        wanted = int(Path("/proc/sys/fs/nr_open").read_text())
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return Nofile(found, wanted, wanted)


def somaxconn() -> int:
    """What the kernel cuts a listen backlog to (listen(2))."""
    return int(Path("/proc/sys/net/core/somaxconn").read_text())


def available_cpus(proc: Path = Path("/proc")) -> int:
    """The processors this process may use: its affinity mask, and the quota of its control groups,
    rounded up.

    Source: sched_getaffinity(2); Documentation/admin-guide/cgroup-v2.rst, ``cpu.max``; and for
    version 1 Documentation/scheduler/sched-bwc.rst.
    """
    cpus = float(len(os.sched_getaffinity(0)))
    for group, version in groups(None, "cpu", proc):
        cpus = min(cpus, _quota(group, version))
    return max(1, math.ceil(cpus))


def _quota(group: Path, version: int) -> float:
    """The processors that a group may use; infinite where none are said."""
    try:
        if version == 1:
            limit = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        else:
            limit, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if limit in {"max", "-1"} else int(limit) / int(period)
