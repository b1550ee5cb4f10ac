"""The bridge as a node of the bus: what is between the workers and the server."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

import trio

from wssup import logs
from wssup.bridge.chains import Chains
from wssup.bridge.desk import Desk
from wssup.bridge.outbox import Letter, Outbox
from wssup.bridge.packing import Names, Parcel, pack
from wssup.bridge.redis import Redis
from wssup.bridge.streams import Streams
from wssup.bridge.watcher import Watcher
from wssup.config.bus import parse_bus
from wssup.config.topics import Topics
from wssup.scoreboard import BridgeWriter
from wssup.topics.bus import Bus
from wssup.topics.history import History
from wssup.topics.message import Message
from wssup.topics.packets import Entry, Recover, Recovered

__all__ = ["Node"]

#: Seconds between two looks of the bus at its clocks, and two heartbeats.
_BEAT: Final = 0.25
#: What is remembered of the publishers' order (`Chains`).
_TOPICS: Final = 50_000
_SOURCES: Final = 1024
#: What a server may refuse that is said, each once.
_REFUSALS: Final = 20
#: Bytes of messages in one packet of an answer.
_CHUNK: Final = 64 << 10
#: Questions that are answered at a time, and that may wait for that.
_READERS: Final = 4
_QUESTIONS: Final = 10_000

#: Seconds that the last messages have to reach the server when the instance stops, and between two
#: looks whether they all came.
_FAREWELL: Final = 3.0
_GLANCE: Final = 0.02

Reply = Callable[[Recovered], None]


class Node:
    """The bus on one side, the server on the other.

    :param name: of the instance among all instances.
    :param serial: of the bridge among the nodes of the instance.
    """

    def __init__(self, name: str, serial: int, settings: Topics, board: BridgeWriter) -> None:
        self._mine = f"{name}."
        self._serial = serial
        self._board = board
        self._log = logs.get()
        self._chains = Chains(_TOPICS, _SOURCES)
        self._counts = _Counts(self._chains)
        names = Names(settings.bus_namespace)
        streams = Streams(settings, names, mine=self._mine) if settings.bus_history else None
        remembered = bool(settings.history or settings.history_age or settings.bus_history)
        self._desk = Desk(names, Outbox(settings.queue_bytes), streams, remembered=remembered)
        self._redis = Redis(parse_bus(settings.bus), self._desk, self, board)
        self._readers = trio.CapacityLimiter(_READERS)
        self._questions = 0
        self._outage = False
        self._garbled = False
        self._refused: set[str] = set()
        self._gap = False
        self._watcher = Watcher()
        self.bus = Bus(
            serial,
            name,
            queue_bytes=settings.queue_bytes,
            everything=True,
            history=History(messages=0, seconds=0.0, size=0, topics=0),
            deliver=self._deliver,
            tell=self._counts,
        )
        self.bus.on_interest = self._desk.want
        if streams is not None:
            self.bus.on_recover = self._recover

    def link(self, serial: int, end: socket.socket) -> None:
        """Another node; ``end`` is ours."""
        self.bus.link(serial, end)

    async def run(self) -> None:
        """Carry messages, until cancelled."""
        self.bus.begin(self._watcher)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._watcher.run)
            self._nursery.start_soon(self._redis.run)
            self._nursery.start_soon(self._beat)

    # From the bus.

    def _deliver(self, message: Message) -> None:
        if message.carrier == self._serial or not message.source.startswith(self._mine):
            return
        after, before = self._chains.hear(message.source, message.topic, message.sequence)
        wall = time.time() - (time.monotonic() - message.at)
        parcel = Parcel(
            message.source, message.sequence, after, before, message.text, wall, message.data
        )
        letter = Letter(message.topic, message.source, message.sequence, pack(parcel))
        dropped = self._desk.post(letter)
        if dropped:
            self._counts.lost += dropped
            if not self._outage:
                self._outage = True
                self._log.warning(
                    "bridge_queue_full",
                    bytes=self._desk.outbox.size,
                    hint="the server is away or slow; the oldest messages for it are dropped",
                )

    def _recover(self, question: Recover, reply: Reply) -> bool:
        if self._questions >= _QUESTIONS:
            reply(Recovered(question.question, [], complete=False, last=True))
            return True
        self._questions += 1
        self._nursery.start_soon(self._answer, question, reply)
        return True

    async def _answer(self, question: Recover, reply: Reply) -> None:
        try:
            async with self._readers:
                parcels, complete = await self._redis.missed(
                    question.topic, question.marks, question.limit
                )
        finally:
            self._questions -= 1
        chunk: list[Entry] = []
        size = 0
        for parcel in parcels:
            if size + len(parcel.data) > _CHUNK and chunk:
                reply(Recovered(question.question, chunk, complete=complete, last=False))
                chunk, size = [], 0
            size += len(parcel.data)
            chunk.append(
                Entry(
                    question.topic,
                    parcel.text,
                    parcel.data,
                    parcel.source,
                    parcel.sequence,
                    parcel.at,
                    0,
                    0,
                )
            )
        reply(Recovered(question.question, chunk, complete=complete, last=True))

    # From the server.

    def received(self, topic: str, parcel: Parcel, *, missed: bool) -> None:
        """A message came: it is for the workers, unless they had it from each other."""
        if parcel.source.startswith(self._mine):
            return
        if missed:
            self._counts.missed += 1
            self.settled()
        self._counts.from_server += 1
        self.bus.publish(
            topic,
            text=parcel.text,
            data=parcel.data,
            source=parcel.source,
            sequence=parcel.sequence,
        )

    def sent(self, count: int) -> None:
        """The server has taken messages."""
        self._counts.to_server += count

    def unsent(self, count: int, why: str) -> None:
        """The server has not taken messages, or nobody knows."""
        self._counts.lost += count
        if why and why not in self._refused and len(self._refused) < _REFUSALS:
            self._refused.add(why)
            self._log.warning("bridge_refused", lost=count, error=why)

    def garbled(self, why: str) -> None:
        """Something that is no message came."""
        if not self._garbled:
            self._garbled = True
            self._log.warning("bridge_garbled", error=why, hint="who else uses this namespace?")

    def settled(self) -> None:
        """All that is wanted is subscribed to: from here on it comes, before something may have
        been missed. The workers' histories must know.
        """
        self._gap = True
        self._watcher.soon(self._say_gap)

    def _say_gap(self) -> None:
        if self._gap:
            self._gap = False
            self.bus.gap()

    async def bring_out(self) -> None:
        """The end: have the server take what is left, if it can at once; count what it does not."""
        with trio.move_on_after(_FAREWELL):
            # When the instance ends its workers are gone, and what they said last may still be on
            # the way. When only this bridge ends, because its settings change, they stay.
            with trio.move_on_after(_FAREWELL / 2):
                while self.bus.links:  # noqa: ASYNC110 - the bus tells nobody
                    await trio.sleep(_GLANCE)
            if self._redis.connected:
                self._desk.again()
                await self._desk.brought_out()
                while self._desk.owed and self._redis.connected:  # noqa: ASYNC110 - as above
                    await trio.sleep(_GLANCE)

    def over(self) -> None:
        """It does not run any more: what it still had is lost."""
        if left := len(self._desk.outbox):
            self._counts.lost += left
            self._log.warning("bridge_not_brought_out", messages=left)
        self._counts.flush(self._board)

    # Clockwork.

    async def _beat(self) -> None:
        while True:
            self.bus.beat(time.monotonic())
            self._board.heartbeat(time.monotonic_ns())
            self._board.queue(self._desk.outbox.size)
            self._counts.flush(self._board)
            if self._outage and not self._desk.outbox:
                self._outage = False
            await trio.sleep(_BEAT)


class _Counts:
    """What happened since the last flush."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._zero()

    def _zero(self) -> None:
        self.to_server = self.from_server = self.lost = self.missed = 0
        self._sent = self._received = self._lost_out = self._lost_in = 0

    def flush(self, board: BridgeWriter) -> None:
        """Write it."""
        board.server(
            sent=self.to_server, received=self.from_server, lost=self.lost, missed=self.missed
        )
        board.bus(
            sent=self._sent, received=self._received, lost=self._lost_out, missed=self._lost_in
        )
        self._zero()

    def published(self, count: int) -> None:
        """The bus' `Teller`: what the workers count, and a bridge does not."""

    delivered = published

    def sent(self, count: int, _size: int) -> None:
        """Messages to workers."""
        self._sent += count

    def received(self, count: int) -> None:
        """Messages from workers."""
        self._received += count

    def lost_out(self, count: int) -> None:
        """Messages that a worker's full queue had no room for."""
        self._lost_out += count

    def lost_in(self, count: int) -> None:
        """Messages that had no room in a worker's queue to the bridge."""
        self._lost_in += count
        self._chains.lost()
