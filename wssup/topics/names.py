"""The names of topics, and of their members."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LONGEST", "check"]

#: Bytes of UTF-8 that a name may have.
LONGEST: Final = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check(name: object, what: str = "topic") -> str:
    """The name of a topic, which is one.

    :param what: whose name it is.
    :raises TypeError: it is no string.
    :raises ValueError: it is empty, has more than `LONGEST` bytes of UTF-8, cannot be encoded, or
        contains control characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"a {what} is a str, not {type(name).__name__}")
    if not name:
        raise ValueError(f"a {what}'s name is empty")
    try:
        size = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"a {what}'s name that UTF-8 cannot hold: {name[:40]!a}") from None
    if size > LONGEST:
        raise ValueError(f"a {what}'s name has {size} bytes, more than {LONGEST}: {name[:40]!r}…")
    if _CONTROL.search(name):
        raise ValueError(f"a {what}'s name contains control characters: {name[:40]!r}")
    return name
