"""The names of topics."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LONGEST", "check"]

#: Bytes of UTF-8 that a name may have.
LONGEST: Final = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check(topic: object) -> str:
    """A topic's name, which is one.

    :raises TypeError: it is no string.
    :raises ValueError: it is empty, has more than `LONGEST` bytes of UTF-8, cannot be encoded, or
        contains control characters.
    """
    if not isinstance(topic, str):
        raise TypeError(f"a topic is a str, not {type(topic).__name__}")
    if not topic:
        raise ValueError("a topic's name is empty")
    try:
        size = len(topic) if topic.isascii() else len(topic.encode())
    except UnicodeEncodeError:
        raise ValueError(f"a topic's name that UTF-8 cannot hold: {topic[:40]!a}") from None
    if size > LONGEST:
        raise ValueError(f"a topic's name has {size} bytes, more than {LONGEST}: {topic[:40]!r}…")
    if _CONTROL.search(topic):
        raise ValueError(f"a topic's name contains control characters: {topic[:40]!r}")
    return topic
