"""An instance that is started under a limit: of the process, of a control group, of a network."""

from __future__ import annotations

import contextlib
import ctypes
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import processes
from tests.harness.instance import Instance

__all__ = ["Limited", "control_group", "controller", "network_of"]

_CLONE_NEWNET = 0x40000000


class Limited(Instance):
    """An instance whose master is started through another command.

    :param prefix: the command that becomes the master: ``["prlimit", "--nofile=200"]``.
    """

    def __init__(
        self, home: Path, prefix: list[str], settings: dict[str, object], application: str = ""
    ) -> None:
        self._prefix = prefix
        super().__init__(home, application, settings)

    def command(self, *arguments: str) -> list[str]:
        """The command line of a subcommand; of ``serve`` with the prefix."""
        found = super().command(*arguments)
        return [*self._prefix, *found] if arguments[:1] == ("serve",) else found


def controller(name: str) -> Path | None:
    """Where groups of a controller of version 1 can be made; ``None`` if nowhere here."""
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        writable = os.access(fields[1], os.W_OK) and not os.geteuid()
        if fields[2] == "cgroup" and name in fields[3].split(",") and writable:
            return Path(fields[1])
    return None


@contextmanager
def control_group(name: str, **values: int) -> Iterator[tuple[Path, list[str]]]:
    """A control group of version 1, and the prefix that starts a command in it.

    :param values: what is written: ``pids_max`` for the file ``pids.max``.
    """
    top = controller(name)
    assert top is not None
    group = top / f"wssup-test-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    try:
        for file, value in values.items():
            (group / file.replace("_", ".", 1)).write_text(str(value))
        join = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        yield group, ["sh", "-c", join, "-"]
    finally:
        # Its processes were ended; the kernel forgets them a moment later.
        processes.until(lambda: _removed(group), 30, f"{group} to be empty")


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@contextmanager
def network_of(pid: int) -> Iterator[None]:
    """This thread's sockets are made in the network of a process (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        Path("/proc/thread-self/ns/net").open("rb") as ours,
        Path(f"/proc/{pid}/ns/net").open("rb") as theirs,
    ):
        assert libc.setns(theirs.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(ours.fileno(), _CLONE_NEWNET) == 0
