"""Looks at processes again and again until what is seen is consistent.

What a look is at, an instance or the processes of any other server, is for audit_instance.py and
audit_process.py.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from wssup.auditing.holding import Dead, Kernel, Traffic, kernel, sorted_dead, unlisted
from wssup.auditing.judging import (
    UNKNOWN_AGE,
    Finding,
    Leak,
    Look,
    Pile,
    ages,
    findings,
    leak,
    pile,
)
from wssup.auditing.places import Places
from wssup.errors import UserError
from wssup.kernel import procfs
from wssup.kernel.borrowing import own_end
from wssup.kernel.procfs import Descriptor
from wssup.kernel.sockets import tcp_table, unix_table

__all__ = [
    "NO_AGES",
    "Audited",
    "Looking",
    "Process",
    "Rules",
    "Seen",
    "dead_of",
    "descriptors_of",
    "kernel_of",
    "untold",
]

_PAUSES: Final = (0.1, 0.3)
"""Seconds before each further look: many turns of a worker's loop."""
_CHEAP: Final = 0.3
"""Seconds that a look takes which is no matter."""
_NOFILE: Final = "Max open files"


class Rules(NamedTuple):
    """What is a pile of CLOSE_WAIT.

    :ivar older_than: seconds.
    :ivar most_kept: so many are none yet.
    """

    older_than: float
    most_kept: int


class Process(NamedTuple):
    """What was seen of a process.

    :ivar slot: of a worker.
    :ivar command: its command line.
    :ivar counted: connections that the scoreboard counts; ``None`` if nothing does.
    :ivar nofile: how many descriptors it may have, if that is known.
    :ivar close_wait: how many it has in this state, of any age, and the oldest one's;
        ``outgoing_close_wait`` the same among connections that it made itself.
    """

    pid: int
    slot: int | None
    command: str
    counted: int | None
    last: Look
    nofile: int | None
    differs: Leak
    kept: Pile
    close_wait: Pile
    outgoing_close_wait: Pile


class Audited(NamedTuple):
    """An audit.

    :ivar name: of the instance, or the process.
    :ivar detail: what else is to be said of it in a few words.
    :ivar looks: how many it took; ``seconds`` how long.
    :ivar notes: what could not be seen, or not for sure.
    """

    name: str
    detail: str
    processes: list[Process]
    traffic: list[Traffic]
    findings: list[Finding]
    looks: int
    seconds: float
    notes: list[str]


class Seen(NamedTuple):
    """What one look brought.

    :ivar known: whether the kernel told ages.
    :ivar strays: connections of the instance that others than workers have, by process id.
    """

    kernel: Kernel
    places: Places
    looks: dict[int, Look]
    known: bool
    strays: dict[int, frozenset[int]]


NO_AGES: Final = (
    "the kernel does not tell ages here (no sock_diag): what stays in CLOSE_WAIT counts as old"
)


def untold(pid: int, number: int) -> str:
    """The note about sockets of which nobody may know whose they are."""
    return (
        f"pid {pid}: {number} TCP sockets are connected to nobody, and only root is shown whether "
        "clients had them: they are not judged"
    )


class Looking:
    """Takes looks until one is quiet."""

    def __init__(self, look: Callable[[], Seen]) -> None:
        began = time.monotonic()
        # Ten thousands of tuples are made, none of them garbage: looking for some takes a fifth.
        gc.disable()
        try:
            self._look(look)
        finally:
            gc.enable()
        self.seconds = time.monotonic() - began

    def _look(self, look: Callable[[], Seen]) -> None:
        began = time.monotonic()
        self.seen = look()
        self._took = time.monotonic() - began
        self.taken = 1
        self.strays = [self.seen.strays]
        self.looks = {pid: [found] for pid, found in self.seen.looks.items()}
        for pause in _PAUSES:
            if self._is_quiet():
                break
            # Ages that the kernel does not tell are found out by looking.
            time.sleep(pause if self.seen.known else UNKNOWN_AGE / 2)
            self.seen = look()
            self.taken += 1
            self.strays.append(self.seen.strays)
            self.looks = {
                pid: [*self.looks.get(pid, ()), found] for pid, found in self.seen.looks.items()
            }

    def _is_quiet(self) -> bool:
        """Whether another look could tell more. That connections come and go is reason for one
        more if it costs nothing; the next one would not be quieter.
        """
        differs = [leak(looks) for looks in self.looks.values()]
        return not (
            self.seen.strays
            or any(any(one[:-1]) for one in differs)
            or (self.taken == 1 and self._took < _CHEAP and any(one.unsure for one in differs))
            or (
                not self.seen.known
                and any(looks[-1].held.close_wait for looks in self.looks.values())
            )
        )

    def process(self, pid: int, slot: int | None, rules: Rules) -> tuple[Process, list[Finding]]:
        """What is to be said of a process."""
        looks = self.looks[pid]
        last = looks[-1]
        differs = leak(looks)
        kept = pile(looks, rules.older_than, known=self.seen.known)
        try:
            command = procfs.command_line(pid) or ""
            limits = procfs.limits(pid) or {}
        except ProcessLookupError:
            command, limits = "", {}
        process = Process(
            pid=pid,
            slot=slot,
            command=command,
            counted=None if last.after is None else last.after.open,
            last=last,
            nofile=limits[_NOFILE].soft if _NOFILE in limits else None,
            differs=differs,
            kept=kept,
            close_wait=_all(ages(looks)),
            outgoing_close_wait=_all(ages(looks, outgoing=True)),
        )
        if len(looks) < self.taken:
            # What was seen of it may be chance.
            return process, []
        return process, findings(pid, slot, differs, kept, most_kept=rules.most_kept)


def _all(found: Mapping[int, float]) -> Pile:
    return Pile(len(found), max(found.values(), default=None))


def kernel_of(pid: int, *, unix: bool) -> tuple[Kernel, bool]:
    """The sockets where a process is, and whether ages are known.

    :param unix: with those of unix.
    :raises UserError: the kernel does not show them.
    """
    try:
        table = tcp_table(pid)
        return kernel(table.sockets, unix_table(pid) if unix else ()), table.heard
    except OSError as error:
        raise UserError(
            f"cannot audit: the kernel does not show its sockets: {error.strerror or error}",
            "run as root, where /proc is mounted",
        ) from None


def descriptors_of(pid: int) -> dict[int, Descriptor]:
    """All descriptors of a process.

    :raises UserError: this user may not see them.
    :raises ProcessLookupError: it is gone.
    """
    found = procfs.descriptors(pid)
    if found is None:
        raise UserError(
            f"cannot audit: the descriptors of pid {pid} are not shown to this user",
            "run as the service's user or as root",
        )
    return found


def dead_of(pid: int, descriptors: Mapping[int, Descriptor], there: Kernel, places: Places) -> Dead:
    """Those TCP sockets of a process that are in no table of the kernel."""
    ends = {
        inode: own_end(pid, number, inode)
        for number, inode in unlisted(descriptors, there)
        if procfs.protocol(pid, number, inode).startswith("TCP")
    }
    return sorted_dead(ends, places)
