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
        "The most connections of the whole instance; each worker gets its part. 0: as many as "
        "descriptors allow.",
    ),
]
WorkerConnections = Annotated[
    int,
    Spec(
        Number(0, 10_000_000),
        "Admission",
        "The most connections of one worker. 0: as many as descriptors allow.",
    ),
]
MaxHandshakes = Annotated[
    int,
    Spec(
        Number(0, 10_000_000),
        "Admission",
        "The most handshakes per second of the whole instance, with a second's worth at once; each "
        "worker gets its part. 0: no limit.",
    ),
]
Overflow = Annotated[
    Literal["queue", "refuse"],
    Spec(
        Choice(("queue", "refuse")),
        "Admission",
        "What meets a client beyond max_connections, worker_connections or "
        "max_handshakes_per_second: it waits in the kernel's queue, or gets status 503 with "
        "Retry-After.",
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
