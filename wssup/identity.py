"""Who this process is: the worker that an application finds itself in."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["WorkerInfo", "current_worker", "set_current_worker"]


class WorkerInfo(NamedTuple):
    """A worker, as its application sees it.

    :ivar instance: the name of the wssup instance (``--name``).
    :ivar slot: 0 for the first slot; stable over reloads.
    :ivar generation: counts rollouts from 1.
    :ivar pid: the process id.
    """

    instance: str
    slot: int
    generation: int
    pid: int


_current: WorkerInfo | None = None


def set_current_worker(info: WorkerInfo) -> None:
    """Said once by the worker, right after the fork."""
    global _current  # noqa: PLW0603 - a process is one worker, for all of its life
    _current = info


def current_worker() -> WorkerInfo:
    """The worker that calls this.

    :raises RuntimeError: outside a worker, for example while the application is imported.
    """
    if _current is None:
        raise RuntimeError(
            "current_worker() has no answer here: this process is not a wssup worker "
            "(the application is imported before workers are forked; call it from the handler)"
        )
    return _current
