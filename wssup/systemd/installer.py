"""Writes the units to their places, and removes them. An edited file is left as it is."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from wssup.errors import CommandError
from wssup.systemd.render import KINDS, Choices, render, seal, seal_of

__all__ = [
    "Outcome",
    "Step",
    "exposure",
    "install",
    "installed",
    "is_live",
    "program",
    "running",
    "settle",
    "state_of",
    "text_of",
    "uninstall",
    "unreachable",
    "verified",
]

_UNITS = "etc/systemd/system"
#: Below the prefix. A socket unit is of one instance, if one is named.
_PLACES = {
    "service": f"{_UNITS}/wssup@.service",
    "socket": f"{_UNITS}/wssup@{{instance}}.socket",
    "sysusers": "etc/sysusers.d/wssup.conf",
    "sysctl": "etc/sysctl.d/60-wssup.conf",
    "notify-reload": f"{_UNITS}/wssup@.service.d/notify-reload.conf",
    "low-ports": f"{_UNITS}/wssup@.service.d/low-ports.conf",
}
#: Seconds for a command of systemd's.
_PATIENCE = 60.0


class Outcome(StrEnum):
    """What became of a file."""

    WRITTEN = "written"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


class Step(NamedTuple):
    """A file and what became of it."""

    outcome: Outcome
    path: Path


def program() -> tuple[str, ...]:
    """The command line of the wssup that runs now.

    A link to it (pipx and uv put one on the path) is followed, so that the unit names what it runs.
    """
    called = shutil.which(sys.argv[0])
    if called is not None and Path(called).name == "wssup":
        return (str(Path(called).resolve()),)
    beside = Path(sys.executable).absolute().with_name("wssup")
    if beside.exists():
        return (str(beside),)
    return (str(Path(sys.executable).absolute()), "-m", "wssup")


def unreachable(paths: Iterable[str], user: str) -> str:
    """The first directory or file on the way to these that a user may not pass; empty if there is
    none. A user that does not exist yet is nobody special.
    """
    try:
        entry = pwd.getpwnam(user)
        groups = set(os.getgrouplist(user, entry.pw_gid))
        number = entry.pw_uid
    except KeyError:
        number, groups = -1, set[int]()
    if number == 0:
        return ""
    for path in paths:
        real = Path(path).resolve()
        for place in (*reversed(real.parents), real):
            found = place.stat()
            wanted = stat.S_IXOTH
            if found.st_uid == number:
                wanted = stat.S_IXUSR
            elif found.st_gid in groups:
                wanted = stat.S_IXGRP
            if not found.st_mode & wanted:
                return str(place)
    return ""


def text_of(kind: str, choices: Choices, workers: int) -> str:
    """A file as it is written."""
    template = files("wssup.systemd").joinpath(f"{kind}.in").read_text("utf-8")
    return seal(render(kind, template, choices, workers=workers))


def install(
    prefix: Path,
    choices: Choices,
    kinds: Sequence[str],
    *,
    workers: int,
    instance: str = "",
    force: bool = False,
) -> list[Step]:
    """Write files below a prefix: all, or none if one of them was edited.

    :raises CommandError: naming what was edited, or what cannot be written.
    """
    wanted = {
        prefix / _PLACES[kind].format(instance=instance): text_of(kind, choices, workers)
        for kind in KINDS
        if kind in kinds
    }
    if not force:
        _check_unedited(wanted)
    steps: list[Step] = []
    try:
        for path, text in wanted.items():
            there = os.path.lexists(path)
            if there and not path.is_symlink() and path.read_bytes() == text.encode():
                steps.append(Step(Outcome.UNCHANGED, path))
                continue
            _write(path, text)
            steps.append(Step(Outcome.REPLACED if there else Outcome.WRITTEN, path))
    except OSError as error:
        raise _cannot(error) from error
    return steps


def installed(prefix: Path) -> list[Path]:
    """Files that are there in the places of ours."""
    found: list[Path] = []
    for kind in KINDS:
        place = _PLACES[kind].format(instance="*")
        found += sorted(p for p in prefix.glob(place) if os.path.lexists(p))
    return found


def state_of(path: Path) -> str:
    """Whether an installed file is as it was written: ``ours``, ``edited`` or ``foreign``."""
    whose = None if path.is_symlink() else seal_of(path.read_text("utf-8", "surrogateescape"))
    return {None: "foreign", True: "ours", False: "edited"}[whose]


def uninstall(prefix: Path, *, force: bool = False) -> list[Step]:
    """Remove what was installed, links that enabled it, and folders that held nothing else.

    :raises CommandError: if a file was edited; nothing is removed then.
    """
    ours = installed(prefix)
    if not force:
        _check_unedited(ours)
    links = list(_links(prefix))
    try:
        for path in (*ours, *links):
            path.unlink()
        for place in _folders(prefix, (*ours, *links)):
            with contextlib.suppress(OSError):
                place.rmdir()
    except OSError as error:
        raise _cannot(error) from error
    return [Step(Outcome.REMOVED, path) for path in (*ours, *links)]


def is_live(prefix: Path) -> bool:
    """Whether a prefix is the running system's, and systemd runs it."""
    return prefix == Path("/") and Path("/run/systemd/system").is_dir()


def settle(steps: Sequence[Step]) -> list[str]:
    """Have the running systemd take note of what changed; the commands that were run.

    :raises CommandError: if one of them fails.
    """
    changed = [s for s in steps if s.outcome is not Outcome.UNCHANGED]
    ran: list[str] = []
    for outcome, path in changed:
        if path.parent.name == "sysusers.d" and outcome is not Outcome.REMOVED:
            ran.append(_run("systemd-sysusers", str(path)))
    if changed:
        ran.append(_run("systemctl", "daemon-reload"))
    return ran


def running() -> list[str]:
    """Units of ours that systemd runs."""
    listed = _ask("systemctl", "list-units", "--plain", "--no-legend", "wssup@*").stdout
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


def verified(paths: Sequence[Path]) -> str:
    """What ``systemd-analyze verify`` finds wrong with unit files; empty if nothing.

    :raises CommandError: if there is no systemd-analyze.
    """
    done = _ask("systemd-analyze", "verify", *map(str, paths))
    return (done.stdout + done.stderr).strip() if done.returncode or done.stderr.strip() else ""


def exposure(path: Path) -> float:
    """What ``systemd-analyze security`` makes of a service file, from 0 to 10.

    :raises CommandError: if there is no systemd-analyze that can look at files (250).
    """
    done = _ask("systemd-analyze", "security", "--offline=true", "--no-pager", str(path))
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if found is None:
        raise CommandError(
            "refused", f"systemd-analyze security: {done.stderr.strip() or 'no answer'}"
        )
    return float(found[1])


def _check_unedited(paths: Iterable[Path]) -> None:
    for path in paths:
        if not os.path.lexists(path):
            continue
        state = state_of(path)
        if state == "foreign":
            raise CommandError(
                "refused",
                f"{path} is not of wssup's making",
                "move it away, or give --force; changes of units belong into drop-ins",
            )
        if state == "edited":
            raise CommandError(
                "refused",
                f"{path} was edited",
                "keep the changes in a drop-in (systemctl edit), then give --force",
            )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, "utf-8")
    fresh.chmod(0o644)
    fresh.replace(path)


def _links(prefix: Path) -> Iterator[Path]:
    """Links by which systemctl enabled instances of ours."""
    for kind in ("service", "socket"):
        for pattern in (f"*.wants/wssup@*.{kind}", f"*.requires/wssup@*.{kind}"):
            yield from (p for p in sorted((prefix / _UNITS).glob(pattern)) if p.is_symlink())


def _folders(prefix: Path, paths: Sequence[Path]) -> list[Path]:
    """Folders that may be of our making, the deepest first: those of the system are not."""
    own = {path.parent for path in paths if path.parent.suffix in {".d", ".wants", ".requires"}}
    own -= {prefix / "etc/sysusers.d", prefix / "etc/sysctl.d"}
    if prefix != Path("/"):
        for path in paths:
            own |= {p for p in path.parents if p != prefix and p.is_relative_to(prefix)}
    return sorted(own, key=lambda p: -len(p.parts))


def _cannot(error: OSError) -> CommandError:
    return CommandError(
        "refused",
        f"{error.filename}: {error.strerror}",
        "run it as root, or name a folder with --prefix",
    )


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - commands of systemd's, with our own arguments
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
            env=os.environ | {"SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError("refused", f"{command[0]}: {error}") from None


def _run(*command: str) -> str:
    done = _ask(*command)
    line = " ".join(command)
    if done.returncode:
        raise CommandError("refused", f"{line}: {done.stderr.strip()}", "the files are written")
    return line
