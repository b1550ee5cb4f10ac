"""Text for people: safe to print, and numbers as they read them.

Pure functions.
"""

from __future__ import annotations

__all__ = ["ago", "count", "milliseconds", "one_line", "safe", "size"]


def safe(text: str) -> str:
    r"""`text` without anything that acts on a terminal; lines stay lines.

    What came from elsewhere (an application's error, another process) may hold escape sequences or
    characters that reverse the reading order. They are shown as ``\x1b``, not sent.
    """
    return "".join(
        char if char == "\n" or char.isprintable() else _escaped(char)
        for char in text.replace("\r\n", "\n").expandtabs(4)
    )


def one_line(text: str) -> str:
    """`text` as `safe` gives it, in one line."""
    return safe(text).replace("\n", "\\n")


def _escaped(char: str) -> str:
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def count(number: int) -> str:
    """A whole number with its thousands apart: ``1,001,700``."""
    return f"{number:,}"


def milliseconds(value: float) -> str:
    """A short span in whole milliseconds, or in tenths below ten: ``12 ms``, ``0.3 ms``."""
    return f"{value:.1f} ms" if value < 9.95 else f"{value:.0f} ms"


def size(number: int) -> str:
    """Bytes in the largest unit that leaves a whole figure: ``512``, ``12 KiB``, ``3.4 MiB``."""
    value = float(number)
    for unit in ("", " KiB", " MiB", " GiB"):
        if value < 1024 or unit == " GiB":
            return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"
        value /= 1024
    raise AssertionError


def ago(seconds: float | None) -> str:
    """A span of time in its two largest units: ``12s``, ``3h 05m``, ``2d 04h``; a dash for None."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}h"
    if hours:
        return f"{hours}h {minute:02}m"
    if minutes:
        return f"{minutes}m {second:02}s"
    return f"{second}s"
