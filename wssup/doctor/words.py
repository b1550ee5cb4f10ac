"""Numbers as remedies and tables have them. Pure."""

from __future__ import annotations

__all__ = ["at_least", "number", "rounded", "size"]


def number(value: int) -> str:
    """``39,872``."""
    return f"{value:,}"


def size(value: float) -> str:
    """Bytes: ``512 B``, ``3.4 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return (
                f"{value:,.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
            )
        value /= 1024
    raise AssertionError


def at_least(value: float) -> str:
    """``≥ 20,128``."""
    return f"≥ {number(-int(-value // 1))}"


def rounded(value: int, most: int | None = None) -> int:
    """A number to set: not below `value`, with two digits that say something.

    :param most: what it cannot be set beyond, if that is enough.
    """
    step = int(10 ** max(0, len(str(value)) - 2))
    found = -(-value // step) * step
    return found if most is None or value > most else min(found, most)
