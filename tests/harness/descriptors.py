"""The descriptors of the tests' own process: what is open, and that nothing stays open."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_descriptors() -> dict[str, str]:
    """Their numbers, and what each of them is (``socket:[4711]``, a path).

    What another test has left is closed first: collected at some later moment, it would be missing
    then, and taken for a difference.
    """
    gc.collect()
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {path.name: str(path.readlink()) for path in links}


@contextmanager
def no_descriptors_left(*, gone: int = 0) -> Iterator[None]:
    """Fail if this process does not have as many as before.

    :param gone: so many are gone.
    """
    before = len(open_descriptors())
    yield
    assert len(open_descriptors()) == before - gone
