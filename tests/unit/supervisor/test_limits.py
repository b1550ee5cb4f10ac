"""What the machine allows: limits of real processes, and control groups as trees of files."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from tests.harness.fresh import python
from wssup.supervisor import limits

#: The processors of this process: quotas in these tests are below, so that they decide.
CPUS = len(os.sched_getaffinity(0))


def group(root: Path, path: str, **files: str) -> None:
    """A control group with some of its files; an underscore stands for the dot in their names."""
    directory = root / path.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("_", ".", 1)).write_text(text + "\n")


def available(tmp_path: Path, cgroup: str) -> int:
    """What follows from the text of /proc/self/cgroup and the tree made before, which is that of
    version 2, and has the cpu controller of version 1 in a directory.
    """
    proc, top = tmp_path / "proc", tmp_path / "fs"
    (proc / "self").mkdir(parents=True, exist_ok=True)
    (proc / "self/cgroup").write_text(cgroup)
    (proc / "mounts").write_text(
        f"cgroup2 {top} cgroup2 rw 0 0\ncgroup {top}/cpu cgroup rw,cpu,cpuacct 0 0\n"
    )
    return limits.available_cpus(proc)


def rounded(cpus: float) -> int:
    return max(1, math.ceil(min(cpus, CPUS)))


def test_somaxconn_is_the_kernels() -> None:
    """The figure is the one sysctl shows."""
    assert limits.somaxconn() == int(Path("/proc/sys/net/core/somaxconn").read_text())


@pytest.mark.parametrize(("soft", "hard"), [(256, 4096), (4096, 4096)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int) -> None:
    """A low soft limit of open files becomes the hard one; what is told is what getrlimit says."""
    said = python(
        """
        from wssup.supervisor import limits
        soft, hard = int(sys.argv[1]), int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print(json.dumps([limits.raise_nofile(), resource.getrlimit(resource.RLIMIT_NOFILE)]))
        """,
        soft,
        hard,
    )
    told, real = json.loads(said)
    assert told == [soft, hard, hard]
    assert real == [hard, hard]


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", math.inf), ("100000 100000", 1), ("150000 100000", 1.5), ("1000 100000", 0.01)],
)
def test_quota_of_version_2(tmp_path: Path, quota: str, cpus: float) -> None:
    """``cpu.max`` bounds the processors, rounded up, and never below one."""
    group(tmp_path / "fs", "/app", cpu_max=quota)
    assert available(tmp_path, "0::/app\n") == rounded(cpus)


def test_a_quota_above_binds_too(tmp_path: Path) -> None:
    """Of all groups from the process's own up to the root, the smallest quota counts."""
    group(tmp_path / "fs", "/", cpu_max="500000 100000")
    group(tmp_path / "fs", "/system", cpu_max="50000 100000")
    group(tmp_path / "fs", "/system/app", cpu_max="max 100000")
    assert available(tmp_path, "0::/system/app\n") == 1
    group(tmp_path / "fs", "/other", cpu_max="max 100000")
    assert available(tmp_path, "0::/other\n") == rounded(5)


def test_a_sibling_does_not_bind(tmp_path: Path) -> None:
    """The quota of a group that the process is not in is not looked at."""
    group(tmp_path / "fs", "/app", cpu_max="max 100000")
    group(tmp_path / "fs", "/app/inner", cpu_max="1000 100000")
    group(tmp_path / "fs", "/else", cpu_max="1000 100000")
    assert available(tmp_path, "0::/app\n") == CPUS


@pytest.mark.parametrize(
    ("limit", "cpus"), [("-1", math.inf), ("100000", 1), ("150000", 1.5), ("10", 0.0001)]
)
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_quota_of_version_1(tmp_path: Path, controllers: str, limit: str, cpus: float) -> None:
    """``cpu.cfs_quota_us`` over ``cpu.cfs_period_us`` bounds the processors, where the hierarchy of
    the cpu controller says; the other hierarchies do not.
    """
    group(tmp_path / "fs", "/cpu/app", cpu_cfs_quota_us=limit, cpu_cfs_period_us="100000")
    group(tmp_path / "fs", "/cpu/memory", cpu_cfs_quota_us="10", cpu_cfs_period_us="100000")
    lines = f"12:memory:/memory\n4:{controllers}:/app\n1:name=systemd:/memory\n0::/memory\n"
    assert available(tmp_path, lines) == rounded(cpus)


@pytest.mark.parametrize(
    "text", ["", "0::/\n", "0::/not/there\n", "0::/../../outside\n", "9:cpuset:/a:b\n0::/\n"]
)
def test_no_quota_is_the_affinity(tmp_path: Path, text: str) -> None:
    """Where no quota can be seen (none set, no such group, one outside the namespace, a colon in a
    name), the processors of the affinity mask count.
    """
    (tmp_path / "fs").mkdir()
    assert available(tmp_path, text) == CPUS


def test_no_proc_is_the_affinity(tmp_path: Path) -> None:
    """Without /proc/self/cgroup there is no quota."""
    assert limits.available_cpus(tmp_path / "none") == CPUS


def test_the_affinity_counts() -> None:
    """A process that may use one processor has one."""
    said = python(
        """
        from wssup.supervisor import limits
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(limits.available_cpus())
        """
    )
    assert said == "1\n"
