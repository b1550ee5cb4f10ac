"""How many connections fit: arithmetic that the master, the workers and the doctor share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wssup.config.settings import Settings

__all__ = ["arithmetic", "capacity", "parts", "worker_limits"]


def worker_limits(
    workers: int, *, descriptors: int, per_worker: int = 0, total: int = 0
) -> tuple[int, ...]:
    """How many connections each of the workers may have.

    :param descriptors: what a worker's RLIMIT_NOFILE leaves for connections, its reserve deducted.
    :param per_worker: ``worker_connections``; 0: no limit.
    :param total: ``max_connections`` of the instance, which is divided so that the sum is exact; 0:
        no limit.
    """
    each = max(0, descriptors)
    if per_worker:
        each = min(each, per_worker)
    if not total or not workers:
        return (each,) * workers
    share, more = divmod(total, workers)
    return tuple(min(each, share + (slot < more)) for slot in range(workers))


def capacity(workers: int, *, descriptors: int, per_worker: int = 0, total: int = 0) -> int:
    """How many connections fit in all."""
    limits = worker_limits(workers, descriptors=descriptors, per_worker=per_worker, total=total)
    return sum(limits)


def arithmetic(settings: Settings, workers: int, nofile: int) -> str:
    """How `capacity` comes about, in one line.

    :param nofile: RLIMIT_NOFILE of a worker.
    """
    total, per_worker, reserve = (
        settings.max_connections,
        settings.worker_connections,
        settings.reserve_fds,
    )
    descriptors = max(0, nofile - reserve)
    if total and total <= capacity(workers, descriptors=descriptors, per_worker=per_worker):
        return f"max_connections = {total}"
    if per_worker and per_worker < descriptors:
        return f"{workers} * (worker_connections = {per_worker})"
    return f"{workers} * ({nofile} - {reserve})"


def parts(
    slots: Sequence[int],
    *,
    each: int,
    total: int,
    taken: Mapping[int, int],
    held: Mapping[int, int],
    told: Mapping[int, int],
    certain: bool = True,
) -> dict[int, int]:
    """What each slot may have of ``total`` connections while the number of slots changes.

    A slot that gets less is told so at once; one that gets more has to wait until others have
    closed what they have too many: nobody may let in what is still taken elsewhere. So the sum of
    what each has and may have never grows beyond ``total``.

    :param slots: those in service.
    :param each: the most that one may have in any case.
    :param taken: sockets by slot, those that are being turned away included; of slots that are not
        in service any more, too. ``held``: those of them that were let in.
    :param told: what workers of each slot go by until they hear of this; nothing of those that do
        not know yet.
    :param certain: whether ``taken`` is of this moment; if not, nobody gets more.
    """
    goals = dict(zip(slots, worker_limits(len(slots), descriptors=each, total=total), strict=True))
    reserved = {slot: max(taken.get(slot, 0), told.get(slot, 0)) for slot in {*taken, *told}}
    left = max(0, total - sum(reserved.values())) if certain else 0
    found = {}
    for slot, goal in goals.items():
        # Who is being turned away has no place that another could have.
        has = max(held.get(slot, 0), told.get(slot, 0))
        found[slot] = min(goal, has + left)
        left -= max(0, found[slot] - has)
    return found
