"""The only place that spawns, signals and reaps processes.

One waitid(2) loop takes every status there is and hands it out by process id. Nobody else may wait:
a second waiter would find ECHILD and, like :mod:`subprocess`, take that for exit status 0. The
master is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)), so workers whose intermediate parent is
gone become its children, and so does whatever they leave behind; as PID 1 of a container it is that
anyway.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import trio

import wssup
from wssup.config.settings import SETTINGS

__all__ = ["Exit", "Processes", "become_subreaper", "program"]

_PR_SET_CHILD_SUBREAPER = 36
#: Seconds for which the status of an unknown process is kept: a worker can die before its pid is
#: reported. Not longer, or the number could be another process's by then.
_UNCLAIMED_FOR = 30.0
#: Descriptors are moved above the numbers a child is given, so that laying them out overwrites
#: none.
_ABOVE = 100
#: Variables that may hold a password.
_OURS = frozenset({SETTINGS["topics.bus"].environment})
#: Seconds between SIGABRT, which has a process dump its stacks, and SIGKILL.
_DUMP_GRACE = 1.0


class Exit(NamedTuple):
    """How a process ended: its exit status, or the signal that killed it."""

    status: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                return f"killed by {signal.Signals(self.signal).name}"
            except ValueError:  # most real-time signals have no name (signal(7))
                return f"killed by signal {self.signal}"
        return f"exited with status {self.status}"

    @property
    def clean(self) -> bool:
        """Whether it ended of its own will, with status 0."""
        return self.status == 0


def program(boot: str, *arguments: str) -> list[str]:
    """The command line of a process of ours: a Python like this one, with this wssup.

    :param boot: what it runs; ``sys.argv[1]`` is the folder that wssup is in.
    :param arguments: further ones.
    """
    return [sys.executable, "-P", "-c", boot, str(Path(wssup.__file__).parents[1]), *arguments]


def become_subreaper() -> None:
    """Make orphaned descendants our children.

    :raises OSError: if prctl(2) refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _shared_environ() -> dict[str, str]:
    """What the application's processes may see of our environment; whoever needs a setting is sent
    it.
    """
    return {name: value for name, value in os.environ.items() if name not in _OURS}


def _inheritable() -> list[int]:
    """The descriptors that exec does not close: what we were started with ourselves (a shell's
    redirections, a service manager's pipes), as Python opens none.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are what is wanted
        # The one that listed the directory is closed by now.
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return found


class Processes:
    """The children of this process."""

    def __init__(self) -> None:
        self._claimed: dict[int, trio.Event] = {}
        self._ended: dict[int, Exit] = {}
        self._unclaimed: dict[int, float] = {}

    def spawn(
        self,
        argv: Sequence[str],
        *,
        descriptors: Mapping[int, int],
        environ: Mapping[str, str] | None = None,
    ) -> int:
        """Start a program in a session of its own, without a terminal's signals, stdin from
        /dev/null.

        :param descriptors: number in the child → descriptor here; it gets no others. Standard
            output and error are ours.
        :param environ: ``None``: ours, but for what only this process is to know.
        :returns: the process id.
        :raises OSError: if it cannot be started.
        """
        moved: list[int] = []
        try:
            actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
            ]
            for number, descriptor in descriptors.items():
                moved.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE))
                actions.append((os.POSIX_SPAWN_DUP2, moved[-1], number))
            actions += [
                (os.POSIX_SPAWN_CLOSE, stray)
                for stray in _inheritable()
                if stray > 2 and stray not in descriptors
            ]
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                _shared_environ() if environ is None else dict(environ),
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                # Python ignores these two, and what is ignored stays ignored over exec.
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        finally:
            for descriptor in moved:
                os.close(descriptor)
        # Whatever is known of this number is of an earlier process.
        self._ended.pop(pid, None)
        self._unclaimed.pop(pid, None)
        self._claim(pid)
        return pid

    def adopt(self, pid: int) -> None:
        """A process that somebody else forked for us is, or was, our child."""
        if pid not in self._claimed:
            self._claim(pid)

    async def wait(self, pid: int) -> Exit:
        """How the process ended, once it has. Asked once per process."""
        await self._claimed[pid].wait()
        del self._claimed[pid]
        return self._ended.pop(pid)

    def alive(self, pid: int) -> bool:
        """Whether it is ours and not reaped yet; until then its number is not given to another
        process.
        """
        return pid in self._claimed and pid not in self._ended

    def signal(self, pid: int, number: int) -> None:
        """Send a signal; nothing happens if the process is gone."""
        if self.alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def abort(self, pid: int) -> None:
        """End a process that hangs: on SIGABRT ours write where they stand (faulthandler), and what
        is left a second later is killed.
        """
        ended = self._claimed.get(pid)
        if ended is None:
            return
        self.signal(pid, signal.SIGABRT)
        with trio.move_on_after(_DUMP_GRACE):
            await ended.wait()
            return  # by now its number may be another process's
        self.signal(pid, signal.SIGKILL)

    async def reap(self) -> None:
        """Take every child's status, for ever. Needs to run before the first wait."""
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            self._take()
            async for _ in signals:
                self._take()

    def _claim(self, pid: int) -> None:
        event = self._claimed[pid] = trio.Event()
        self._forget()
        self._unclaimed.pop(pid, None)
        if pid in self._ended:
            event.set()

    def _take(self) -> None:
        # Signals of one kind merge while they are pending: one SIGCHLD may stand for many children.
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if info is None:
                return
            exited = info.si_code == os.CLD_EXITED
            self._unclaimed.pop(info.si_pid, None)
            self._ended[info.si_pid] = Exit(
                info.si_status if exited else None, None if exited else info.si_status
            )
            if info.si_pid in self._claimed:
                self._claimed[info.si_pid].set()
            else:
                self._unclaimed[info.si_pid] = time.monotonic()
                self._forget()

    def _forget(self) -> None:
        """Drop statuses that nobody asked for in time; the oldest stand first."""
        before = time.monotonic() - _UNCLAIMED_FOR
        for pid, when in list(self._unclaimed.items()):
            if when > before:
                break
            del self._unclaimed[pid], self._ended[pid]
