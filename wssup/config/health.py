"""The settings about how long a worker may live, and what happens when one does not do well. Part
of the table of settings, and written like it.
"""

from __future__ import annotations

from typing import Annotated

from wssup.config.kinds import Number
from wssup.config.observing import Observing
from wssup.config.quantities import Duration, Size
from wssup.config.spec import Spec

__all__ = ["Health"]


class Health(Observing, frozen=True, kw_only=True):
    """Recycling, stalls, and workers that die."""

    max_worker_age: Annotated[
        float,
        Spec(
            Duration(),
            "Recycling",
            "After how long a worker is replaced, give or take a tenth; its connections move to "
            "the new one. 0: never.",
        ),
    ] = 0.0
    max_worker_rss: Annotated[
        int,
        Spec(
            Size(0, 1 << 40),
            "Recycling",
            "The resident memory beyond which a worker is replaced. 0: never.",
        ),
    ] = 0
    max_worker_connections: Annotated[
        int,
        Spec(
            Number(0, 10**15),
            "Recycling",
            "How many connections a worker accepts before it is replaced. 0: without end.",
        ),
    ] = 0

    stall_after: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "After how long without a heartbeat a worker gets no new connections.",
        ),
    ] = 2.0
    hang_after: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "After how long without a heartbeat a worker is killed; more than stall_after.",
        ),
    ] = 30.0
    backoff_min: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "The wait before a worker that died is started again; it doubles with each failure.",
        ),
    ] = 0.1
    backoff_max: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "The longest wait before a worker is started again; at least backoff_min.",
        ),
    ] = 30.0
    failure_budget: Annotated[
        int,
        Spec(
            Number(1, 1000),
            "Health",
            "How many failures within failure_window a slot may have until it is given up.",
        ),
    ] = 5
    failure_window: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "The time within which a slot's failures are counted.",
        ),
    ] = 60.0
