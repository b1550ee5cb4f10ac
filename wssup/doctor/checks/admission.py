"""The configuration's own limits. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from wssup.doctor.checks.common import limit
from wssup.doctor.facts import Facts
from wssup.doctor.findings import Finding, Verdict
from wssup.doctor.plan import Plan
from wssup.doctor.words import at_least, number

__all__ = ["handshakes", "max_connections", "worker_connections"]


def max_connections(_facts: Facts, plan: Plan) -> Iterator[Finding]:
    """The limit of the instance."""
    if plan.total:
        count = plan.connections or 0
        yield limit(
            "max_connections",
            plan,
            found=f"{number(plan.total)}, by the configuration",
            needed=at_least(count),
            connections=plan.total,
            remedy=f"max_connections = {count}, or 0 for what descriptors allow",
        )


def worker_connections(_facts: Facts, plan: Plan) -> Iterator[Finding]:
    """The limit of each worker."""
    if plan.per_worker:
        each = -(-(plan.connections or 0) // plan.workers)
        yield limit(
            "worker_connections",
            plan,
            found=f"{plan.workers} × {number(plan.per_worker)}, by the configuration",
            needed=f"{at_least(each)} each",
            connections=plan.workers * plan.per_worker,
            remedy=f"worker_connections = {each} or more, 0 for what descriptors allow, or more "
            "workers",
        )


def handshakes(_facts: Facts, plan: Plan) -> Iterator[Finding]:
    """The limit of handshakes, against clients that come back together."""
    if not plan.handshakes:
        return
    rate = plan.reconnects_per_second
    short = rate is not None and plan.handshakes < rate
    yield Finding(
        check="max_handshakes_per_second",
        found=f"{number(plan.handshakes)}/s, by the configuration",
        needed="-" if rate is None else f"{at_least(rate)}/s",
        verdict=Verdict.WARN if short else Verdict.OK,
        remedy="raise max_handshakes_per_second, if they are not meant to wait" if short else "",
        predicted=plan.handshakes,
        of="per_second",
    )
