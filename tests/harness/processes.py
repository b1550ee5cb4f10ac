"""Processes as tests see them: through /proc (proc(5))."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphaned descendants become children of this process (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> set[int]:
    """The living and the dead but unreaped children of a process."""
    found = set()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= {int(p) for p in (task / "children").read_text().split()}
    except OSError:
        return found
    return found


def descendants(pid: int | None = None) -> set[int]:
    """Children, their children, and so on.

    Read until it is the same twice: the kernel's list of children is only whole while none of them
    dies (proc(5)), and those of one that just died are between two parents.
    """
    found = _descendants(pid)
    while (again := _descendants(pid)) != found:
        found = again
    return found


def _descendants(pid: int | None) -> set[int]:
    found: set[int] = set()
    waiting = [os.getpid() if pid is None else pid]
    while waiting:
        fresh = children(waiting.pop()) - found
        found |= fresh
        waiting += fresh
    return found


def state(pid: int) -> str:
    """The process's state letter (``R``, ``S``, ``T``, ``Z``…); empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def title(pid: int) -> str:
    """The command line as ps shows it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    return state(pid) not in {"", "Z"}


def pss(pid: int) -> int:
    """Proportional set size in bytes: shared pages count in shares (smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss in smaps_rollup")


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has taken (proc_pid_stat(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end(pids: Iterable[int]) -> list[str]:
    """Kill processes and reap those that are ours; what was still running, by name."""
    # Whose memory is gone, and the title with it, is on its way out already (proc(5), cmdline).
    running = [f"{pid} ({name})" for pid in pids if alive(pid) and (name := title(pid))]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for pid in pids:
        until(lambda pid=pid: not alive(pid), 10, f"process {pid} to die")
        reap(pid)
    return running


def reap(pid: int) -> None:
    """Take a dead child's status, if it is a child of ours."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def until(fact: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a fact about other processes: look again and again, less often as time goes by.

    :raises AssertionError: naming what was waited for.
    """
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not fact():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(pause)
        # Looking costs those time who are waited for.
        pause = min(pause * 1.25, 0.05)
