"""Whether something that others published never came. Pure.

Each message says after which number of its publisher there was none, in its topic and altogether
(`Parcel.after`, `Parcel.before`). Who heard nothing of that number misses something.
"""

from __future__ import annotations

from collections import OrderedDict

from wssup.bridge.packing import Parcel

__all__ = ["Hearing"]


class Hearing:
    """What was heard of others, on one connection after the other.

    :param most: publishers, or their topics, that are remembered; of one that is not, nothing is
        missed for once.
    """

    def __init__(self, *, most: int) -> None:
        self._everything = False
        self._most = most
        self._last: OrderedDict[tuple[str, str, int], int] = OrderedDict()
        self._spells: dict[str, int] = {}

    def begin_all(self, *, everything: bool) -> None:
        """There is a connection. What was published since the one before is missed.

        :param everything: whether all topics are heard.
        """
        if everything is not self._everything:
            self._everything = everything
            self._last.clear()

    def missed(self, topic: str, parcel: Parcel) -> bool:
        """Hear a message; whether something before it is missing, as far as is known."""
        if self._everything:
            topic = ""
        key = (parcel.source, topic, self._spells.get(topic, 0))
        last = self._last.pop(key, None)
        self._last[key] = parcel.sequence
        if len(self._last) > self._most:
            self._last.popitem(last=False)
        if last is None or parcel.sequence <= last:
            return False
        return (parcel.before if self._everything else parcel.after) > last

    def begin(self, topic: str) -> None:
        """A topic is subscribed to anew: what was published meanwhile is not missed."""
        if topic in self._spells or len(self._spells) < self._most:
            self._spells[topic] = self._spells.get(topic, 0) + 1
