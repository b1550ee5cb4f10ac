"""A node of the bus, as far as links go: who is linked, what comes, what it says of itself."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NotRequired, Protocol, TypedDict

from wssup import logs
from wssup.errors import MessageError
from wssup.topics import packets as p
from wssup.topics.around import Watcher
from wssup.topics.history import History
from wssup.topics.interest import Book
from wssup.topics.message import Message
from wssup.topics.news import News, Reader
from wssup.topics.order import PATIENCE, Barrier, Order
from wssup.topics.peer import Peer

__all__ = ["LAST", "QUIET", "Node", "Parts", "Teller"]

#: What was seen of a node that is gone: all that will ever come.
LAST: Final = 1 << 62
#: Seconds between two announcements of how many subscribers there are.
_COUNTS: Final = 0.05
#: Seconds for which messages are delivered at a time, and for which there are then no more than
#: one of each link in a turn.
_TURN: Final = 0.01
_REST: Final = 0.002
#: Seconds between two warnings about the same node.
QUIET: Final = 10.0


class Teller(Protocol):
    """Where the bus counts."""

    def published(self, count: int, /) -> None:
        """Messages that were published here."""

    def sent(self, count: int, size: int, /) -> None:
        """Messages that went to other nodes, and bytes of all that went there."""

    def received(self, count: int, /) -> None:
        """Messages that came from other nodes."""

    def lost_out(self, count: int, /) -> None:
        """Messages for which a queue to another node had no room."""

    def lost_in(self, count: int, /) -> None:
        """Messages of which another node said that."""


class Parts(TypedDict):
    """What a node is made with besides its number and its instance's name; see `Bus`."""

    queue_bytes: int
    everything: bool
    history: History
    deliver: Callable[[Message], None]
    tell: Teller
    now: NotRequired[Callable[[], float]]


class Node:
    """What :class:`wssup.topics.bus.Bus` is built on; see there for the parameters.

    :ivar number: of the last message published here.
    :ivar seen: by node the highest number that was processed here.
    """

    def __init__(
        self,
        serial: int,
        node: str,
        *,
        queue_bytes: int,
        everything: bool,
        history: History,
        deliver: Callable[[Message], None],
        tell: Teller,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.serial = serial
        self.number = 0
        self.seen: dict[int, int] = {serial: 0}
        self.watcher: Watcher | None = None
        self._node = node
        self._source = f"{node}.{serial}"
        self._queue_bytes = queue_bytes
        self._history = history
        self._deliver = deliver
        self._tell = tell
        self._now = now
        self._log = logs.get()
        self._peers: dict[int, Peer] = {}
        #: The nodes that may still say something: this one, and those that there is a link to.
        self._live: set[int] = {serial}
        self._dead: dict[int, float] = {}
        self._news = News(serial, everything=everything)
        self._news.history = history.configured
        self._book: Book[Peer] = Book(serial, self._news.topics, everything=everything)
        self._due: list[Peer] = []
        #: Until when messages are delivered before others have their turn.
        self._until = 0.0
        self._flushes = self._announces = False
        self._count_at = 0.0
        self._quiet: dict[int, float] = {}
        # What is published while a message is delivered or something is waited for; what it waits
        # for; and the numbers of marks and, negative, of gaps.
        self._delivering = False
        self._held: deque[Message | int | Barrier] = deque()
        self._held_bytes = 0
        self._order: Order[Peer] = Order()
        self._marked = 0
        #: Something has to be said that no number of this node comes after yet.
        self._unnumbered = False
        self._mark_frame = b""
        self._when_sent: Callable[[], None] | None = None

    # Links.

    def link(self, serial: int, end: socket.socket) -> None:
        """There is a new node.

        :param end: of a stream to it, owned from now on.
        """
        if serial in self._live or serial in self._dead:
            self._log.error("bus_linked_twice", node=serial)
            end.close()
            return
        source = f"{self._node}.{serial}"
        peer = Peer(self, serial, source, end, self._queue_bytes, Reader(self._news))
        self._peers[serial] = peer
        self._live.add(serial)
        self.seen[serial] = 0
        self._book.joined(serial, peer)
        number = self.seen[self.serial]
        for packet in self._news.greeting(number):
            peer.post(p.encode(packet))
        for carrier, last in self._order.told.items():
            peer.post_fixed(number, p.encode(p.After(carrier, last)))
        self._linked(peer)
        if self.watcher is not None:
            peer.begin()
        else:
            # Who has not been told what this node wants sends everything, and it may take long
            # until it is read here: an application is imported, and its lifespan begins.
            peer.flush()

    def _linked(self, peer: Peer) -> None:
        """A link was made, and says who this is."""

    def ended(self, peer: Peer, error: str) -> None:
        """A link is at its end (see :class:`wssup.topics.around.Owner`)."""
        serial = peer.serial
        if self._peers.get(serial) is not peer:
            return
        if error:
            self._log.error("bus_link_broken", node=serial, error=error)
        peer.close()
        del self._peers[serial]
        self._live.discard(serial)
        if peer in self._order.stalled:
            self._order.stalled.remove(peer)
        self._dead[serial] = self._now()
        # Some of what it had published may have come to others and not here. A connection that has
        # missed its end here does not find a later piece of it elsewhere.
        self.seen[serial] = LAST
        self._quiet.pop(serial, None)
        self._interest_changed(self._book.left(serial), on=False)
        self._left(peer)
        self._settle()

    def _left(self, peer: Peer) -> None:
        """A node is gone."""

    def _interest_changed(self, topics: Iterable[str], *, on: bool) -> None:
        """The first other node wants these, or the last one no longer does."""

    def _drain(self, *, anyway: bool = False) -> None:
        """Publish what was held back."""

    def _settle(self) -> None:
        """Somebody may have got what it waits for."""

    # What comes.

    def take(  # noqa: C901 - the hot path in one piece
        self, peer: Peer, packets: list[p.Packet], at: int, stop: int
    ) -> int:
        """Act on packets (see :class:`wssup.topics.around.Owner`)."""
        carrier, source = peer.serial, peer.source
        seen, history, deliver = self.seen, self._history, self._deliver
        published = p.Published
        remembers = history.active
        received = 0
        now, until = self._now, self._turn_ends()
        peer.heard = now()
        # After a standstill this may come before the beat: what is lost or linked is as of now.
        history.tell(peer.heard)
        self._delivering = True
        try:
            while at < stop:
                packet = packets[at]
                at += 1
                if type(packet) is published:
                    number = packet.number
                    theirs = packet.source
                    message = Message(
                        packet.topic,
                        packet.text,
                        packet.data,
                        carrier,
                        number,
                        source if theirs is None else theirs,
                        packet.sequence,
                        packet.at,
                        packet.exclude,
                    )
                    received += 1
                    seen[carrier] = number
                    if remembers:
                        history.add(message)
                    try:
                        deliver(message)
                    except Exception as error:  # noqa: BLE001 - the boundary, as above
                        self._log.error("deliver_failed", exc_info=error)
                else:
                    if type(packet) is not p.Greeting and not peer.greeted:
                        raise MessageError("a link that does not begin with a greeting")
                    self._act(peer, packet)
                    remembers = history.active
                    if peer.waits is not None or peer.closed:
                        break
                if self._held:
                    self._delivering = False
                    self._drain()
                    self._delivering = True
                if now() >= until:
                    break
        finally:
            self._delivering = False
        if received:
            self._tell.received(received)
        if self._held or self._order.stalled:
            self._settle()
        return at

    def _act(self, peer: Peer, packet: Any) -> None:
        """Act on a packet that is no message."""

    def _is_lively(self, serial: int, now: float) -> bool:
        """Whether a node is only slow: something of it came lately, or waits here to be read."""
        peer = self._peers.get(serial)
        return peer is not None and (peer.waits is not None or now - peer.heard < PATIENCE)

    def _turn_ends(self) -> float:
        """When it is the others' turn, for all links together."""
        now = self._now()
        if now >= self._until + _REST:
            self._until = now + _TURN
        return self._until

    def _saw(self, serial: int, number: int) -> None:
        if number > self.seen.get(serial, 0):
            self.seen[serial] = number

    # Turns.

    def due(self, peer: Peer) -> None:
        """Flush a link at the end of the turn."""
        if not peer.is_due:
            peer.is_due = True
            self._due.append(peer)
            if not self._flushes and self.watcher is not None:
                self._flushes = True
                self.watcher.soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        due, self._due = self._due, []
        for peer in due:
            peer.is_due = False
            peer.flush()

    def sent(self, count: int, size: int) -> None:
        """Messages and bytes went to the kernel."""
        self._tell.sent(count, size)

    def dropped(self, peer: Peer, count: int) -> None:
        """A link's queue was full."""
        self._tell.lost_out(count)
        now = self._now()
        if now >= self._quiet.get(peer.serial, 0.0):
            self._quiet[peer.serial] = now + QUIET
            self._log.warning(
                "bus_queue_full",
                node=peer.serial,
                bytes=peer.size,
                hint="it does not keep up: the oldest messages for it are dropped",
            )

    @property
    def links(self) -> int:
        """Nodes that there is a link to."""
        return len(self._peers)

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._held_bytes + sum(peer.queued for peer in self._peers.values())

    @property
    def unsent(self) -> int:
        """Messages that wait to be sent (`Peer.unsent`)."""
        return sum(peer.unsent for peer in self._peers.values())

    def when_sent(self, then: Callable[[], None]) -> None:
        """Call back once no message waits to be sent: at once, or at a beat."""
        self._when_sent = then
        self._look_sent()

    def _look_sent(self) -> None:
        then = self._when_sent
        if then is not None and not self._held and not self.unsent:
            self._when_sent = None
            then()

    # What this node says of itself.

    def subscribed(self, topic: str, count: int) -> None:
        """A topic has so many subscribers here now."""
        now = self._now()
        if self._news.subscribed(topic, count, now):
            self._book.changed(topic)
            self._announce()
        elif now >= self._count_at:
            self._announce()

    def _announce(self) -> None:
        if not self._announces and self.watcher is not None:
            self._announces = True
            self.watcher.soon(self._announce_now)

    def _announce_now(self) -> None:
        self._announces = False
        news = self._news
        if news.is_uncounted:
            now = self._now()
            if now >= self._count_at:
                self._count_at = now + _COUNTS
                news.count()
        for peer in self._peers.values():
            if peer.reader.is_behind:
                peer.flush()

    def refill(self, peer: Peer) -> None:
        """A link has room: tell that node what it does not know."""
        if peer.reader.is_behind:
            for packet in peer.reader.read():
                peer.say(p.encode(packet))
