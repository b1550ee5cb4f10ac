"""How many workers a number of connections needs. Pure; the master, the installer of units and the
doctor share it.

Where the kernel's hash spreads N connections over W workers, each gets N/W on average, with the
standard deviation of a binomial distribution, the root of N/W * (1 - 1/W). That a worker gets five
of these more happens less than once in three million times. Steering by load spreads better than
that; the plan holds for any.
"""

from __future__ import annotations

import math
from typing import Final

from wssup.config.scaling import MAX_WORKERS, Autoscale
from wssup.config.settings import Settings
from wssup.errors import UserError

__all__ = [
    "MARGIN",
    "busiest",
    "descriptors_needed",
    "planned_workers",
    "reserve",
    "room",
    "workers_meant",
]

MARGIN: Final = 128
"""Descriptors of a worker for other things than connections, at least: libraries and applications
open files, too."""

_DEVIATIONS: Final = 5


def busiest(connections: int, workers: int) -> int:
    """How many of the connections the busiest of the workers may have."""
    mean = connections / workers
    deviation = math.sqrt(mean * (1 - 1 / workers))
    return min(connections, math.ceil(mean + _DEVIATIONS * deviation))


def reserve(reserve_fds: int) -> int:
    """What a plan leaves for other things: `MARGIN`, or the setting if that is more."""
    return max(MARGIN, reserve_fds)


def descriptors_needed(connections: int, workers: int, reserve_fds: int = 0) -> int:
    """The RLIMIT_NOFILE that each of the workers needs for its part of the connections."""
    return busiest(connections, workers) + reserve(reserve_fds)


def room(nofile: int, reserve_fds: int = 0, worker_connections: int = 0) -> int:
    """How many connections one worker may be planned to have.

    :param nofile: its RLIMIT_NOFILE.
    :param worker_connections: the setting; 0: no limit.
    """
    free = max(0, nofile - reserve(reserve_fds))
    return min(free, worker_connections) if worker_connections else free


def planned_workers(
    connections: int, room: int, *, least: int = 1, most: int = MAX_WORKERS
) -> int | None:
    """The smallest number of workers, ``least`` to ``most``, into which the connections fit.

    :param room: connections that fit into one worker.
    :returns: ``None`` if they fit into none of these numbers.
    """
    found = range(min(least, most), most + 1)
    return next((w for w in found if busiest(connections, w) <= room), None)


def workers_meant(settings: Settings, *, cpus: int, nofile: int, now: int = 0) -> int:
    """How many workers a configuration means, on a machine with so many processors.

    :param nofile: the RLIMIT_NOFILE of a worker.
    :param now: how many there are, if any: a number that follows the load stays within its bounds.
    :raises UserError: if ``connections`` do not fit into as many as there may be.
    """
    meant = settings.workers
    if isinstance(meant, Autoscale):
        return min(max(now, meant.min), meant.max)
    if meant != "auto":
        return meant
    least = min(cpus, settings.max_workers)
    if not settings.connections:
        return least
    each = room(nofile, settings.reserve_fds, settings.worker_connections)
    found = planned_workers(settings.connections, each, least=least, most=settings.max_workers)
    if found is None:
        raise _too_many(settings, nofile, each)
    return found


def _too_many(settings: Settings, nofile: int, each: int) -> UserError:
    """The arithmetic, for the most workers there may be."""
    count, most = settings.connections, settings.max_workers
    part = busiest(count, most)
    spare = reserve(settings.reserve_fds)
    by_setting = 0 < settings.worker_connections < nofile - spare
    limit = (
        f"worker_connections = {each}"
        if by_setting
        else f"RLIMIT_NOFILE {nofile} - {spare} for other things = {max(0, nofile - spare)}"
    )
    needed = planned_workers(count, each)
    remedies = []
    if by_setting:
        remedies.append(f"worker_connections to {part}")
    if part + spare > nofile:
        remedies.append(f"the limit of open files to {part + spare} (LimitNOFILE= or ulimit -Hn)")
    remedy = f"raise {' and '.join(remedies)}"
    if needed is not None:
        remedy += f", or max_workers to {needed}"
    would = f"{needed}" if needed is not None else f"more than {MAX_WORKERS}"
    formula = f"{count}/{most} + {_DEVIATIONS}·√({count}/{most}·(1-1/{most}))"
    return UserError(
        f"connections = {count} does not fit: with max_workers = {most} a worker gets up to "
        f"{part} ({formula}), and may have {each} ({limit}); it would take {would} workers",
        remedy,
    )
