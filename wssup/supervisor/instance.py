"""The runtime directory of an instance: one lock, one control socket, and what a dead one left
behind.

The lock (flock(2)) decides who is the instance: the kernel lets go of it when its holder dies,
however it dies, so whatever else lies in the directory while the lock can be had is left over and
may be removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from wssup.errors import InstanceError, ScoreboardError
from wssup.scoreboard import Scoreboard

__all__ = ["Instance"]

#: sun_path has 108 bytes, one of them for the final zero (unix(7)).
LONGEST_SOCKET_PATH = 107
#: How often, and after how many seconds, the lock of a master is asked for again; and for how many
#: seconds one that is only shared.
_LOCK_TRIES = 10
_LOCK_PAUSE = 0.03
_ASKERS_END = 5.0


class Instance:
    """The locked runtime directory ``<runtime_dir>/<name>``; a context manager.

    :raises InstanceError: on entering, if the directory cannot be used or another master holds it.
    """

    def __init__(self, runtime_dir: str, name: str) -> None:
        self.runtime_dir = runtime_dir
        self.name = name
        self.path = Path(runtime_dir) / name
        self.control = self.path / "control.sock"
        self.status = self.path / "status.sock"
        #: Whether a dead instance of this name was found: its workers may still be letting go of
        #: its addresses.
        self.succeeded_a_dead_one = False
        self._segment = self.path / "segment"
        self._lock = -1

    def __enter__(self) -> Self:
        if len(os.fsencode(self.control)) > LONGEST_SOCKET_PATH:
            raise InstanceError(
                f"the path of the control socket is too long for unix(7): {self.control}",
                f"name a shorter --runtime-dir ({LONGEST_SOCKET_PATH} bytes in all)",
            )
        try:
            self._make_directory()
            # The lock file is never removed: a second process could lock the removed one. And who
            # may open it may lock it and keep us from starting, so others may not.
            self._lock = os.open(
                self.path / "lock",
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o640,
            )
        except OSError as error:
            raise InstanceError(
                f"the runtime directory {self.path} cannot be used: {error.strerror}",
                "name another one with --runtime-dir or WSSUP_RUNTIME_DIR",
            ) from None
        if not self._take_lock():
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._lock)
            raise InstanceError(
                f"an instance named {self.name!r} runs already (pid {holder}, in {self.path})",
                "reload it with 'wssup reload', or start another one with --name",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self._clear_leftovers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.control.unlink(missing_ok=True)
        self._segment.unlink(missing_ok=True)
        os.ftruncate(self._lock, 0)
        os.close(self._lock)

    def record_segment(self, name: str) -> None:
        """Note the scoreboard's name, so that a successor can remove it if we cannot."""
        fresh = self._segment.with_suffix(".new")
        fresh.write_text(name + "\n")
        fresh.replace(self._segment)

    def _take_lock(self) -> bool:
        # A command that asks whether an instance runs holds the lock for an instant, shared, which
        # on a busy machine is longer; a master keeps it, and not shared.
        tries, until = _LOCK_TRIES, time.monotonic() + _ASKERS_END
        while tries and time.monotonic() < until:
            if self._lock_as(fcntl.LOCK_EX):
                return True
            if not self._lock_as(fcntl.LOCK_SH):
                tries -= 1
            else:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            time.sleep(_LOCK_PAUSE)
        return False

    def _lock_as(self, kind: int) -> bool:
        """Whether flock(2) gives the lock now."""
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _make_directory(self) -> None:
        top = Path(self.runtime_dir)
        if top.parent == Path("/tmp"):  # noqa: S108 - that is the case
            # Anybody may make a directory, or a link, of that name before us.
            top.mkdir(mode=0o700, exist_ok=True)
            found = top.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise InstanceError(
                    f"the runtime directory {top} belongs to another user",
                    "name another one with --runtime-dir or WSSUP_RUNTIME_DIR",
                )
        top.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o755, exist_ok=True)
        # Who could make files here could hold the lock, or be taken for us.
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(0, "it is not a directory")
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise InstanceError(
                f"the runtime directory {self.path} belongs to another user, or others may write"
                " to it",
                f"chown it to this user and chmod go-w {self.path}, or name another one with"
                " --runtime-dir",
            )

    def _clear_leftovers(self) -> None:
        if self.control.exists():
            self.succeeded_a_dead_one = True
            self.control.unlink()
        try:
            stale = self._segment.read_text(errors="replace").strip()
        except FileNotFoundError:
            return
        self.succeeded_a_dead_one = True
        # A damaged note names nothing that could be removed, and must not keep us from starting.
        with contextlib.suppress(ScoreboardError):
            Scoreboard.remove_stale(stale)
        self._segment.unlink()
