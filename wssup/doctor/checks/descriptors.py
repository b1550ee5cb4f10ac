"""Descriptors: of a process, of its ceiling, of the machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from wssup.config.capacity import capacity
from wssup.config.plan import descriptors_needed, planned_workers, reserve, room
from wssup.doctor.checks.common import limit, unknown
from wssup.doctor.facts import Facts
from wssup.doctor.findings import Change, Finding, Verdict
from wssup.doctor.plan import Plan
from wssup.doctor.words import at_least, number, rounded

__all__ = ["ceiling", "effective", "machine", "others", "per_process"]


def effective(facts: Facts, plan: Plan) -> int | None:
    """RLIMIT_NOFILE that a worker has, or will have."""
    found = facts.descriptors
    if facts.running is not None or not plan.ours:
        return found.soft
    if found.hard is None or found.nr_open is None:
        return found.hard
    return min(found.hard, found.nr_open)


def per_process(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """RLIMIT_NOFILE against the part of a worker."""
    name = "descriptors per worker"
    have = effective(facts, plan)
    if have is None:
        yield unknown(name, "its limits cannot be read")
        return
    count = capacity(plan.workers, descriptors=have - plan.reserve)
    soft = facts.descriptors.soft
    found = f"{number(have)} each, {plan.workers} × ({number(have)} - {plan.reserve})"
    if soft is not None and soft < have:
        found += f"; soft {number(soft)} is raised at start"
    if plan.connections is None:
        yield limit(name, plan, found=found, needed="", connections=count, remedy="")
        return
    need = descriptors_needed(plan.connections, plan.workers, plan.reserve)
    # Beyond fs.nr_open setrlimit(2) fails, and with it every login (pam_limits(8)).
    value = rounded(need, facts.descriptors.nr_open)
    finding = limit(
        name,
        plan,
        found=found,
        needed=at_least(need),
        connections=count,
        remedy=_remedy(have, value, plan),
        changes=_changes(value),
    )
    if need > have and finding.verdict is Verdict.OK:
        # Steering fills them evenly; a hash leaves some full while others have room.
        finding = msgspec.structs.replace(
            finding,
            verdict=Verdict.WARN if plan.even else Verdict.FAIL,
            remedy=_remedy(have, value, plan),
            changes=_changes(value),
        )
    yield finding


def _remedy(have: int, value: int, plan: Plan) -> str:
    each = room(have, plan.reserve, plan.per_worker)
    more = planned_workers(plan.connections or 0, each, least=plan.workers)
    workers = ""
    if more is not None and more > plan.workers:
        workers = f"; or --workers {more}" if plan.ours else f"; or {more} processes"
        workers += f" with max_workers = {more}" if more > plan.most else ""
    return (
        f"LimitNOFILE={value} for a service (systemctl edit), nofile {value} in limits.d for a "
        f"login, --ulimit nofile={value} for a container{workers}"
    )


def _changes(value: int) -> tuple[Change, ...]:
    return (
        Change("limits", "nofile", str(value)),
        Change("unit", "LimitNOFILE", str(value)),
    )


def ceiling(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """fs.nr_open, which no RLIMIT_NOFILE exceeds (proc_sys_fs(5))."""
    name = "fs.nr_open"
    have = facts.descriptors.nr_open
    if have is None:
        yield unknown(name, "/proc/sys/fs/nr_open cannot be read")
        return
    need = descriptors_needed(plan.connections or 0, plan.workers, plan.reserve)
    value = rounded(need)
    yield limit(
        name,
        plan,
        found=f"{number(have)}, the most that a process may be allowed",
        needed=at_least(need),
        connections=capacity(plan.workers, descriptors=have - plan.reserve),
        remedy=f"sysctl -w fs.nr_open={value}, or run more workers",
        changes=(Change("sysctl", "fs.nr_open", str(value)),),
    )


def others(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """What workers have open besides connections, against what is kept for that."""
    if facts.running is None or not plan.ours:
        return
    counts = [
        worker.descriptors - worker.connections
        for worker in facts.running.workers
        if worker.descriptors is not None
    ]
    if not counts:
        return
    most = max(counts)
    fits = most <= plan.reserve
    yield Finding(
        check="descriptors for other things",
        found=f"up to {number(most)} in a worker",
        needed=f"≤ {number(plan.reserve)} (reserve_fds)",
        verdict=Verdict.OK if fits else Verdict.WARN,
        remedy=""
        if fits
        else f"reserve_fds = {rounded(most * 2)}: connections would fail at "
        "the limit, instead of waiting",
    )


def machine(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """Open files of the whole machine. What others have open stays open."""
    name = "open files of the machine"
    most, used = facts.descriptors.file_max, facts.descriptors.file_used
    if most is None or used is None:
        yield unknown(name, "/proc/sys/fs/file-nr cannot be read")
        return
    rest = used - facts.present + plan.workers * reserve(plan.reserve)
    yield limit(
        name,
        plan,
        found=f"{number(most)} allowed, {number(used)} open",
        needed=at_least((plan.connections or 0) + rest),
        connections=most - rest,
        # systemd 240 and newer sets the largest value at boot: whatever lowers it is the mistake.
        remedy="remove what lowers it (grep -r file-max /etc/sysctl.conf /etc/sysctl.d), or add "
        "memory: the kernel's own value follows from that",
    )
