"""A bridge's connection to its server without a bus: the test is what stands behind it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from wssup.bridge.desk import Desk
from wssup.bridge.outbox import Letter, Outbox
from wssup.bridge.packing import Names, Parcel, pack
from wssup.bridge.redis import Redis
from wssup.bridge.streams import Streams
from wssup.config.bus import BusUrl
from wssup.config.topics import Topics
from wssup.scoreboard import BridgeFault


@dataclass
class Witness:
    """Hears all that a bridge says of its server."""

    got: list[tuple[str, Parcel]] = field(default_factory=list)
    taken: int = 0
    untaken: int = 0
    missed: int = 0
    garbage: list[str] = field(default_factory=list)
    settlings: int = 0
    connects: int = 0
    faults: list[BridgeFault] = field(default_factory=list)

    def received(self, topic: str, parcel: Parcel, *, missed: bool) -> None:
        self.got.append((topic, parcel))
        self.missed += missed

    def sent(self, count: int) -> None:
        self.taken += count

    def unsent(self, count: int, _why: str) -> None:
        self.untaken += count

    def garbled(self, why: str) -> None:
        self.garbage.append(why)

    def settled(self) -> None:
        self.settlings += 1

    def connected(self, _now_ns: int) -> None:
        self.connects += 1

    def disconnected(self, fault: BridgeFault) -> None:
        self.faults.append(fault)


class Side:
    """A bridge without its bus."""

    def __init__(
        self, port: int, *, cluster: bool = False, password: str = "", **settings: Any
    ) -> None:
        topics = Topics(**settings)
        names = Names(topics.bus_namespace)
        streams = Streams(topics, names) if topics.bus_history else None
        remembered = bool(topics.history or topics.history_age or topics.bus_history)
        self.witness = Witness()
        self.desk = Desk(names, Outbox(topics.queue_bytes), streams, remembered=remembered)
        url = BusUrl(
            tls=False,
            host="127.0.0.1",
            port=port,
            user="",
            password=password,
            database=0,
            options={},
            cluster=cluster,
        )
        self.redis = Redis(url, self.desk, self.witness, self.witness)

    def post(
        self, topic: str, sequence: int, data: bytes = b"", *, after: int = -1, before: int = -1
    ) -> int:
        """Publish as source ``aaaaaaaa.1``."""
        before = sequence - 1 if before < 0 else before
        after = before if after < 0 else after
        parcel = Parcel("aaaaaaaa.1", sequence, after, before, False, time.time(), data)
        return self.desk.post(Letter(topic, "aaaaaaaa.1", sequence, pack(parcel)))

    def numbers(self, topic: str = "t") -> list[int]:
        """What came."""
        return [parcel.sequence for name, parcel in self.witness.got if name == topic]


@asynccontextmanager
async def running(*sides: Side) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for side in sides:
            nursery.start_soon(side.redis.run)
        yield
        nursery.cancel_scope.cancel()
