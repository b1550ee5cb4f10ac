"""Audits an instance: its scoreboard, each worker's descriptors, the kernel's sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec

from wssup.auditing.holding import Kernel, held, strays, traffic
from wssup.auditing.judging import Counted, Look, stayed
from wssup.auditing.places import Places, listened, named, served
from wssup.cli.client import Target
from wssup.cli.documents import read
from wssup.cli.looking import (
    NO_AGES,
    Audited,
    Looking,
    Process,
    Rules,
    Seen,
    dead_of,
    descriptors_of,
    kernel_of,
    untold,
)
from wssup.cli.visitor import told_by
from wssup.errors import CommandError, UserError
from wssup.kernel import procfs
from wssup.kernel.procfs import Descriptor

__all__ = ["audit_instance"]


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


class _Observer(msgspec.Struct, frozen=True):
    pid: int | None = None


class _Reload(msgspec.Struct, frozen=True):
    outcome: str | None = None


class _Status(msgspec.Struct, frozen=True):
    name: str
    state: str
    generation: int
    pid: int
    bind: tuple[str, ...] = ()
    retiring: tuple[str, ...] = ()
    slots: tuple[_Slot, ...] = ()
    observer: _Observer | None = None
    reload: _Reload | None = None
    last_reload: _Reload | None = None

    @property
    def reloaded(self) -> bool:
        """Whether there may be connections that came to an address which was removed since."""
        last = self.last_reload is not None and self.last_reload.outcome is not None
        return self.generation > 1 or self.reload is not None or last


def audit_instance(target: Target, rules: Rules) -> Audited:
    """Audit an instance.

    :raises UserError: it cannot be done: nothing runs, or this user may not see its descriptors.
    """
    looking = Looking(lambda: _look_at_instance(target))
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
        notes += _notes(process)
    if not processes:
        raise UserError(
            f"no worker of {status.name!r} can be looked at here",
            "if it runs in a container, run wssup audit in there; see wssup status, too",
        )
    processes.sort(key=lambda process: (-1 if process.slot is None else process.slot, process.pid))
    if not looking.seen.known:
        notes.append(NO_AGES)
    unsure = max(process.differs.unsure for process in processes)
    if unsure:
        notes.append(
            f"connections came and went meanwhile: up to {unsure} more of a worker may be leaked"
        )
    return Audited(
        name=status.name,
        detail=f"{status.state}  generation {status.generation}",
        processes=processes,
        traffic=traffic(looking.seen.kernel, looking.seen.places),
        findings=found + stayed(looking.strays),
        looks=looking.taken,
        seconds=looking.seconds,
        notes=notes,
    )


def _notes(process: Process) -> Iterator[str]:
    held = process.last.held
    if held.untold:
        yield untold(process.pid, held.untold)
    away = min(held.elsewhere, (process.counted or 0) - held.connections)
    if process.last.former and away > 0:
        yield (
            f"pid {process.pid}: {away} of those it counts came to an address that is served no "
            f"more, or are gone (connections that it has elsewhere: {held.elsewhere})"
        )


def _look_at_instance(target: Target) -> Seen:
    before = _status(target)
    counted = _counts(before)
    descriptors: dict[int, dict[int, Descriptor]] = {}
    for pid, _ in counted:
        try:
            descriptors[pid] = descriptors_of(pid)
        except ProcessLookupError:
            continue  # it has ended since
    names = (*before.bind, *before.retiring)
    unix = before.reloaded or any(name.startswith("unix:") for name in names)
    there, known = kernel_of(before.pid, unix=unix)
    places, complete = _places(before, names, there)
    dead = {pid: dead_of(pid, mine, there, places) for pid, mine in descriptors.items()}
    after = _counts(_status(target))
    now = time.monotonic()
    looks = {
        pid: Look(
            now,
            held(descriptors[pid], there, places, dead[pid]),
            counts,
            after[pid, serial],
            former=before.reloaded or not complete,
        )
        for (pid, serial), counts in counted.items()
        if pid in descriptors and (pid, serial) in after
    }
    return Seen(there, places, looks, known, _strays(before.pid, descriptors, there, places))


def _places(status: _Status, names: Sequence[str], there: Kernel) -> tuple[Places, bool]:
    """The addresses, and whether they are all that are served now.

    :raises UserError: there is none.
    """
    if all(map(named, names)):
        found, complete = Places(()), True
    else:
        # A host's name: the master's listeners have the addresses. The observer's are no clients'.
        mine = _inodes(status.pid)
        others = _inodes(None if status.observer is None else status.observer.pid)
        found = listened(there.tcp.values(), (), mine - others)
        complete = bool(found.all)
    places = served(names, found)
    if not places.all:
        raise UserError(
            f"cannot audit: nobody may know here which addresses {', '.join(names) or 'these'} are",
            "run as root, or bind addresses in numbers",
        )
    return places, complete


def _inodes(pid: int | None) -> frozenset[int]:
    """The sockets of a process; none if it is gone or hides them."""
    try:
        its = {} if pid is None else procfs.descriptors(pid) or {}
    except ProcessLookupError:
        return frozenset()
    return frozenset(inode for kind, inode in its.values() if kind == "socket")


def _strays(
    master: int, workers: Mapping[int, Mapping[int, Descriptor]], there: Kernel, places: Places
) -> dict[int, frozenset[int]]:
    """Connections that children of the workers have, or of the master, who adopts orphans."""
    inodes = {inode for mine in workers.values() for _, inode in mine.values()}
    left = strays(there, places, inodes)
    found = {}
    for pid in _family(master) if left else ():
        if pid not in workers:
            with suppress(ProcessLookupError):
                its = procfs.descriptors(pid) or {}
                found[pid] = left.intersection(inode for _, inode in its.values())
    return {pid: mine for pid, mine in found.items() if mine}


def _family(pid: int) -> list[int]:
    try:
        return procfs.family(pid)
    except ProcessLookupError:
        return []


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
        told = told_by(target)
        status = read(told.status, _Status)
    except CommandError as error:
        # Whatever the reason: there is no audit, which is not what "refused" says.
        raise UserError(f"cannot audit: {error.message}", error.remedy) from None
    told.check_pids("audit")
    return status
