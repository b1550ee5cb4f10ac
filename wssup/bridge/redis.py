"""The connection to the server: made, lost, and made again."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Never, Protocol

import trio

from wssup import logs
from wssup.bridge.desk import Desk
from wssup.bridge.faults import Away, away, leaves, without
from wssup.bridge.fleet import Fleet
from wssup.bridge.links import Place
from wssup.bridge.packing import Parcel
from wssup.bridge.pauses import Pauses
from wssup.bridge.session import Ears, Session
from wssup.config.bus import BusUrl
from wssup.scoreboard import BridgeFault

__all__ = ["Redis", "place_of"]

#: Seconds: the first pause at most, any pause at most, and after how long a connection was one.
_SHORTEST: Final = 0.1
_LONGEST: Final = 10.0
_LASTING: Final = 10.0
#: Seconds that a question waits for messages to be brought to the server, where it looks for more.
_PATIENCE: Final = 1.0


class Health(Protocol):
    """Who shows whether there is a connection."""

    def connected(self, now_ns: int) -> None:
        """There is one."""

    def disconnected(self, fault: BridgeFault) -> None:
        """There is none."""


def place_of(url: BusUrl) -> Place:
    """Where the server is, and how it is spoken to.

    :raises Away: a file of the TLS options cannot be read, or is none.
    """
    options: dict[str, Any] = {"db": url.database or None}
    if url.user or url.password:
        options |= {"username": url.user or "default", "password": url.password}
    if url.tls:
        options["ssl_context"] = _context(url.options)
    return Place(url.host, url.port, options)


def _context(files: Mapping[str, str]) -> ssl.SSLContext:
    try:
        for file in files.values():
            # The library says that something is missing, and not what.
            Path(file).read_bytes()
        context = ssl.create_default_context(cafile=files.get("ssl_ca_certs"))
        if "ssl_certfile" in files:
            context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    except OSError as error:
        raise Away(BridgeFault.TLS, f"a file that topics.bus names: {error}") from error
    return context


class Redis:
    """The server, as long as the bridge lives."""

    def __init__(self, url: BusUrl, desk: Desk, ears: Ears, health: Health) -> None:
        self._url = url
        self._desk = desk
        self._ears = ears
        self._health = health
        self._log = logs.get()
        self._session: Session | None = None
        #: Servers of the Cluster, as it was when it was there: any of them can say what it is now.
        self._servers: list[tuple[str, int]] = []
        self._said = ""
        self._away_since = time.monotonic()
        self._lost_before = 0
        self._connects = 0

    async def run(self) -> Never:
        """Have a connection whenever one can be had."""
        pauses = Pauses(_SHORTEST, _LONGEST, _LASTING, random.random)
        while True:
            began = time.monotonic()
            connected: list[float] = []
            try:
                await self._once(connected)
            except* Exception as group:  # noqa: BLE001 - told apart below
                trouble = self._trouble(group)
            # The library says an error of its own when it is cancelled while it connects.
            await trio.lowlevel.checkpoint_if_cancelled()
            lived = time.monotonic() - connected[0] if connected else 0.0
            if connected:
                self._away_since = time.monotonic()
                self._lost_before = self._desk.outbox.lost
            self._session = None
            pause = pauses.next(lived=lived)
            self._say(trouble, pause, tried=time.monotonic() - began)
            self._health.disconnected(trouble.fault)
            await trio.sleep(pause)

    async def missed(
        self, topic: str, marks: Mapping[str, int], limit: int
    ) -> tuple[list[Parcel], bool]:
        """See :meth:`Streams.missed`; nothing, and not all of it, while the server is away."""
        if self._session is None:
            return [], False
        # What the workers have published before the question is to be there.
        with trio.move_on_after(_PATIENCE) as scope:
            await self._desk.brought_out()
        if scope.cancelled_caught or self._session is None:
            return [], False
        # It gives what it has; of what it does not know it cannot say that it is not there.
        owed = self._desk.owed.has(topic)
        try:
            found, whole = await self._session.missed(topic, marks, limit)
        except Away:
            # The session's own watch finds it too, and says it.
            return [], False
        return found, whole and not owed

    async def _once(self, connected: list[float]) -> None:
        async with trio.open_nursery() as nursery:
            fleet = await self._connect(nursery)
            reading = await self._connect(nursery) if self._desk.streams is not None else None
            connected.append(time.monotonic())
            self._health.connected(time.monotonic_ns())
            self._session = Session(fleet, reading, self._desk, self._ears)
            self._connects += 1
            self._log.info(
                "bridge_connected",
                server=self.server,
                away=round(connected[0] - self._away_since, 3),
                lost=self._desk.outbox.lost - self._lost_before,
                queued=len(self._desk.outbox),
            )
            self._said = ""
            await self._session.run()

    async def _connect(self, nursery: trio.Nursery) -> Fleet:
        place = place_of(self._url)
        if not self._url.cluster:
            return await Fleet.one(place, nursery)
        others = [place.at(*each) for each in self._servers]
        fleet = await Fleet.cluster([place, *others], nursery)
        self._servers = [(link.place.host, link.place.port) for link in fleet.links]
        return fleet

    def _trouble(self, group: BaseExceptionGroup[Exception]) -> Away:
        known = (Away, OSError)
        for error in leaves(group):
            if isinstance(error, Away):
                return error
        for error in leaves(group):
            if isinstance(error, known):
                return away(error)
        # A fault of this program is not to be lived with in silence.
        raise group

    def _say(self, trouble: Away, pause: float, *, tried: float) -> None:
        """Log why there is no connection: once, until that changes."""
        text = without(str(trouble), self._url.password)
        if text != self._said:
            self._said = text
            log = self._log.error if trouble.fault is BridgeFault.AUTH else self._log.warning
            log(
                "bridge_away",
                server=self.server,
                fault=trouble.fault.label,
                error=text,
                hint=_HINTS.get(trouble.fault),
            )
        self._log.debug("bridge_tries_again", seconds=round(pause, 3), tried=round(tried, 3))

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._session is not None

    @property
    def server(self) -> str:
        """Where it is, without who we are there."""
        return f"{self._url.host}:{self._url.port}"


_HINTS: Final = {
    BridgeFault.AUTH: "the user, password and access rules of the server do not fit topics.bus",
    BridgeFault.TLS: "topics.bus names the file of a private authority with ?ssl_ca_certs=",
}
