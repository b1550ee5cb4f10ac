"""The whole result as a document for programs, and in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from wssup.doctor.facts import Facts
from wssup.doctor.findings import Finding, Verdict, binding, ordered, overall
from wssup.doctor.plan import Plan
from wssup.doctor.served import Server
from wssup.doctor.words import number

__all__ = ["SCHEMA", "document", "summary"]

SCHEMA: Final = 1


def document(
    findings: Sequence[Finding], plan: Plan, facts: Facts, server: Server | None
) -> dict[str, Any]:
    """JSON-like data. ``predicted`` is how many connections there can be, and what limits them."""
    first = binding(findings)
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": overall(findings),
        "connections": plan.connections,
        "predicted": {"connections": first.predicted, "limit": first.check} if first else None,
        "findings": msgspec.to_builtins(ordered(findings)),
        "plan": msgspec.to_builtins(plan),
        "facts": msgspec.to_builtins(facts),
    }
    if server is not None:
        found["server"] = msgspec.to_builtins(server)
    return found


def summary(findings: Sequence[Finding], plan: Plan) -> str:
    """How many connections there can be, and what is met first."""
    first = binding(findings)
    if first is None or first.predicted is None:
        return "How many connections there can be is not known: see what is unknown."
    count = number(first.predicted)
    limits = f"{first.check} is what limits them"
    broken = [f for f in findings if f.verdict is Verdict.FAIL]
    if plan.connections is None:
        return f"{count} connections can be carried; {limits}."
    wanted = number(plan.connections)
    if first.predicted < plan.connections:
        return f"{wanted} connections do not fit: {count} can be carried; {limits}."
    if broken:
        return f"{wanted} connections are not carried well: {ordered(findings)[0].check}."
    return f"{wanted} connections fit: {count} can be carried; {limits}."
