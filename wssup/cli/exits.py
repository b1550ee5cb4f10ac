"""Exit statuses of the ``wssup`` command."""

from __future__ import annotations

from typing import Final

from wssup.errors import CommandError, UserError

__all__ = ["FAILED", "INTERRUPTED", "NOT_RUNNING", "OK", "UNKNOWN", "USAGE", "exit_status"]

OK: Final = 0
FAILED: Final = 1
"""The instance refused the command, or rolled it back."""
USAGE: Final = 2
"""A mistake in the command or the configuration; nothing was done."""
NOT_RUNNING: Final = 3
"""No instance of that name runs (as ``systemctl status`` says it)."""
UNKNOWN: Final = 4
"""An instance is there but does not answer."""
INTERRUPTED: Final = 130
"""Ctrl-C: 128 + SIGINT, as shells report it."""

_BY_CODE: Final = {"not_running": NOT_RUNNING, "no_answer": UNKNOWN}


def exit_status(error: UserError) -> int:
    """The exit status for an error that ends a command."""
    if isinstance(error, CommandError):
        return _BY_CODE.get(error.code, FAILED)
    return USAGE
