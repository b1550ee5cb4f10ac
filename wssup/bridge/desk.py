"""What a bridge has for its server, and knows of it, across connections."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import trio

from wssup.bridge.hearing import Hearing
from wssup.bridge.outbox import Letter, Outbox
from wssup.bridge.owed import Owed
from wssup.bridge.packing import Names
from wssup.bridge.streams import Streams
from wssup.bridge.wishes import Wishes

__all__ = ["BATCH", "BATCH_BYTES", "TOPICS", "Desk"]

#: Messages, and bytes of them, that are under way to the server at a time; and topics whose numbers
#: are said again with these.
BATCH: Final = 512
BATCH_BYTES: Final = 512 << 10
TOPICS: Final = 512
#: Seconds after which it is tried again to say what the server did not take.
_AGAIN: Final = 5.0
#: Publishers, or their topics, of which the last message is remembered.
_HEARD: Final = 50_000


class Desk:
    """What outlives a connection.

    :ivar outbox: what waits to be published.
    :ivar wishes: what is to be subscribed to.
    :ivar streams: ``None``: the server keeps no history.
    :ivar remembered: the workers keep a history, which is to have no holes: all is subscribed to,
        or if that cannot be, they are told when something begins and ends to be.
    :ivar hearing: what was heard of others.
    :ivar owed: numbers of messages that a history which the server keeps will never have.
    """

    def __init__(
        self, names: Names, outbox: Outbox, streams: Streams | None, *, remembered: bool
    ) -> None:
        self.names = names
        self.outbox = outbox
        self.streams = streams
        self.remembered = remembered
        self.wishes = Wishes()
        self.hearing = Hearing(most=_HEARD)
        self.owed = Owed(most=_HEARD)
        #: Messages posted so far, and those of which it is known what became of them.
        self._posted = 0
        self._done = 0
        self._idle = trio.Event()
        self._work = trio.Event()
        self._wish = trio.Event()
        #: When it is to be said again what was refused.
        self._again_at = math.inf

    def post(self, letter: Letter) -> int:
        """Have a message published; returns how many older ones had to go for it."""
        self._work.set()
        self._posted += 1
        dropped = self.outbox.put(letter)
        self._done += len(dropped)
        self.owe(dropped)
        return len(dropped)

    def finish(self, count: int) -> None:
        """It is known what became of so many of the oldest messages."""
        self._done += count
        self._idle.set()
        self._idle = trio.Event()

    async def brought_out(self) -> None:
        """Wait until it is known what became of all messages that were posted before."""
        until = self._posted
        while self._done < until:
            await self._idle.wait()

    def want(self, topic: str, on: bool) -> None:  # noqa: FBT001 - as the bus calls it
        """Have a topic subscribed to, or no longer."""
        self.wishes.want(topic, on)
        self._wish.set()

    async def letters(self) -> list[Letter]:
        """Wait for messages, and take the oldest; none: there are only numbers to be told."""
        while True:
            if trio.current_time() >= self._again_at:
                self.again(TOPICS)
            if self.outbox or self.owed:
                return self.outbox.take(BATCH, BATCH_BYTES)
            self._work = trio.Event()
            with trio.move_on_at(self._again_at):
                await self._work.wait()

    def owe(self, letters: Iterable[Letter]) -> None:
        """A history that the server keeps may never have these."""
        if self.streams is not None:
            self.owed.add(letters)

    def again(self, most: int | None = None) -> None:
        """Say once more what the server has refused to hear of, of so many topics at most."""
        self.owed.again(most)
        self._again_at = trio.current_time() + _AGAIN if self.owed.refused else math.inf
        if self.owed:
            self._work.set()

    def refuse(self, topics: Iterable[str]) -> None:
        """The server does not take the numbers of these topics: later perhaps."""
        self.owed.refuse(topics)
        if self.owed.refused:
            self._again_at = min(self._again_at, trio.current_time() + _AGAIN)

    async def changed(self) -> None:
        """Wait for a wish."""
        await self._wish.wait()
        self._wish = trio.Event()
