"""What the figures were measured on, and where each process runs."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.harness import processes

ROOT = Path(__file__).resolve().parents[2]


def prepared() -> int:
    """Make this process ready to measure; how many descriptors it, and what it starts, may have.

    Ended from outside, every process started here is ended too: by the blocks that started them.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.become_subreaper()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def processors() -> tuple[int, int]:
    """The processor that servers run on, and the one of the load: the same if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1 % len(usable)]


@contextmanager
def pinned(processor: int) -> Iterator[None]:
    """What is started meanwhile runs on this processor alone, its descendants too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


#: Where the scheduler's group of a process's session is read and written; and how nice it becomes.
_GROUP, _FAVOURED = "/proc/{}/autogroup", "-20"


@contextmanager
def favoured() -> Iterator[str]:
    """Let what is measured have the processors before the machine's own services, until the end.

    The scheduler shares a processor among sessions first, and nice counts within one only
    (sched(7), "The autogroup feature"). A service outside of all sessions that runs for tens of
    milliseconds at nice -10, once a second, is otherwise the p99 latency of whoever had to wait.

    It takes privileges, and is the same for all servers.

    :yields: a line for the tables: what it came to.
    """
    own = Path(_GROUP.format("self"))
    before = own.read_text().split()[-1] if own.exists() else ""
    given = favour()
    try:
        yield (
            f"- sessions of servers and clients at nice {_FAVOURED} among those of the machine"
            if given
            else "- servers and clients wait for processors like everything on the machine"
        )
    finally:
        if given:
            own.write_text(before)


def favour() -> bool:
    """The same for processes started since, some of which have sessions of their own.

    :returns: whether it could be done, or needed not: who has ended meanwhile waits for nothing.
    """
    for pid in (os.getpid(), *processes.descendants()):
        try:
            Path(_GROUP.format(pid)).write_text(_FAVOURED)
        except OSError:
            if processes.alive(pid):
                return False
    return True


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process so far, user and kernel mode, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Company:
    """How busy other processes keep this machine, from its making on: then figures vary."""

    def __init__(self) -> None:
        self._before = self._taken()

    @staticmethod
    def _taken() -> tuple[float, float]:
        """Seconds of all processors since boot, and of them those that others used (proc(5))."""
        names = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
        user, nice, system, idle, waiting, irq, soft_irq, steal = map(int, names)
        used = (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
        unused = (idle + waiting) / os.sysconf("SC_CLK_TCK")
        own = sum(
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        return used + unused, used - own

    def share(self) -> float:
        """The share of all processors that went to others; own processes must have ended."""
        (total, others), (total_before, others_before) = self._taken(), self._before
        return max(0.0, (others - others_before) / (total - total_before))


def anonymous(pid: int) -> int:
    """Bytes of a process's memory that no file backs, shared pages in shares (proc(5)):
    unlike all of its PSS it does not change when another process maps the same libraries.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) * 1024


def quiet(pid: int) -> None:
    """Wait, for seconds at most, until a process has nothing to do: it must not clean up after
    one measurement while the next one of another server runs.
    """
    deadline = time.monotonic() + 5
    before, now = -1.0, cpu_seconds(pid)
    while now - before > 0.01 and time.monotonic() < deadline:
        time.sleep(0.1)
        before, now = now, cpu_seconds(pid)


def described(peers: dict[str, str], where: str = "") -> list[str]:
    """Markdown lines: commit, machine, and versions.

    :param where: on which processors what runs; by default the server on one, the load on another.
    """
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    server, load = processors()
    where = where or f"the server on number {server}, the load on number {load}"
    others = ", ".join(f"{name} {number}" for name, number in sorted(peers.items()))
    return [
        f"- commit {commit or 'unknown'}; wssup {version('wssup')}, trio {version('trio')}",
        f"- {model}, {len(os.sched_getaffinity(0))} processors: {where}",
        f"- Linux {platform.release()}, Python {platform.python_version()}",
        f"- peers: {others or 'none'}",
    ]
