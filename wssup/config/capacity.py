"""How many connections fit: arithmetic that the master, the workers and the doctor share. Pure."""

from __future__ import annotations

__all__ = ["capacity", "worker_limits"]


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
    if not total:
        return (each,) * workers
    share, more = divmod(total, workers)
    return tuple(min(each, share + (slot < more)) for slot in range(workers))


def capacity(workers: int, *, descriptors: int, per_worker: int = 0, total: int = 0) -> int:
    """How many connections fit in all."""
    limits = worker_limits(workers, descriptors=descriptors, per_worker=per_worker, total=total)
    return sum(limits)
