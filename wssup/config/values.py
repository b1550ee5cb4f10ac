"""Durations, sizes and shares as people write them: ``30s``, ``500ms``, ``64KiB``, ``1%``.

Pure functions. Each ``parse_`` has a ``format_`` whose output it reads back to the same number.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

__all__ = [
    "MAX_DURATION",
    "BadValueError",
    "format_duration",
    "format_share",
    "format_size",
    "parse_duration",
    "parse_share",
    "parse_size",
]

MAX_DURATION: Final = 365 * 86400.0
"""The longest duration in seconds: larger ones overflow the timeouts of system calls."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]+)?) ?(ms|s|m|h|d)?")
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SHARE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,400})?) ?(%)?")
_SIZE: Final = re.compile(r"([0-9]{1,18}) ?([A-Za-z]{0,8})")


class BadValueError(ValueError):
    """A value that a setting cannot have.

    :ivar problem: what is wrong with it.
    :ivar remedy: what to write instead.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy


def parse_duration(value: object) -> float:
    """The duration in seconds that a number (seconds) or a text (``500ms``, ``8h``) stands for.

    :raises BadValueError: if it is no duration, negative, not finite, or beyond `MAX_DURATION`.
    """
    remedy = 'write seconds or a number with ms, s, m, h or d: 30, "500ms", "2m"'
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise BadValueError("not a duration", remedy)
        number, unit = float(match[1]), match[2] or "s"
        # Division by 1000 is rounded correctly; a product with 0.001 is not.
        seconds = number / 1000 if unit == "ms" else number * _SECONDS[unit]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        # Written so that NaN fails, and an integer too large for a float is still compared.
        if not value >= 0:
            raise BadValueError("not a finite number of seconds from 0 up", remedy)
        if value > MAX_DURATION:
            raise BadValueError("longer than 365 days", "write at most 365d")
        seconds = float(value)
    else:
        raise BadValueError("not a duration", remedy)
    if seconds > MAX_DURATION:
        raise BadValueError("longer than 365 days", "write at most 365d")
    # -0.0 becomes 0.0, so that equal durations look equal.
    return seconds + 0.0


def format_duration(seconds: float) -> str:
    """The shortest usual text for a duration in seconds; `parse_duration` reads it back."""
    for unit in ("d", "h", "m"):
        size = _SECONDS[unit]
        if seconds >= 2 * size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    milliseconds = round(seconds * 1000)
    if 0 < seconds < 1 and milliseconds / 1000 == seconds:
        return f"{milliseconds}ms"
    # Decimal writes 1e-07 without an exponent.
    text = format(Decimal(repr(seconds)), "f")
    return f"{text.removesuffix('.0')}s"


def parse_size(value: object) -> int:
    """The number of bytes that a number or a text (``64KiB``, ``1MiB``) stands for.

    :raises BadValueError: if it is no whole number of bytes.
    """
    remedy = 'write bytes or a whole number with KiB, MiB or GiB: 65536, "64KiB"'
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise BadValueError("a size is not negative", remedy)
        return value
    if not isinstance(value, str):
        raise BadValueError("not a size", remedy)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise BadValueError("not a size", remedy)
    unit = match[2] or "B"
    if unit not in _BYTES:
        raise BadValueError(f"unknown unit {unit}", remedy)
    return int(match[1]) * _BYTES[unit]


def format_size(size: int) -> str:
    """The shortest usual text for a number of bytes; `parse_size` reads it back."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def parse_share(value: object) -> float:
    """The share of a whole, 0 to 1, that a number or a text (``0.01``, ``1%``) stands for.

    :raises BadValueError: if it is no share, or not from 0 to 1.
    """
    remedy = 'write 0 to 1, or percent: 0.01, "1%"'
    if isinstance(value, str):
        match = _SHARE.fullmatch(value.strip())
        if match is None:
            raise BadValueError("not a share", remedy)
        # In decimals: 0.7 / 100 is not the float nearest to 0.007.
        number = Decimal(match[1])
        share = float(number / 100 if match[2] else number)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        # Written so that NaN fails, and an integer too large for a float is still compared.
        if not 0 <= value <= 1:
            raise BadValueError("not from 0 to 1", remedy)
        share = float(value)
    else:
        raise BadValueError("not a share", remedy)
    if share > 1:
        raise BadValueError("not from 0 to 1", remedy)
    return share + 0.0


def format_share(share: float) -> str:
    """The share in percent; `parse_share` reads it back."""
    return f"{format((Decimal(repr(share)) * 100).normalize(), 'f')}%"
