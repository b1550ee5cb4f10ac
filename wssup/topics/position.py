"""Where a client stands in a topic, as text that it can keep and give back. Pure.

A position says of each publisher how far its messages of one topic have been delivered: its
*marks*, the highest sequence by source. As a token that is ::

    1~0a1b2c3d.4.1f.5.a0~99887766.1.3

a version, then for each instance its random name, and for each of its workers the serial number and
the sequence in hexadecimal. All its characters may stand in a URL and a cookie as they are. It is
no secret and nobody has to trust it: whoever forges one gets messages of a topic to which it may
subscribe anyway, or misses some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["LONGEST", "PositionError", "decode", "encode"]

#: Characters that a token may have.
LONGEST: Final = 4096
_VERSION: Final = "1"
_TOKEN: Final = re.compile(
    r"1(?:~[0-9a-f]{8}(?:\.(?:0|[1-9][0-9]{0,9})\.(?:0|[1-9a-f][0-9a-f]{0,14}))+)*", re.ASCII
)


class PositionError(ValueError):
    """A text that is no position: it was made by somebody else, or cut."""


def encode(marks: Mapping[str, int]) -> str:
    """The token of these marks, the same for the same marks.

    :param marks: the highest sequence by source, ``NODE.SERIAL``.
    :raises PositionError: the token would be longer than `LONGEST`.
    """
    parts = [_VERSION]
    node = ""
    for source in sorted(marks):
        if source[:8] != node:
            node = source[:8]
            parts.append(f"~{node}")
        parts.append(f"{source[8:]}.{marks[source]:x}")
    token = "".join(parts)
    if len(token) > LONGEST:
        raise PositionError(f"a position of {len(marks)} publishers is longer than {LONGEST}")
    return token


def decode(token: object) -> dict[str, int]:
    """The marks that a token stands for.

    :param token: what a client gave, which may be anything; the empty text stands for no marks:
        the beginning.
    :raises PositionError: it is no token, or one that no `encode` makes.
    """
    if not isinstance(token, str):
        raise PositionError(f"a position is a str, not {type(token).__name__}")
    if len(token) > LONGEST:
        raise PositionError(f"a position of {len(token)} characters, more than {LONGEST}")
    if not token:
        return {}
    if not _TOKEN.fullmatch(token):
        raise PositionError(f"no position of this version: {token[:40]!a}")
    marks: dict[str, int] = {}
    for group in token.split("~")[1:]:
        node, *rest = group.split(".")
        for serial, sequence in zip(rest[::2], rest[1::2], strict=True):
            source = f"{node}.{serial}"
            if source in marks:
                raise PositionError(f"a position that names {source} twice")
            marks[source] = int(sequence, 16)
    return marks
