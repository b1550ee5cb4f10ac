"""What a person at the terminal reads once the instance runs: how to connect, to look, and what to
try next.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wssup.config.addresses import UnixAddress
from wssup.config.files import FILE_NAME
from wssup.config.scaling import Autoscale
from wssup.config.settings import Settings

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["started"]


def command(settings: Settings, source: str) -> tuple[str, str]:
    """How this person calls wssup for this instance: the program, and the options that say what it
    would not find by itself.

    :param source: where the runtime directory was named.
    """
    program = "wssup"
    found = Path(sys.argv[0])
    if found.name == program and shutil.which(program) != str(found):
        program = os.path.relpath(found) if found.is_relative_to(Path.cwd()) else str(found)
    options = ""
    if settings.name != "default":
        options += f" --name {settings.name}"
    # A file is found by itself if it has the usual name, or the environment names it.
    other_file = ":" in source and not source.startswith(f"{FILE_NAME}:")
    if source.startswith("--") or (other_file and not os.environ.get("WSSUP_CONFIG")):
        options += f" --runtime-dir {shlex.quote(settings.runtime_dir)}"
    return shlex.quote(program), options


def started(master: Master) -> str:
    """The text."""
    settings = master.settings
    program, tail = command(settings, master.loaded.sources["runtime_dir"])
    addresses = "   ".join(
        str(a) if isinstance(a.where, UnixAddress) else f"ws://{a}/"
        for a in master.listeners.addresses.values()
    )
    limit, reserve, count = master.nofile.soft, settings.reserve_fds, master.fleet.count
    resize = ("resize", f"{program} scale {count + 1}{tail}")
    if isinstance(settings.workers, Autoscale):
        resize = ("resize", f"by load, {settings.workers.min} to {settings.workers.max} workers")
    rows = [
        ("connect", addresses),
        (
            "capacity",
            f"{master.capacity()} connections = {count} workers × ({limit} − {reserve} files)",
        ),
        ("look", f"{program} status{tail}"),
        *([("browse", f"http://{master.observing.bind}/")] if master.observing.bind else []),
        ("deploy", f"{program} reload{tail}        (new code, nobody disconnected)"),
        resize,
        ("stop", f"Ctrl-C, or {program} stop{tail}"),
    ]
    body = "\n".join(f"  {label:<9}{text}" for label, text in rows)
    return f"\nwssup serves {settings.app}\n{body}\n"
