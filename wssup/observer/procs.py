"""What processes take of the machine, from /proc (proc(5)): memory and descriptors.

Three system calls for a number, no parsing of long files: 70 processes take about 2 ms.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["ProcessSample", "sample"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
#: statm has seven numbers.
_STATM: Final = 256


class ProcessSample(NamedTuple):
    """A process at one moment. ``None``: this user may not know.

    :ivar rss: resident memory in bytes; shared pages count in full.
    :ivar open_fds: open descriptors; ``max_fds``: how many it may have (RLIMIT_NOFILE, soft).
    """

    rss: int | None
    open_fds: int | None
    max_fds: int | None


def sample(pid: int) -> ProcessSample | None:
    """A process now; ``None`` if it is gone, or a zombie, which has neither."""
    rss = _rss(pid)
    if rss == 0:
        return None
    return ProcessSample(rss, _open_fds(pid), _max_fds(pid))


def _rss(pid: int) -> int | None:
    """Bytes; 0: it is gone."""
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


def _open_fds(pid: int) -> int | None:
    """Since Linux 6.2 the size of the directory is the number; it was 0 before."""
    directory = Path(f"/proc/{pid}/fd")
    try:
        return directory.stat().st_size or sum(1 for _ in directory.iterdir())
    except OSError:
        return None


def _max_fds(pid: int) -> int | None:
    try:
        return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except OSError:
        return None
