"""Where an instance lives if nobody says: the current directory and the runtime directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from wssup.errors import UserError

__all__ = ["default_runtime_dir", "working_directory"]


def working_directory(environ: Mapping[str, str]) -> str:
    """The current directory, absolute, with the links through which the shell went there.

    getcwd(2) resolves links; ``$PWD`` keeps them (POSIX, "Environment Variables"), so that
    ``releases/current`` still names the newest release at the next reload.

    :raises UserError: if the current directory was removed.
    """
    logical = environ.get("PWD", "")
    try:
        physical = Path.cwd()
    except FileNotFoundError:
        raise UserError("the current directory no longer exists", "change to another") from None
    try:
        # Components "." and ".." are not what a shell puts into PWD; they would not stay true.
        if logical.startswith("/") and not {".", ".."} & set(logical.split("/")):
            here = Path(logical)
            if here.samefile(physical):
                return str(here)
    except OSError:
        # PWD is only a hint: the caller may have left it stale or made it up.
        return str(physical)
    return str(physical)


def default_runtime_dir(environ: Mapping[str, str]) -> tuple[str, str]:
    """The runtime directory if no setting names one, and the source it comes from.

    The order: ``$RUNTIME_DIRECTORY`` (systemd.exec(5): directories separated by colons; the first
    counts), ``/run/wssup`` for root, ``$XDG_RUNTIME_DIR/wssup`` (XDG Base Directory Specification:
    relative paths are to be ignored), ``/tmp/wssup-UID``.
    """
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return given, "RUNTIME_DIRECTORY"
    user = os.geteuid()
    if user == 0:
        return "/run/wssup", "default"
    session = environ.get("XDG_RUNTIME_DIR", "")
    if session.startswith("/"):
        return str(Path(session) / "wssup"), "XDG_RUNTIME_DIR"
    return f"/tmp/wssup-{user}", "default"  # noqa: S108 - the master checks who owns it
