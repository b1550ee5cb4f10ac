"""Waiting for facts of this process: looked at again and again, until a deadline.

For those of other processes see `tests.harness.processes.until`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import trio

__all__ = ["PATIENCE", "until", "until_on_asyncio"]

#: Seconds for one fact: ten times what a busy machine needs. What a test has for everything may be
#: less.
PATIENCE: Final = 30.0
_PAUSE: Final = 0.002

_T = TypeVar("_T")


async def until(fact: Callable[[], _T], seconds: float = PATIENCE) -> _T:
    """Wait on trio until it is so; what it said.

    :raises trio.TooSlowError: it was not so in time.
    """
    with trio.fail_after(seconds):
        while not (found := fact()):
            await trio.sleep(_PAUSE)
    return found


async def until_on_asyncio(fact: Callable[[], _T], seconds: float = PATIENCE) -> _T:
    """Wait on asyncio until it is so; what it said.

    :raises TimeoutError: it was not so in time.
    """
    async with asyncio.timeout(seconds):
        while not (found := fact()):
            await asyncio.sleep(_PAUSE)
    return found
