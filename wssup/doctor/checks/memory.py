"""Memory and processes: of control groups, of the machine, of a worker, while reloading. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from wssup.config.capacity import worker_limits
from wssup.doctor.checks.common import limit, unknown
from wssup.doctor.checks.descriptors import effective
from wssup.doctor.facts import Facts
from wssup.doctor.findings import Change, Finding, Verdict
from wssup.doctor.plan import Plan
from wssup.doctor.words import at_least, number, rounded, size

__all__ = ["address_space", "group", "machine", "reload", "tasks", "users_tasks"]

#: Processes that exist for a moment: the one between a zygote and its worker, and threads.
_PASSING = 1


def group(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """memory.max of the control group that leaves least."""
    found = facts.memory.group
    if found is None:
        return
    kernel = (plan.costs.kernel_least, plan.costs.kernel_most)
    if found.version == 1:
        kernel = (plan.costs.charged_1, plan.costs.charged_1)
    yield _room(
        "memory of the control group",
        facts,
        plan,
        room=found.room,
        kernel=kernel,
        found=f"{size(found.limit)} ({found.path}), {size(found.used)} in use",
        remedy="MemoryMax= of the unit, or the container's limit",
        unit="MemoryMax",
        used=found.used,
    )


def machine(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """What the machine has left."""
    available, total = facts.memory.available, facts.memory.total
    if available is None or total is None:
        yield unknown("memory of the machine", "/proc/meminfo cannot be read")
        return
    yield _room(
        "memory of the machine",
        facts,
        plan,
        room=available,
        kernel=(plan.costs.kernel_least, plan.costs.kernel_most),
        found=f"{size(available)} of {size(total)} available",
        remedy="more memory, or another machine beside it",
    )


def _room(
    name: str,
    facts: Facts,
    plan: Plan,
    *,
    room: int,
    kernel: tuple[int, int],
    found: str,
    remedy: str,
    unit: str = "",
    used: int = 0,
) -> Finding:
    """The finding for memory of which there is so much left.

    :param kernel: its part for a connection, at least and at most.
    :param unit: the setting of a unit that limits it; ``used``: what counts for it already.
    """
    rest = _at_rest(facts, plan)
    low, high = (plan.costs.connection + part for part in kernel)
    count = facts.present + max(0, room - rest) // low
    missing = max(0, (plan.connections or 0) - facts.present)
    least, most = missing * low + rest, missing * high + rest
    value = f"{rounded(-(-(used + most) // (1 << 20)))}M"
    finding = limit(
        name,
        plan,
        found=found,
        needed=_range(least, most) + f" more ({_range(low, high)} each)",
        connections=count,
        remedy=f"{remedy}: {size(used + most)} at least" if unit else remedy,
        changes=(Change("unit", unit, value),) if unit else (),
    )
    if plan.connections is not None and finding.verdict is Verdict.OK and most > room:
        finding = msgspec.structs.replace(
            finding,
            verdict=Verdict.WARN,
            remedy=f"it is enough for idle connections, not for busy ones; {remedy}",
            changes=(Change("unit", unit, value),) if unit else (),
        )
    return finding


def _at_rest(facts: Facts, plan: Plan) -> int:
    """Memory that an instance takes before there is a connection, as far as it does not run yet."""
    if facts.running is None:
        return plan.costs.base + plan.workers * plan.costs.worker
    return max(0, plan.workers - len(facts.running.workers)) * plan.costs.worker


def _range(least: int, most: int) -> str:
    return size(least) if size(least) == size(most) else f"{size(least)} to {size(most)}"


def reload(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """Two generations of workers live while connections move: each connection's part in workers is
    there twice, of as many workers as are replaced at once.
    """
    limiting = facts.memory.group
    rooms = [facts.memory.available, limiting.room if limiting is not None else None]
    known = [room for room in rooms if room is not None]
    if not known or not plan.ours:
        return
    room = min(known)
    if plan.connections is not None:
        count = plan.connections
    elif facts.present:
        count = facts.present
    else:
        return
    costs = plan.costs
    missing = max(0, count - facts.present)
    grown = missing * (costs.connection + costs.kernel_least) + _at_rest(facts, plan)
    moving = -(-count * plan.at_once // plan.workers)
    twice = plan.at_once * costs.resident + moving * costs.connection
    fits = grown + twice <= room
    yield Finding(
        check="memory while reloading",
        found=f"{size(max(0, room - grown))} left with {number(count)} connections",
        needed=f"{size(twice)} for "
        + ("a second generation" if plan.at_once == plan.workers else f"{plan.at_once} at a time"),
        verdict=Verdict.OK if fits else Verdict.WARN,
        remedy=""
        if fits
        else "more memory"
        if plan.at_once == 1
        else "max_surge = 1 replaces one worker at a time; or more memory",
    )


def address_space(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """RLIMIT_AS of each worker (getrlimit(2))."""
    have = facts.memory.address_space
    if have is None:
        return
    each = plan.costs.connection
    workers = facts.running.workers if facts.running is not None else ()
    if workers:
        count = sum(
            worker.connections + max(0, have - (worker.virtual or 0)) // each for worker in workers
        )
    else:
        count = plan.workers * (max(0, have - plan.costs.virtual) // each)
    need = plan.costs.virtual + -(-(plan.connections or 0) // plan.workers) * each
    yield limit(
        "address space per worker",
        plan,
        found=f"{size(have)} (RLIMIT_AS)",
        needed=at_least(need),
        connections=count,
        remedy="LimitAS=infinity for a service, ulimit -v unlimited for a shell",
        changes=(Change("unit", "LimitAS", "infinity"),),
    )


def tasks(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """pids.max of the control group that leaves least: it may not let all workers be."""
    found = facts.tasks.group
    if found is None:
        return
    others = facts.tasks.others
    fitting = max(0, found.limit - others - plan.helpers - _PASSING)
    needed = others + plan.helpers + plan.workers + _PASSING
    reloading = needed + plan.at_once + 1 if plan.ours else needed
    value = rounded(2 * reloading)
    changes = (Change("unit", "TasksMax", str(value)),)
    remedy = f"TasksMax={value} of the unit, --pids-limit {value} of the container"
    shown = f"{number(found.limit)} ({found.path}), {number(others)} by others"
    if fitting < plan.workers:
        have = effective(facts, plan) or 0
        parts = worker_limits(
            plan.workers,
            descriptors=have - plan.reserve,
            per_worker=plan.per_worker,
            total=plan.total,
        )
        yield Finding(
            check="processes of the control group",
            found=f"{shown}: room for {fitting} of {plan.workers} workers",
            needed=at_least(needed),
            verdict=Verdict.FAIL,
            remedy=remedy,
            predicted=sum(parts[:fitting]),
            changes=changes,
        )
        return
    fits = reloading <= found.limit
    yield Finding(
        check="processes of the control group",
        found=shown,
        needed=at_least(reloading) + _when(plan),
        verdict=Verdict.OK if fits else Verdict.WARN,
        remedy="" if fits else remedy,
        changes=() if fits else changes,
    )


def _when(plan: Plan) -> str:
    """Only of wssup it is known that it ever has more."""
    return " while reloading" if plan.ours else ""


def users_tasks(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """RLIMIT_NPROC, of all processes of the user."""
    have = facts.tasks.nproc
    if have is None:
        return
    others = facts.tasks.users
    second = plan.at_once + 1 if plan.ours else 0
    needed = others + plan.workers + second + plan.helpers + _PASSING
    fits = needed <= have
    value = rounded(2 * needed)
    yield Finding(
        check="processes of the user",
        found=f"{number(have)} (RLIMIT_NPROC), {number(others)} by others of the user",
        needed=at_least(needed) + _when(plan),
        verdict=Verdict.OK if fits else Verdict.FAIL,
        remedy="" if fits else f"LimitNPROC={value} for a service, nproc {value} in limits.d",
        changes=()
        if fits
        else (Change("unit", "LimitNPROC", str(value)), Change("limits", "nproc", str(value))),
    )
