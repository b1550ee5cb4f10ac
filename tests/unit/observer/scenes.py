"""Instances as the observer sees them, made up."""

from __future__ import annotations

import os

from wssup.observer.catalogue import RELOAD_RESULTS
from wssup.status.facts import (
    BridgeFacts,
    Facts,
    ListenerFacts,
    NofileFacts,
    ProcessFacts,
    SlotFacts,
    WorkerFacts,
)
from wssup.supervisor.children import CAUSES


def facts(count: int = 2, **changes: object) -> Facts:
    """An instance with a worker in each slot, whose processes are all this one."""
    me = os.getpid()
    workers = [WorkerFacts(n + 1, me, 7, "current", "ready", False) for n in range(count)]
    known: dict[str, object] = {
        "name": "test",
        "version": "0.1.0",
        "pid": me,
        "generation": 7,
        "mixed": False,
        "app": "application:app",
        "started_at": 1_780_000_000.5,
        "bind": ("127.0.0.1:8000",),
        "retiring": (),
        "capacity": 20_000,
        "nofile": NofileFacts(10_000, 10_000, 1024),
        "reserve_fds": 32,
        "backlog": 4096,
        "stall_after": 5.0,
        "workers": count,
        "restarts": 3,
        "restarts_by_reason": dict.fromkeys(CAUSES, 0) | {"signal": 2, "hung": 1},
        "recycled": {"age": 0, "rss": 1, "connections": 0},
        "handoffs_in_progress": 0,
        "bridge": BridgeFacts("redis://h", me, 4, ""),
        "slots": tuple(
            SlotFacts(n, "ready", "", None, (worker,)) for n, worker in enumerate(workers)
        ),
        "reload": None,
        "last_reload": None,
        "reloads": dict.fromkeys(RELOAD_RESULTS, 0) | {"done": 6},
        "observer_restarts": 0,
        "processes": (
            ProcessFacts("master", me),
            ProcessFacts("zygote", me, generation=7),
            *(ProcessFacts("worker", me, n, 7) for n in range(count)),
        ),
        "listeners": tuple(ListenerFacts(n, "127.0.0.1:8000", 1000 + n) for n in range(count)),
    }
    return Facts(**(known | changes))  # type: ignore[arg-type]
