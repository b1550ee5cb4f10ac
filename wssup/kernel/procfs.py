"""What /proc tells of a process (proc(5)).

Everything here is ``None`` where this user may not know it: a process of another user, or one that
changed its user, shows its descriptors to root alone. A process that is gone is a
``ProcessLookupError``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "Descriptor",
    "Limit",
    "Status",
    "children",
    "command_line",
    "counters",
    "descriptors",
    "everybody",
    "family",
    "limits",
    "open_descriptors",
    "owners",
    "protocol",
    "resident",
    "status",
]

_KIB: Final = 1024
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = 256
"""statm has seven numbers."""
_LONGEST: Final = 200
"""Characters of a command line that are shown."""
_ENDED: Final = ("Z", "X")
"""States of a process that has nothing any more."""
_LIMIT_NAME: Final = 26
"""/proc/PID/limits: a name fills as many characters."""


class Descriptor(NamedTuple):
    """An open descriptor.

    :ivar kind: ``socket``, ``pipe``, ``file``, or what the kernel names it: ``eventpoll``,
        ``eventfd``, ``pidfd``…
    :ivar inode: of a socket or a pipe; 0 of others.
    """

    kind: str
    inode: int


class Limit(NamedTuple):
    """A resource limit (getrlimit(2)); ``None``: unlimited."""

    soft: int | None
    hard: int | None


class Status(NamedTuple):
    """A process at one moment.

    :ivar rss: resident memory in bytes; shared pages count in full.
    :ivar uid: the effective user.
    """

    name: str
    state: str
    parent: int
    uid: int
    threads: int
    rss: int


def descriptors(pid: int) -> dict[int, Descriptor] | None:
    """All open descriptors of a process; those that it closes meanwhile may be missing."""
    try:
        directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = _listed(directory)
        finally:
            os.close(directory)
    except PermissionError:
        found = None
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    if not found:
        # One that has ended and waits for its parent has none, which root alone is shown.
        seen = status(pid)
        if seen is not None and seen.state in _ENDED:
            raise ProcessLookupError(f"process {pid} has ended")
    return found


def owners(inodes: Iterable[int]) -> dict[int, list[int]]:
    """The processes that have these sockets, by inode, in one pass over all processes. Those that
    are not shown to this user are missing.
    """
    wanted = set(inodes)
    found: dict[int, list[int]] = {}
    for pid in everybody() if wanted else ():
        with suppress(OSError):  # it ended
            its = descriptors(pid) or {}
            for inode in wanted.intersection(i for kind, i in its.values() if kind == "socket"):
                found.setdefault(inode, []).append(pid)
    return found


def everybody() -> list[int]:
    """All processes that can be seen."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def open_descriptors(pid: int) -> int | None:
    """How many descriptors a process has open; ``None``, too, if it is gone."""
    directory = Path(f"/proc/{pid}/fd")
    try:
        # Since Linux 6.2 the size of the directory is the number; it was 0 before.
        return directory.stat().st_size or sum(1 for _ in directory.iterdir())
    except OSError:
        return None


def resident(pid: int) -> int | None:
    """The resident memory of a process in bytes, by three system calls; shared pages count in full.
    0: it is gone, or a zombie.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:
        return None
    try:
        return int(os.read(descriptor, _STATM).split()[1]) * _PAGE
    except ProcessLookupError:  # it ended since
        return 0
    finally:
        os.close(descriptor)


def _listed(directory: int) -> dict[int, Descriptor]:
    """The descriptors in a directory.

    :raises FileNotFoundError: the process has ended since the directory was opened.
    """
    found = {}
    for name in os.listdir(directory):
        with suppress(FileNotFoundError):  # closed since
            found[int(name)] = _descriptor(os.readlink(name, dir_fd=directory))
    return found


def _descriptor(link: str) -> Descriptor:
    """``socket:[4711]``, ``pipe:[4711]``, ``anon_inode:[eventpoll]``, ``anon_inode:inotify``, or a
    path.
    """
    if link.startswith("socket:["):  # nearly all of a busy server's
        return Descriptor("socket", int(link[8:-1]))
    if link.startswith("/"):
        return Descriptor("file", 0)
    kind, _, rest = link.partition(":")
    rest = rest.strip("[]")
    return Descriptor(kind, int(rest)) if rest.isdigit() else Descriptor(rest, 0)


def protocol(pid: int, descriptor: int, inode: int) -> str:
    """The protocol of a socket, also of one in no table: ``TCP``, ``TCPv6``, ``UNIX-STREAM``…

    :param inode: the socket's. Empty if the descriptor is another one's by now, or cannot be seen.
    """
    path = f"/proc/{pid}/fd/{descriptor}"
    try:
        if os.readlink(path) != f"socket:[{inode}]":  # noqa: PTH115 - it is no path
            return ""
        return os.getxattr(path, "system.sockprotoname").rstrip(b"\0").decode("ascii", "replace")
    except OSError:
        return ""


def limits(pid: int) -> dict[str, Limit] | None:
    """All limits of a process by the names that /proc/PID/limits has: ``Max open files``…"""
    text = _read(pid, "limits")
    if text is None:
        return None
    found = {}
    for line in text.splitlines()[1:]:
        soft, hard = line[_LIMIT_NAME:].split()[:2]
        found[line[:_LIMIT_NAME].strip()] = Limit(_limit(soft), _limit(hard))
    return found


def _limit(text: str) -> int | None:
    return None if text == "unlimited" else int(text)


def status(pid: int) -> Status | None:
    """Memory, threads and user of a process."""
    text = _read(pid, "status")
    if text is None:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return Status(
        name=fields["Name"].strip(),
        state=fields["State"].split()[0],
        parent=int(fields["PPid"]),
        uid=int(fields["Uid"].split()[1]),
        threads=int(fields["Threads"]),
        # A zombie has no memory and no such line.
        rss=int(fields["VmRSS"].split()[0]) * _KIB if "VmRSS" in fields else 0,
    )


def children(pid: int) -> list[int] | None:
    """The processes that a process forked or adopted, in the order of their birth."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread ended
                found += map(int, (task / "children").read_text().split())
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    except PermissionError:
        return None
    return found


def family(pid: int) -> list[int]:
    """A process and its descendants that can be seen, parents first.

    :raises ProcessLookupError: there is no such process.
    """
    found = [pid]
    waiting = children(pid) or []
    while waiting:
        one = waiting.pop(0)
        found.append(one)
        with suppress(ProcessLookupError):
            waiting += children(one) or []
    return found


def command_line(pid: int) -> str | None:
    """The command line of a process, cut where it is long; its name in brackets if it has none.
    What it holds is the process's own choice: who shows it escapes it (cli/text.py).
    """
    text = _read(pid, "cmdline")
    if text is None:
        return None
    shown = text.replace("\0", " ").strip() or f"[{(_read(pid, 'comm') or '').strip()}]"
    return shown[:_LONGEST]


def counters(pid: int | None = None) -> dict[str, int]:
    """The kernel's counters of IP and TCP in the network namespace of a process (this one):
    /proc/net/netstat and snmp, as ``TcpExt.ListenOverflows`` and ``Tcp.CurrEstab``.
    """
    found: dict[str, int] = {}
    directory = Path("/proc", "self" if pid is None else str(pid), "net")
    for name in ("snmp", "netstat"):
        lines = (directory / name).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            group, _, heads = names.partition(":")
            keys = (f"{group}.{head}" for head in heads.split())
            found |= zip(keys, map(int, values.partition(":")[2].split()), strict=False)
    return found


def _read(pid: int, name: str) -> str | None:
    try:
        return Path(f"/proc/{pid}/{name}").read_text("utf-8", "replace")
    except PermissionError:
        return None
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
