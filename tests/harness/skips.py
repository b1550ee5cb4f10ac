"""The committed list of tests that may be skipped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

__all__ = ["allowed", "is_allowed"]

_LIST = Path(__file__).parents[1] / "skips.md"


@cache
def allowed(path: Path = _LIST) -> tuple[str, ...]:
    """What the first column of the table names: files, or tests in them, below ``tests/``."""
    cells = re.findall(r"^\| (`[^|]+)\|", path.read_text(), re.MULTILINE)
    return tuple(name for cell in cells for name in re.findall(r"`([^`]+\.py[^`]*)`", cell))


def is_allowed(nodeid: str) -> bool:
    """Whether a test may be skipped: it, without its parameters, or its file is in the list."""
    file, _, test = nodeid.removeprefix("tests/").partition("::")
    return file in allowed() or f"{file}::{test.partition('[')[0]}" in allowed()
