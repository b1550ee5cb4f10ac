"""Looks at a server's counters, descriptors and sockets, until what is seen is consistent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from wssup.auditing.holding import Kernel, Traffic, held, kernel, traffic, unlisted
from wssup.auditing.judging import Counted, Finding, Leak, Look, Pile, ages, findings, leak, pile
from wssup.auditing.places import Places, listened, named
from wssup.cli.client import Target
from wssup.cli.documents import read
from wssup.cli.visitor import status_of
from wssup.errors import CommandError, UserError
from wssup.kernel import procfs
from wssup.kernel.procfs import Descriptor
from wssup.kernel.sockets import tcp_table, unix_table

__all__ = ["Audited", "Process", "Rules", "audit_instance", "audit_process"]

_LOOKS: Final = 3
_PAUSE: Final = 0.1
"""Seconds between two looks: many turns of a worker's loop."""
_LONG_PAUSE: Final = 0.3
"""Where ages must be found out by looking."""
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


class _Worker(msgspec.Struct, frozen=True):
    serial: int
    pid: int | None = None
    open: int | None = None
    accepted: int = 0
    moved_in: int = 0
    stalled: bool = False
    stale: bool = False


class _Slot(msgspec.Struct, frozen=True):
    slot: int
    workers: tuple[_Worker, ...] = ()


class _Status(msgspec.Struct, frozen=True):
    name: str
    state: str
    generation: int
    pid: int
    bind: tuple[str, ...] = ()
    retiring: tuple[str, ...] = ()
    slots: tuple[_Slot, ...] = ()


class _Seen(NamedTuple):
    """What one look brought."""

    kernel: Kernel
    places: Places
    looks: dict[int, Look]
    known: bool


class _Looking:
    """Takes looks until one is quiet."""

    def __init__(self, look: Callable[[], _Seen]) -> None:
        began = time.monotonic()
        self.seen = look()
        self.taken = 1
        self.looks = {pid: [found] for pid, found in self.seen.looks.items()}
        while self.taken < _LOOKS and not self._is_quiet():
            time.sleep(_PAUSE if self.seen.known else _LONG_PAUSE)
            self.seen = look()
            self.taken += 1
            self.looks = {
                pid: [*self.looks.get(pid, ()), found] for pid, found in self.seen.looks.items()
            }
        self.seconds = time.monotonic() - began

    def _is_quiet(self) -> bool:
        """Whether another look could show nothing else."""
        return all(
            not any(leak(looks)) and (self.seen.known or not looks[-1].held.close_wait)
            for looks in self.looks.values()
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


def audit_instance(target: Target, rules: Rules) -> Audited:
    """Audit an instance.

    :raises UserError: it cannot be done: nothing runs, or this user may not see its descriptors.
    """
    looking = _Looking(lambda: _look_at_instance(target))
    status = _status(target)
    slots = {worker.pid: slot.slot for slot in status.slots for worker in slot.workers}
    workers = {worker.pid: worker for slot in status.slots for worker in slot.workers}
    processes, found, notes = [], [], []
    for pid in looking.looks:
        process, its = looking.process(pid, slots.get(pid), rules)
        processes.append(process)
        found += its
        if pid in workers and workers[pid].stalled:
            notes.append(f"pid {pid} is stalled: its counters are those of before")
    if not processes:
        raise UserError(
            f"no worker of {status.name!r} can be looked at here",
            "if it runs in a container, run wssup audit in there; see wssup status, too",
        )
    processes.sort(key=lambda process: (-1 if process.slot is None else process.slot, process.pid))
    if not looking.seen.known:
        notes.append(_NO_AGES)
    unsure = max(process.differs.unsure for process in processes)
    if unsure:
        notes.append(f"connections come and go: fewer than {unsure} of a worker may be missed")
    detail = f"{status.state}  generation {status.generation}"
    return Audited(
        name=status.name,
        detail=detail,
        processes=processes,
        traffic=traffic(looking.seen.kernel, looking.seen.places),
        findings=found,
        looks=looking.taken,
        seconds=looking.seconds,
        notes=notes,
    )


_NO_AGES: Final = (
    "the kernel does not tell ages here (no sock_diag): what stays in CLOSE_WAIT counts as old"
)


def _look_at_instance(target: Target) -> _Seen:
    before = _status(target)
    counted = _counts(before)
    descriptors: dict[int, dict[int, Descriptor]] = {}
    for pid, _ in counted:
        try:
            descriptors[pid] = _descriptors(pid)
        except ProcessLookupError:
            continue  # it has ended since
    places = Places(filter(None, map(named, (*before.bind, *before.retiring))))
    there, known = _kernel(before.pid, unix=places.unix)
    dead = {pid: _dead(pid, mine, there) for pid, mine in descriptors.items()}
    after = _counts(_status(target))
    now = time.monotonic()
    looks = {
        pid: Look(
            now,
            held(descriptors[pid], there, places, dead[pid]),
            counts,
            after[pid, serial],
        )
        for (pid, serial), counts in counted.items()
        if pid in descriptors and (pid, serial) in after
    }
    return _Seen(there, places, looks, known)


def _counts(status: _Status) -> dict[tuple[int, int], Counted]:
    """What is counted, by process id and serial number of the workers that can be judged."""
    return {
        (worker.pid, worker.serial): Counted(worker.open, worker.accepted + worker.moved_in)
        for slot in status.slots
        for worker in slot.workers
        if worker.pid is not None and worker.open is not None and not worker.stale
    }


def _status(target: Target) -> _Status:
    try:
        return read(status_of(target), _Status)
    except CommandError as error:
        # Whatever the reason: there is no audit, which is not what "refused" says.
        raise UserError(f"cannot audit: {error.message}", error.remedy) from None


def audit_process(pid: int, rules: Rules) -> Audited:
    """Audit any server by the process id of its first process; its descendants belong to it.

    :raises UserError: there is no such process, or this user may not see its descriptors.
    """
    hidden: set[int] = set()
    looking = _Looking(lambda: _look_at_family(pid, hidden))
    processes, found = [], []
    for one in looking.looks:
        process, its = looking.process(one, None, rules)
        processes.append(process)
        found += its
    notes = [f"the descriptors of pid {one} are not shown to this user" for one in sorted(hidden)]
    if not looking.seen.known:
        notes.append(_NO_AGES)
    return Audited(
        name=f"pid {pid}",
        detail=next((p.command for p in processes if p.pid == pid), ""),
        processes=processes,
        traffic=traffic(looking.seen.kernel, looking.seen.places),
        findings=found,
        looks=looking.taken,
        seconds=looking.seconds,
        notes=notes,
    )


def _look_at_family(pid: int, hidden: set[int]) -> _Seen:
    descriptors: dict[int, dict[int, Descriptor]] = {}
    try:
        family = procfs.family(pid)
        descriptors[pid] = _descriptors(pid)
    except ProcessLookupError:
        raise UserError(f"cannot audit: there is no process {pid}", "see ps") from None
    for one in family[1:]:
        try:
            mine = procfs.descriptors(one)
        except ProcessLookupError:
            continue
        if mine is None:
            hidden.add(one)
        else:
            descriptors[one] = mine
    there, known = _kernel(pid, unix=True)
    inodes = {inode for mine in descriptors.values() for _, inode in mine.values()}
    places = listened(there.tcp.values(), there.unix.values(), inodes)
    now = time.monotonic()
    looks = {
        one: Look(now, held(mine, there, places, _dead(one, mine, there)))
        for one, mine in descriptors.items()
    }
    return _Seen(there, places, looks, known)


def _kernel(pid: int, *, unix: bool) -> tuple[Kernel, bool]:
    try:
        table = tcp_table(pid)
        return kernel(table.sockets, unix_table(pid) if unix else ()), table.heard
    except OSError as error:
        raise UserError(
            f"cannot audit: the kernel does not show its sockets: {error.strerror or error}",
            "run as root, where /proc is mounted",
        ) from None


def _descriptors(pid: int) -> dict[int, Descriptor]:
    found = procfs.descriptors(pid)
    if found is None:
        raise UserError(
            f"cannot audit: the descriptors of pid {pid} are not shown to this user",
            "run as the service's user or as root",
        )
    return found


def _dead(pid: int, descriptors: Mapping[int, Descriptor], there: Kernel) -> set[int]:
    return {
        inode
        for number, inode in unlisted(descriptors, there)
        if procfs.protocol(pid, number, inode).startswith("TCP")
    }
