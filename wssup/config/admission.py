"""The settings about who is let in, and to which worker. Part of the table of settings, and written
like it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from wssup.config.kinds import Choice, Number
from wssup.config.spec import Spec

__all__ = ["MaxConnections", "MaxHandshakes", "Overflow", "Steering", "WorkerConnections"]

MaxConnections = Annotated[
    int,
    Spec(
        Number(0, 100_000_000),
        "Admission",
        "The most connections of the whole instance; each worker gets its part, which it shares "
        "with its successor in a reload. 0: as many as descriptors allow.",
    ),
]
WorkerConnections = Annotated[
    int,
    Spec(
        Number(0, 10_000_000),
        "Admission",
        "The most connections of one worker, and of its successor with it in a reload. 0: as many "
        "as descriptors allow.",
    ),
]
MaxHandshakes = Annotated[
    int,
    Spec(
        Number(0, 10_000_000),
        "Admission",
        "The most new connections per second of the whole instance, with a second's worth at once; "
        "each worker gets its part, and one at least at once. Those that speak plain HTTP count, "
        "too. 0: no limit.",
    ),
]
Overflow = Annotated[
    Literal["queue", "refuse"],
    Spec(
        Choice(("queue", "refuse")),
        "Admission",
        "What meets a client beyond max_connections, worker_connections or "
        "max_handshakes_per_second, or when there are no descriptors: it waits in the kernel's "
        "queue (backlog), or gets status 503 with Retry-After.",
    ),
]
Steering = Annotated[
    Literal["least", "hash", "source"],
    Spec(
        Choice(("least", "hash", "source")),
        "Admission",
        "Which worker gets a new connection: one with fewer than the others, any, or always the "
        "same one for the same client address.",
    ),
]
