"""Audits any other server, by its processes."""

from __future__ import annotations

import time

from wssup.auditing.holding import held, traffic
from wssup.auditing.judging import Look
from wssup.auditing.places import listened
from wssup.cli.looking import (
    NO_AGES,
    Audited,
    Looking,
    Rules,
    Seen,
    dead_of,
    descriptors_of,
    kernel_of,
    untold,
)
from wssup.errors import UserError
from wssup.kernel import procfs
from wssup.kernel.procfs import Descriptor

__all__ = ["audit_process"]


def audit_process(pid: int, rules: Rules) -> Audited:
    """Audit any server by the process id of its first process; its descendants belong to it.

    :raises UserError: there is no such process, or this user may not see its descriptors.
    """
    hidden: set[int] = set()
    looking = Looking(lambda: _look_at_family(pid, hidden))
    processes, found = [], []
    for one in looking.looks:
        process, its = looking.process(one, None, rules)
        processes.append(process)
        found += its
    notes = [f"the descriptors of pid {one} are not shown to this user" for one in sorted(hidden)]
    notes += [untold(p.pid, p.last.held.untold) for p in processes if p.last.held.untold]
    if not looking.seen.known:
        notes.append(NO_AGES)
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


def _look_at_family(pid: int, hidden: set[int]) -> Seen:
    descriptors: dict[int, dict[int, Descriptor]] = {}
    try:
        family = procfs.family(pid)
        descriptors[pid] = descriptors_of(pid)
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
    there, known = kernel_of(pid, unix=True)
    inodes = {inode for mine in descriptors.values() for _, inode in mine.values()}
    places = listened(there.tcp.values(), there.unix.values(), inodes)
    now = time.monotonic()
    looks = {
        one: Look(now, held(mine, there, places, dead_of(one, mine, there, places)))
        for one, mine in descriptors.items()
    }
    return Seen(there, places, looks, known, {})
