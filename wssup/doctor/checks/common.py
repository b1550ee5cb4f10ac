"""What checks have in common. Pure."""

from __future__ import annotations

from wssup.doctor.findings import Change, Finding, Verdict
from wssup.doctor.plan import Plan

__all__ = ["UNKNOWN_NEED", "limit", "unknown"]

UNKNOWN_NEED = "-"


def limit(
    check: str,
    plan: Plan,
    *,
    found: str,
    needed: str,
    connections: int,
    remedy: str,
    changes: tuple[Change, ...] = (),
) -> Finding:
    """The finding of a limit that lets there be so many connections: it fails if more are to be
    carried.
    """
    connections = max(0, connections)
    fails = plan.connections is not None and connections < plan.connections
    return Finding(
        check=check,
        found=found,
        needed=needed if plan.connections is not None else UNKNOWN_NEED,
        verdict=Verdict.FAIL if fails else Verdict.OK,
        remedy=remedy if fails else "",
        predicted=connections,
        changes=changes if fails else (),
    )


def unknown(check: str, why: str) -> Finding:
    """The finding where something cannot be known."""
    return Finding(check=check, found=why, needed=UNKNOWN_NEED, verdict=Verdict.UNKNOWN)
