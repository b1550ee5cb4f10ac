"""What a person at the terminal reads once the instance runs: how to connect, to look, and what to
try next.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wssup.config.addresses import UnixAddress
from wssup.config.settings import Settings

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["started"]


def command(settings: Settings, source: str) -> str:
    """How this person calls wssup for this instance: the options that are not what it would find by
    itself.
    """
    name = "wssup"
    found = Path(sys.argv[0])
    if found.name == name and shutil.which(name) != str(found):
        name = os.path.relpath(found) if found.is_relative_to(Path.cwd()) else str(found)
    if settings.name != "default":
        name += f" --name {settings.name}"
    if source.startswith("--"):
        name += f" --runtime-dir {settings.runtime_dir}"
    return name


def started(master: Master) -> str:
    """The text."""
    settings = master.settings
    wssup = command(settings, master.loaded.sources["runtime_dir"])
    program, _, options = wssup.partition(" ")
    tail = f" {options}" if options else ""
    addresses = "   ".join(
        str(a) if isinstance(a.where, UnixAddress) else f"ws://{a}/"
        for a in master.listeners.addresses.values()
    )
    limit, reserve, count = master.nofile.soft, settings.reserve_fds, master.fleet.count
    rows = [
        ("connect", addresses),
        (
            "capacity",
            f"{master.capacity()} connections = {count} workers × ({limit} − {reserve} files)",
        ),
        ("look", f"{program} status{tail}"),
        ("deploy", f"{program} reload{tail}        (new code, nobody refused)"),
        ("resize", f"{program} scale {count + 1}{tail}"),
        ("stop", f"Ctrl-C, or {program} stop{tail}"),
    ]
    body = "\n".join(f"  {label:<9}{text}" for label, text in rows)
    return f"\nwssup serves {settings.app}\n{body}\n"
