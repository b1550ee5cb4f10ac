"""What checks find, which of it comes first, and what it comes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Literal

import msgspec

__all__ = ["Change", "Finding", "Verdict", "binding", "ordered", "overall"]


class Verdict(StrEnum):
    """What a check comes to, from good to bad."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARN = "warn"
    FAIL = "fail"


_BADNESS = {verdict: rank for rank, verdict in enumerate(Verdict)}


class Change(msgspec.Struct, frozen=True):
    """A line of a file that mends it.

    :ivar file: a sysctl.d file, a limits.d file, or a drop-in of the service's unit.
    """

    file: Literal["sysctl", "limits", "unit"]
    key: str
    value: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A check and what it found; texts are for people.

    :ivar check: its name, which stays.
    :ivar needed: for what is to be carried; ``-`` if nobody said how much that is.
    :ivar remedy: what to do, to the letter; empty if there is nothing to do.
    :ivar predicted: how many there can be; ``None`` if it limits no number.
    :ivar of: of what: ``connections`` of the instance; ``waiting``: connects that wait to be
        accepted; ``per_second``: connects.
    :ivar changes: what ``--fix`` prints.
    """

    check: str
    found: str
    needed: str
    verdict: Verdict
    remedy: str = ""
    predicted: int | None = None
    of: Literal["connections", "waiting", "per_second"] = "connections"
    changes: tuple[Change, ...] = ()


def binding(findings: Iterable[Finding]) -> Finding | None:
    """The limit that is met first; of equal ones the first of the table."""
    counted = [f for f in findings if f.predicted is not None and f.of == "connections"]
    return min(counted, key=lambda finding: finding.predicted or 0, default=None)


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """What fails comes first, what fails earliest before the rest; then the limit that is met
    first, then what else to look at.
    """
    first = binding(findings)

    def rank(finding: Finding) -> tuple[bool, float, bool, int]:
        fails = finding.verdict is Verdict.FAIL
        count = finding.predicted if finding.of == "connections" else None
        met = (-1.0 if count is None else float(count)) if fails else 0.0
        return (not fails, met, finding is not first, -_BADNESS[finding.verdict])

    return sorted(findings, key=rank)


def overall(findings: Iterable[Finding]) -> Verdict:
    """``fail`` if something will fail, ``warn`` if there is something to look at. What is unknown
    is neither.
    """
    verdicts = {finding.verdict for finding in findings}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.WARN if Verdict.WARN in verdicts else Verdict.OK
