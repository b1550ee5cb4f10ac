"""The kinds of settings that are quantities, written with a unit: durations, sizes, shares."""

from __future__ import annotations

import math

from wssup.config.kinds import Given, Kind
from wssup.config.values import (
    BadValueError,
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)

__all__ = ["Duration", "Share", "Size"]


class Duration(Kind, frozen=True):
    """A duration in seconds."""

    zero: bool = True

    def _metavar(self) -> str:
        return "TIME"

    def _description(self) -> str:
        return "duration" if self.zero else "duration above 0"

    def _read(self, value: object, _given: Given, /) -> float:
        seconds = parse_duration(value)
        if seconds == 0 and not self.zero:
            raise BadValueError("must be longer than 0", "write for example 500ms or 2s")
        return seconds

    def _show(self, value: object) -> str:
        assert isinstance(value, int | float)
        assert math.isfinite(value)
        return f'"{format_duration(value)}"'


class Size(Kind, frozen=True):
    """A number of bytes."""

    least: int
    most: int

    def _metavar(self) -> str:
        return "SIZE"

    def _description(self) -> str:
        return f"size: {format_size(self.least)} to {format_size(self.most)}"

    def _read(self, value: object, _given: Given, /) -> int:
        size = parse_size(value)
        if not self.least <= size <= self.most:
            span = f"{format_size(self.least)} to {format_size(self.most)}"
            raise BadValueError(f"not in the range {span}", f"write {span}")
        return size

    def _show(self, value: object) -> str:
        assert isinstance(value, int)
        return f'"{format_size(value)}"'


class Share(Kind, frozen=True):
    """A part of a whole, from 0 to 1."""

    def _metavar(self) -> str:
        return "SHARE"

    def _description(self) -> str:
        return "share: 0 to 1, or text in percent"

    def _read(self, value: object, _given: Given, /) -> float:
        return parse_share(value)

    def _show(self, value: object) -> str:
        assert isinstance(value, int | float)
        return f'"{format_share(value)}"'
