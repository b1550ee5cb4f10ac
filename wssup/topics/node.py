"""A node of the bus, as far as messages go: its links, publishing, and what comes."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from wssup import logs
from wssup.errors import MessageError
from wssup.topics import packets as p
from wssup.topics.history import History
from wssup.topics.interest import Book
from wssup.topics.message import Message
from wssup.topics.news import News, Reader
from wssup.topics.order import PATIENCE, Barrier, Order
from wssup.topics.peer import Peer, Watcher

__all__ = ["LAST", "Node", "Teller"]

#: What was seen of a node that is gone: all that will ever come.
LAST: Final = 1 << 62
#: Seconds between two announcements of how many subscribers there are.
_COUNTS: Final = 0.05
#: Seconds between two warnings about the same node.
_QUIET: Final = 10.0


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

    def _linked(self, peer: Peer) -> None:
        """A link was made, and says who this is."""

    def ended(self, peer: Peer, error: str) -> None:
        """A link is at its end (see :class:`wssup.topics.peer.Owner`)."""
        serial = peer.serial
        if self._peers.get(serial) is not peer:
            return
        if error:
            self._log.error("bus_link_broken", node=serial, error=error)
        peer.close()
        del self._peers[serial]
        self._live.discard(serial)
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

    # Publishing.

    @property
    def links(self) -> int:
        """How many other nodes there are."""
        return len(self._peers)

    def publish(
        self,
        topic: str,
        *,
        text: bool,
        data: bytes,
        exclude: int = 0,
        source: str | None = None,
        sequence: int = 0,
    ) -> Message:
        """Publish a message: to the other nodes that want it, and here.

        That is done when this returns, unless a message is being delivered, or what comes before
        this one in its publisher's order is still on its way here (`Bus.after`).

        :param data: UTF-8 if ``text``.
        :param exclude: the connection that does not get it.
        :param source: who published it elsewhere, and ``sequence``: as which of its messages.
        """
        number = self.number = self.number + 1
        self._unnumbered = False
        message = Message(
            topic,
            text,
            data,
            self.serial,
            number,
            self._source if source is None else source,
            number if source is None else sequence,
            self._now(),
            exclude,
        )
        if self._delivering or self._held:
            self._held.append(message)
            self._held_bytes += len(data)
            if self._held_bytes > self._queue_bytes and not self._delivering:
                self._log.warning("bus_order_given_up", bytes=self._held_bytes)
                self._drain(anyway=True)
            return message
        self._release(message)
        if self._held:
            self._drain()
        return message

    def _release(self, message: Message) -> None:
        topic, text, data, serial, number, source, sequence, at, exclude = message
        if self._order.unsaid:
            self._say_after()
        peers = self._book.wanting(topic)
        if peers:
            mine = source == self._source
            frame = p.encode_published(
                number, topic, text, data, exclude, at, None if mine else source, sequence
            )
            item = (number, frame)
            size = len(frame)
            for peer in peers:
                peer.messages.append(item)
                peer.size += size
                if peer.size > peer.bound:
                    peer.shed()
                if not peer.is_due:
                    self.due(peer)
        self.seen[serial] = number
        if self._history.active:
            self._history.add(message)
        self._delivering = True
        try:
            self._deliver(message)
        except Exception as error:  # noqa: BLE001 - the boundary: the bus goes on, whatever it was
            self._log.error("deliver_failed", exc_info=error)
        finally:
            self._delivering = False
        self._tell.published(1)

    def _drain(self, *, anyway: bool = False) -> None:
        """Publish what was held back, as far as nothing is waited for; or ``anyway``."""
        held = self._held
        while held and not self._delivering:
            entry = held[0]
            if isinstance(entry, Barrier):
                if not anyway and entry.stands(self.seen, self._live):
                    if self._now() < entry.deadline:
                        return
                    self._log.warning("bus_order_given_up", node=entry.carrier)
                held.popleft()
                self._order.say(entry.carrier, entry.number)
                continue
            held.popleft()
            if isinstance(entry, int):
                if entry > 0:
                    self._send_mark(entry)
                else:
                    self._send_gap(-entry)
            else:
                self._held_bytes -= len(entry.data)
                self._release(entry)

    def gap(self) -> None:
        """Something that should have been published here is missing, nobody knows how much."""
        self.number += 1
        self._unnumbered = False
        if self._delivering or self._held:
            self._held.append(-self.number)
        else:
            self._send_gap(self.number)

    def _send_gap(self, number: int) -> None:
        if self._order.unsaid:
            self._say_after()
        self.seen[self.serial] = number
        frame = p.encode(p.Lost(0, number))
        for peer in self._peers.values():
            peer.post_fixed(number, frame)
        self._history.lost(self.serial, number)

    # Order.

    def mark(self) -> None:
        """A connection leaves: tell the others how far this node is. Before its `position`."""
        if self._unnumbered:
            # A message that nobody gets: who waits for it has what has to be before it.
            self.number += 1
            self._unnumbered = False
        if self.number == self._marked:
            return
        self._marked = self.number
        if self._delivering or self._held:
            self._held.append(self.number)
        else:
            self._send_mark(self.number)

    def _send_mark(self, number: int) -> None:
        if self._order.unsaid:
            self._say_after()
        self.seen[self.serial] = number
        last, self._mark_frame = self._mark_frame, p.encode(p.Mark(number))
        for peer in self._peers.values():
            fixed = peer.fixed
            if fixed and fixed[-1][1] is last:
                # Only the highest counts, and there may be one for each of many connections.
                fixed.pop()
                peer.other -= len(last)
            peer.post_fixed(number, self._mark_frame)

    def _say_after(self) -> None:
        number = self.seen[self.serial]
        for carrier, last in self._order.said().items():
            frame = p.encode(p.After(carrier, last))
            for peer in self._peers.values():
                peer.post_fixed(number, frame)

    def _barrier(self, carrier: int, number: int) -> Barrier:
        return Barrier(carrier, number, self._now() + PATIENCE)

    def _settle(self) -> None:
        """Somebody may have got what it waits for."""
        for _ in range(2):
            if self._order.stalled:
                for carrier in self._order.go_on(self.seen, self._live, self._now()):
                    self._log.warning("bus_order_given_up", node=carrier)
            if self._held:
                self._drain()

    # What comes.

    def take(self, peer: Peer, packets: list[p.Packet], at: int, stop: int) -> int:
        """Act on packets (see :class:`wssup.topics.peer.Owner`)."""
        carrier, source = peer.serial, peer.source
        seen, history, deliver = self.seen, self._history, self._deliver
        published = p.Published
        remembers = history.active
        received = 0
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
        finally:
            self._delivering = False
        if received:
            self._tell.received(received)
        if self._held or self._order.stalled:
            self._settle()
        return at

    def _act(self, peer: Peer, packet: Any) -> None:
        """Act on a packet that is no message."""

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
            self._quiet[peer.serial] = now + _QUIET
            self._log.warning(
                "bus_queue_full",
                node=peer.serial,
                bytes=peer.size,
                hint="it does not keep up: the oldest messages for it are dropped",
            )

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._held_bytes + sum(peer.queued for peer in self._peers.values())

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
