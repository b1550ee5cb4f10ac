"""Making, attaching and removing the shared memory (shm_overview(7)).

The standard library's resource tracker must never hear of the segment. It is a process of its own
that unlinks what it knows when its starter dies or calls exec; the segment has to survive both, to
be read after a crash, and to be cleaned up by whoever starts the instance next.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import sys
from collections.abc import Iterator, Sized
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Final

from wssup.errors import InstanceError, ScoreboardError
from wssup.scoreboard.layout import CELL

PREFIX: Final = "wssup-"
DIRECTORY: Final = Path("/dev/shm")  # noqa: S108 - where shm_open(3) puts segments on Linux

# What tmpfs(5) says when it has no room: its size, its quota, or the memory of the control group.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM})


class _Mapping(SharedMemory):
    """A mapping that is silent when it is collected while views of it still live.

    The base class would print a BufferError. The views keep the memory mapped, and the kernel
    unmaps it when the process ends.
    """

    def __del__(self) -> None:
        with contextlib.suppress(OSError, BufferError):
            self.close()


@contextlib.contextmanager
def _untracked() -> Iterator[None]:
    """Keep SharedMemory's constructor off the resource tracker, as ``track=False`` does in 3.13.

    Not safe beside a thread that makes SharedMemory objects; master and zygote have no such thread.
    """

    def ignore(name: Sized, rtype: str) -> None:
        """Take no notice."""

    register, unregister = resource_tracker.register, resource_tracker.unregister
    resource_tracker.register = resource_tracker.unregister = ignore
    try:
        yield
    finally:
        resource_tracker.register, resource_tracker.unregister = register, unregister


def _map(name: str, *, create: bool = False, size: int = 0) -> _Mapping:
    """Open and map a segment with mode 0600, which is SharedMemory's own."""
    if sys.version_info >= (3, 13):
        return _Mapping(name, create=create, size=size, track=False)
    with _untracked():
        return _Mapping(name, create=create, size=size)


def segment_name(instance: str, runtime_dir: str | os.PathLike[str]) -> str:
    """A new name: the instance, a hash of its runtime directory, and a nonce."""
    place = hashlib.blake2b(os.fsencode(runtime_dir), digest_size=4).hexdigest()
    return f"{PREFIX}{instance}-{place}-{secrets.token_hex(4)}"


def remove(name: str) -> None:
    """Remove a segment's name, if it exists; the memory goes with its last mapping.

    :raises ScoreboardError: the name is not one that wssup gives.
    :raises InstanceError: the segment belongs to another user.
    """
    path = _path(name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InstanceError(
            f"cannot remove the scoreboard {path}: {error.strerror}",
            "remove it as its owner or as root",
        ) from error


def _path(name: str) -> Path:
    if not name.startswith(PREFIX) or "/" in name or "\0" in name:
        raise ScoreboardError(f"{name!r} is not the name of a scoreboard")
    return DIRECTORY / name


class Segment:
    """Mapped shared memory.

    :ivar name: its file's name in /dev/shm.
    :ivar size: bytes.
    :ivar cells: all of it as native unsigned 64-bit integers.
    """

    __slots__ = ("_mapping", "cells", "name", "size")

    def __init__(self, mapping: _Mapping) -> None:
        self._mapping = mapping
        self.name = mapping.name
        self.size = mapping.size
        whole = mapping.buf
        assert whole is not None  # it is, until close()
        self.cells = whole[: mapping.size // CELL * CELL].cast("Q")

    @classmethod
    def create(cls, name: str, size: int) -> Segment:
        """Make a segment of zeros, readable by its owner only, and reserve its memory.

        tmpfs gives memory out at the first write and answers a write that it has no room for with
        SIGBUS; fallocate(2) takes all of it now and fails with an error instead.

        :raises InstanceError: /dev/shm is full, missing or closed to this user.
        """
        try:
            mapping = _map(name, create=True, size=size)
        except OSError as error:
            raise _cannot_create(name, size, error) from error
        try:
            descriptor = os.open(_path(name), os.O_RDWR | os.O_CLOEXEC)
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            mapping.close()
            remove(name)
            raise _cannot_create(name, size, error) from error
        return cls(mapping)

    @classmethod
    def attach(cls, name: str) -> Segment:
        """Map an existing segment.

        :raises ScoreboardError: there is none of that name, it is empty, or it may not be opened.
        """
        _path(name)
        try:
            return cls(_map(name))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ScoreboardError(f"cannot attach the scoreboard {name!r}: {reason}") from error
        except ValueError as error:  # mmap refuses an empty file
            raise ScoreboardError(f"the scoreboard {name!r} is empty") from error

    def close(self) -> None:
        """Unmap it from this process. Views of :attr:`cells` must have been released before."""
        self.cells.release()
        self._mapping.close()

    def unlink(self) -> None:
        """Remove its name, also after :meth:`close`."""
        remove(self.name)


def _cannot_create(name: str, size: int, error: OSError) -> InstanceError:
    if error.errno in _NO_ROOM:
        return InstanceError(
            f"{DIRECTORY} is full: {size} bytes needed for the scoreboard {name}",
            f"free space there or enlarge it (mount -o remount,size=… {DIRECTORY})",
        )
    return InstanceError(
        f"cannot create the scoreboard {name} in {DIRECTORY}: {error.strerror}",
        f"{DIRECTORY} must be a tmpfs that this user can write to",
    )
