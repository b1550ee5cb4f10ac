"""Which topics the workers want, and which the server has been asked for. Pure.

A topic comes and goes far oftener than the server must hear of it: what changed is looked at when
there is time, and only what differs then is said.
"""

from __future__ import annotations

__all__ = ["Wishes"]


class Wishes:
    """The books on subscriptions."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._asked: set[str] = set()
        self._unheard: set[str] = set()
        # A dict keeps the order: who wished first is served first.
        self._changed: dict[str, None] = {}

    def want(self, topic: str, on: bool) -> None:  # noqa: FBT001 - as the bus calls it
        """The workers want it, or no longer."""
        (self._wanted.add if on else self._wanted.discard)(topic)
        if on is (topic in self._asked):
            # Nothing to say any more: what came and went is not remembered, however much it is.
            self._changed.pop(topic, None)
        else:
            self._changed[topic] = None

    def has(self, topic: str) -> bool:
        """Whether the server has confirmed it, and was not asked to take it back."""
        return topic in self._asked and topic not in self._unheard

    def begin(self) -> set[str]:
        """A new connection: the server knows of nothing. Returns what was subscribed to before and
        is still wanted.
        """
        again = (self._asked - self._unheard) & self._wanted
        self._asked.clear()
        self._unheard.clear()
        self._changed = dict.fromkeys(sorted(self._wanted))
        return again

    def due(self, most: int) -> tuple[list[str], list[str]]:
        """What to ask for now, and what to take back; it counts as said. Empty: nothing is left to
        say.
        """
        ask: list[str] = []
        leave: list[str] = []
        while self._changed and len(ask) + len(leave) < most:
            topic = next(iter(self._changed))
            del self._changed[topic]
            if topic in self._wanted and topic not in self._asked:
                self._asked.add(topic)
                self._unheard.add(topic)
                ask.append(topic)
            elif topic not in self._wanted and topic in self._asked:
                self._asked.remove(topic)
                self._unheard.discard(topic)
                leave.append(topic)
        return ask, leave

    def heard(self, topic: str) -> None:
        """The server has confirmed it."""
        self._unheard.discard(topic)

    @property
    def settled(self) -> bool:
        """Whether the server has confirmed all that is wanted."""
        return not self._unheard and not self._changed

    @property
    def counts(self) -> tuple[int, int]:
        """How many are wanted, and how many the server was asked for."""
        return len(self._wanted), len(self._asked)
