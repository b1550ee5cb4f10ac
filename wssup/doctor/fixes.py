"""Renders what findings would have changed: files that are printed, and never written. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from wssup.doctor.findings import Change, Finding

__all__ = ["Fix", "fixes"]

_SYSCTL: Final = "/etc/sysctl.d/60-wssup.conf"
_LIMITS: Final = "/etc/security/limits.d/60-wssup.conf"
_NOTHING: Final = "# Nothing has to change here.\n"


class Fix(NamedTuple):
    """A file.

    :ivar path: where it belongs.
    """

    path: str
    text: str


def fixes(findings: Iterable[Finding], *, user: str, unit: str) -> list[Fix]:
    """The three files, also those that nothing has to change in.

    :param user: who runs the service; ``unit``: its unit.
    """
    changes: dict[tuple[str, str], str] = {}
    for finding in findings:
        for change in finding.changes:
            where = (change.file, change.key)
            changes[where] = _greater(changes.get(where), change)
    sysctl = [f"{key} = {value}\n" for (file, key), value in changes.items() if file == "sysctl"]
    # pam_limits(8): "-" sets both, the soft and the hard one.
    limits = [
        f"{user} - {key} {value}\n" for (file, key), value in changes.items() if file == "limits"
    ]
    lines = [f"{key}={value}\n" for (file, key), value in changes.items() if file == "unit"]
    return [
        Fix(
            _SYSCTL,
            "# Applied at boot, or now: sysctl --system. Listeners keep their queues until a "
            "restart.\n" + ("".join(sysctl) or _NOTHING),
        ),
        Fix(
            _LIMITS,
            "# For login sessions (pam_limits); services have the drop-in below. Log in again.\n"
            + ("".join(limits) or _NOTHING),
        ),
        Fix(
            f"/etc/systemd/system/{unit}.d/60-doctor.conf",
            f"# Then: systemctl daemon-reload && systemctl restart {unit}\n"
            + (f"[Service]\n{''.join(lines)}" if lines else _NOTHING),
        ),
    ]


def _greater(before: str | None, change: Change) -> str:
    """Two checks may want the same: the greater number is enough for both."""
    if before is None or not (before.isdigit() and change.value.isdigit()):
        return change.value
    return max(before, change.value, key=int)
