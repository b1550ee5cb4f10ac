"""The history that the server keeps (``bus_history``): a stream per topic, and beside it the last
number of each source, which outlives the stream's oldest messages.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec.structs import replace

from wssup.bridge.faults import away
from wssup.bridge.fleet import Fleet
from wssup.bridge.links import Command
from wssup.bridge.outbox import Letter
from wssup.bridge.owed import Numbers
from wssup.bridge.packing import Names, Parcel, unpack
from wssup.bridge.recovery import Recovery
from wssup.config.topics import Topics
from wssup.errors import MessageError

__all__ = ["Streams", "lasts_of"]

#: Messages of a topic that are kept when only their age is bounded.
_MESSAGES: Final = 1000
#: Seconds that a topic's history outlives its last message when only the number is bounded.
_SILENCE: Final = 86_400
#: Seconds that numbers outlive a topic's last message by more: than it takes until all have it.
_LONGER: Final = 60
#: Messages that are read at first, and at most, in one go; and bytes of them, about, once it is
#: known how long they are.
_PAGE: Final = 32
_PAGE_MOST: Final = 1024
_PAGE_BYTES: Final = 1 << 20
_FIELD: Final = b"m"


class Streams:
    """Keeping and reading.

    :param settings: the table ``[topics]``.
    :param mine: how the sources of this instance begin.
    """

    def __init__(self, settings: Topics, names: Names, *, mine: str = "") -> None:
        self._names = names
        self._mine = mine
        self._messages = settings.history or _MESSAGES
        self._age = settings.history_age
        self._silence = max(1, math.ceil(settings.history_age or _SILENCE))
        self._size = settings.history_bytes

    def keeping(
        self, letters: Iterable[Letter], lasts: Numbers
    ) -> Iterator[tuple[str, bytes, Command]]:
        """The commands that keep these messages, each with its topic, and the key that it is about.

        Numbers go first: what was announced and is not there is missed, not overlooked.

        :param lasts: the numbers, see `lasts_of`.
        """
        letters = list(letters)
        for topic, numbers in lasts.items():
            key = self._names.marks(topic)
            pairs = [x for pair in numbers.items() for x in (pair[0].encode(), pair[1])]
            yield topic, key, Command(b"HSET", key, *pairs)
            yield topic, key, Command(b"EXPIRE", key, self._silence + _LONGER)
        for letter in letters:
            key = self._names.history(letter.topic)
            bound = (b"MAXLEN", b"~", self._messages)
            yield letter.topic, key, Command(b"XADD", key, *bound, b"*", _FIELD, letter.data)
        for topic in dict.fromkeys(letter.topic for letter in letters):
            key = self._names.history(topic)
            yield topic, key, Command(b"EXPIRE", key, self._silence)

    async def missed(
        self, fleet: Fleet, topic: str, marks: Mapping[str, int], limit: int
    ) -> tuple[list[Parcel], bool]:
        """What of a topic is above the marks, the oldest first, and whether it is all of it.

        :raises Away: the server is gone, or did not answer in time.
        """
        key = self._names.marks(topic)
        (answer,) = await fleet.of(key).call([Command(b"HGETALL", key)])
        recovery = Recovery(
            marks,
            _numbers(_useful(answer)),
            limit=min(limit, self._messages) if limit > 0 else self._messages,
            size=self._size,
            oldest=time.time() - self._age if self._age else 0.0,
            known=time.time() - self._silence - _LONGER,
            mine=self._mine,
        )
        key = self._names.history(topic)
        newest, page, size = b"+", _PAGE, _PAGE_BYTES
        while not recovery.done:
            command = Command(b"XREVRANGE", key, newest, b"-", b"COUNT", page)
            (answer,) = await fleet.of(key).call([command], size)
            entries = _useful(answer)
            parcels = list(_parcels(entries))
            recovery.read(parcels)
            if len(entries) < page:
                break
            size = _PAGE_BYTES + max((len(parcel.data) for parcel in parcels), default=0)
            mean = 1 + sum(len(parcel.data) for parcel in parcels) // len(entries)
            newest = _below(entries[-1][0])
            page = max(1, min(page * 4, _PAGE_MOST, _PAGE_BYTES // mean))
        return recovery.result()


def lasts_of(letters: Iterable[Letter], owed: Numbers) -> Numbers:
    """The numbers of the last messages.

    :param owed: those of messages before these that the server may not have.
    """
    lasts = {topic: dict(numbers) for topic, numbers in owed.items()}
    for letter in letters:
        lasts.setdefault(letter.topic, {})[letter.source] = letter.sequence
    return lasts


def _below(name: bytes) -> bytes:
    """The highest name of an entry below this one (Redis before 6.2 has no other way to say it)."""
    at, _, number = name.partition(b"-")
    if int(number):
        return b"%b-%d" % (at, int(number) - 1)
    return b"%d-%d" % (int(at) - 1, (1 << 64) - 1)


def _useful(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise away(answer)
    return answer or []


def _numbers(answer: Any) -> dict[str, int]:
    try:
        return {source.decode(): int(number) for source, number in dict(answer).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _parcels(entries: Any) -> Iterator[Parcel]:
    """The messages of a stream's entries, with the server's time of each; what is none is passed
    over, and will be missed.
    """
    for name, fields in entries:
        pairs = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2]))  # noqa: B905
        try:
            parcel = unpack(pairs.get(_FIELD, b""))
            # An entry's name begins with the milliseconds at which it was kept (XADD).
            at = int(name.partition(b"-")[0]) / 1000
        except (MessageError, ValueError):
            continue
        yield replace(parcel, at=at)
