"""What the bridge does while it has its servers. When one of them is gone, all of it ends, and is
begun anew with another session.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

import trio

from wssup.bridge.desk import TOPICS, Desk
from wssup.bridge.faults import Away, away, fault_of
from wssup.bridge.fleet import Fleet
from wssup.bridge.links import Command, Link
from wssup.bridge.outbox import Letter
from wssup.bridge.owed import Numbers
from wssup.bridge.packing import Parcel, unpack
from wssup.bridge.streams import lasts_of
from wssup.errors import MessageError
from wssup.scoreboard import BridgeFault

__all__ = ["Ears", "Session"]

#: Channels in one command.
_CHANNELS: Final = 512
#: Of what a server says to a command, that which makes the whole connection useless.
_FATAL: Final = frozenset(
    {BridgeFault.AUTH, BridgeFault.BUSY, BridgeFault.LOST, BridgeFault.TIMEOUT}
)


class Ears(Protocol):
    """Who hears of what happens."""

    def received(self, topic: str, parcel: Parcel, *, missed: bool) -> None:
        """A message came; ``missed``: one of its publisher before it did not."""

    def sent(self, count: int) -> None:
        """The server has taken messages."""

    def unsent(self, count: int, why: str) -> None:
        """The server has not taken messages, or nobody knows."""

    def garbled(self, why: str) -> None:
        """Something that is no message came."""

    def settled(self) -> None:
        """All that is wanted is subscribed to; what was published before may have been missed."""


class Session:
    """One connection to each of the servers, and all that goes over them.

    :param reading: other connections to them, for the history. A server bounds what it has ready
        for one that is subscribed (Redis, client-output-buffer-limit pubsub), and answers to long
        questions would go beyond that.
    """

    def __init__(self, fleet: Fleet, reading: Fleet | None, desk: Desk, ears: Ears) -> None:
        self._fleet = fleet
        self._reading = reading
        self._desk = desk
        self._ears = ears
        self._settled = False
        self._everything = desk.remembered and not fleet.many
        #: Topics whose messages were heard on the connection before this one.
        self._again: set[str] = set()

    async def run(self) -> None:
        """Publish, subscribe and hear, until the server is gone.

        :raises Away: (in a group) why it is.
        """
        self._desk.hearing.begin_all(everything=self._everything)
        self._again = self._desk.wishes.begin()
        async with trio.open_nursery() as nursery:
            for link in self._fleet.links:
                nursery.start_soon(self._hear, link)
                nursery.start_soon(link.watch)
            for link in self._reading.links if self._reading is not None else ():
                nursery.start_soon(link.watch)
            nursery.start_soon(self._subscribe)
            nursery.start_soon(self._publish)

    async def missed(
        self, topic: str, marks: Mapping[str, int], limit: int
    ) -> tuple[list[Parcel], bool]:
        """See :meth:`Streams.missed`."""
        if self._desk.streams is None or self._reading is None:
            return [], False
        return await self._desk.streams.missed(self._reading, topic, marks, limit)

    async def _publish(self) -> None:
        self._desk.again()
        while True:
            letters = await self._desk.letters()
            sent = 0
            try:
                sent, why = await self._post(letters)
            except BaseException:
                # It may have taken them. Saying them again could double them. Why it is away is
                # said by whoever found out.
                self._ears.unsent(len(letters), "")
                self._desk.owe(letters)
                raise
            finally:
                self._desk.finish(len(letters))
            if sent:
                self._ears.sent(sent)
            if sent < len(letters):
                self._ears.unsent(len(letters) - sent, why)

    async def _post(self, letters: list[Letter]) -> tuple[int, str]:
        """Have the servers take messages; returns how many they took, and what they said of one
        that they did not.
        """
        batches: dict[Link, list[tuple[str, Command]]] = {link: [] for link in self._fleet.links}
        lasts: Numbers = {}
        if self._desk.streams is not None:
            lasts = lasts_of(letters, self._desk.owed.some(TOPICS))
            for topic, key, command in self._desk.streams.keeping(letters, lasts):
                batches[self._fleet.of(key)].append((topic, command))
        publish = self._fleet.words.publish
        for letter in letters:
            channel = self._desk.names.channel(letter.topic)
            command = Command(publish, channel, letter.data)
            batches[self._fleet.of(channel)].append((letter.topic, command))
        size = sum(letter.size for letter in letters) * (2 if self._desk.streams else 1)
        results: list[tuple[Command, Any]] = []
        refused: set[str] = set()

        async def call(link: Link, commands: list[tuple[str, Command]]) -> None:
            answers = await link.call([command for _, command in commands], size)
            for (topic, command), answer in zip(commands, answers, strict=True):
                results.append((command, answer))
                if isinstance(answer, Exception):
                    refused.add(topic)

        busy = [(link, commands) for link, commands in batches.items() if commands]
        if len(busy) == 1:
            await call(*busy[0])
        else:
            async with trio.open_nursery() as nursery:
                for link, commands in busy:
                    nursery.start_soon(call, link, commands)
        self._desk.owed.told({t: numbers for t, numbers in lasts.items() if t not in refused})
        self._desk.owe([letter for letter in letters if letter.topic in refused])
        self._desk.refuse(refused)
        return self._judge(results)

    def _judge(self, results: list[tuple[Command, Any]]) -> tuple[int, str]:
        sent, why = 0, ""
        publish = self._fleet.words.publish
        for command, answer in results:
            if not isinstance(answer, Exception):
                sent += command.name == publish
                continue
            why = f"{command!r}: {answer}"
            if _fatal(answer):
                raise Away(away(answer).fault, why)
            if command.name != publish:
                self._ears.unsent(0, why)
        return sent, why

    async def _subscribe(self) -> None:
        if self._everything:
            (link,) = self._fleet.links
            link.tell(b"PSUBSCRIBE", self._desk.names.everything)
            await link.ping()
            return
        wishes, names, words = self._desk.wishes, self._desk.names, self._fleet.words
        while True:
            ask, leave = wishes.due(_CHANNELS)
            if leave and self._desk.remembered:
                # From here on it does not come: positions of before are not good for what follows.
                self._ears.settled()
            for command, topics in ((words.subscribe, ask), (words.unsubscribe, leave)):
                channels: dict[tuple[Link, int], list[bytes]] = {}
                for topic in topics:
                    channel = names.channel(topic)
                    link = self._fleet.of(channel)
                    # A Cluster takes several channels in a command only if they share a slot.
                    group = len(channels) if self._fleet.many else 0
                    channels.setdefault((link, group), []).append(channel)
                for (link, _), several in channels.items():
                    link.tell(command, *several)
            if ask or leave:
                # A refusal is no push: it comes as the answer to whatever was asked next.
                for link in self._fleet.links:
                    await link.ping()
                continue
            self._look_settled(anew=False)
            await self._desk.changed()

    def _look_settled(self, *, anew: bool) -> None:
        if self._desk.wishes.settled and (not self._settled or (anew and self._desk.remembered)):
            self._settled = True
            self._ears.settled()

    async def _hear(self, link: Link) -> None:
        async with aclosing(link.pushes()) as pushes:
            async for push in pushes:
                self._heard(push)

    def _heard(self, push: list[Any]) -> None:
        words, wishes, kind = self._fleet.words, self._desk.wishes, push[0]
        if kind in (words.message, b"pmessage"):
            self._take(push[-2], push[-1])
            return
        if kind == b"psubscribe":
            self._ears.settled()
            return
        topic = self._desk.names.topic(push[1]) if len(push) > 1 else None
        if topic is None:
            return
        if kind == words.subscribe.lower():
            wishes.heard(topic)
            if topic in self._again:
                self._again.discard(topic)
            else:
                self._desk.hearing.begin(topic)
            self._look_settled(anew=True)
        elif kind == b"sunsubscribe" and wishes.has(topic):
            # Not by us: what we take back is not in the books when the answer comes.
            raise Away(BridgeFault.LOST, "a channel has moved to another server")

    def _take(self, channel: bytes, data: bytes) -> None:
        topic = self._desk.names.topic(channel)
        if topic is None:
            return
        try:
            parcel = unpack(data)
        except MessageError as error:
            self._ears.garbled(str(error))
            return
        self._ears.received(topic, parcel, missed=self._desk.hearing.missed(topic, parcel))


def _fatal(error: Exception) -> bool:
    """Whether what a server said to one command means the connection as a whole."""
    return fault_of(error) in _FATAL
