"""Publishing: numbers, queues, and the order of what is published by somebody who moves."""

from __future__ import annotations

from typing import Final

from wssup.topics import packets as p
from wssup.topics.message import Message
from wssup.topics.node import Node
from wssup.topics.order import PATIENCE, UTMOST, Barrier
from wssup.topics.peer import Peer

__all__ = ["MANY", "Publisher"]

#: Subscribers here of a message that leaves for other nodes before they get it: their sends take
#: far longer than the one call more.
MANY: Final = 32


class Publisher(Node):
    """What of :class:`wssup.topics.bus.Bus` publishes."""

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
        if self._order.unsaid:
            self._say_after()
        topic = message.topic
        peers = self._book.wanting(topic)
        if peers:
            self._queue(message, peers)
        self.seen[message.carrier] = message.number
        if self._history.active:
            self._history.add(message)
        if peers and self._news.counts.get(topic, 0) >= MANY:
            for peer in peers:
                peer.hurry()
        self._delivering = True
        try:
            self._deliver(message)
        except Exception as error:  # noqa: BLE001 - the boundary: the bus goes on, whatever it was
            self._log.error("deliver_failed", exc_info=error)
        finally:
            self._delivering = False
        self._tell.published(1)

    def _queue(self, message: Message, peers: tuple[Peer, ...]) -> None:
        """Have a message sent to other nodes."""
        topic, text, data, _, number, source, sequence, at, exclude = message
        mine = source == self._source
        frame = p.encode_published(
            number, topic, text, data, exclude, at, None if mine else source, sequence
        )
        item = (number, frame)
        size = len(frame)
        if size > p.LONGEST:
            self._too_long(topic, size, len(peers))
            return
        for peer in peers:
            peer.messages.append(item)
            peer.size += size
            if peer.size > peer.bound:
                peer.shed()
            if not peer.is_due:
                self.due(peer)

    def _too_long(self, topic: str, size: int, count: int) -> None:
        self._tell.lost_out(count)
        self._log.error("bus_message_too_long", topic=topic, bytes=size)

    def _drain(self, *, anyway: bool = False) -> None:
        """Publish what was held back, as far as nothing is waited for; or ``anyway``."""
        held = self._held
        until = self._turn_ends()
        while held and not self._delivering:
            entry = held[0]
            if isinstance(entry, Barrier):
                if not anyway and entry.stands(self.seen, self._live):
                    if not self._in_vain(entry):
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
                if self._now() >= until and held and not anyway and self.watcher is not None:
                    self.watcher.soon(self._settle)
                    return

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

    def _in_vain(self, barrier: Barrier) -> bool:
        """Whether something is waited for too long."""
        now = self._now()
        if now < barrier.deadline:
            return False
        return now >= barrier.deadline + UTMOST or not self._is_lively(barrier.carrier, now)

    def _settle(self) -> None:
        """Somebody may have got what it waits for."""
        for _ in range(2):
            if self._order.stalled:
                for carrier in self._order.go_on(self.seen, self._live, self._in_vain):
                    self._log.warning("bus_order_given_up", node=carrier)
            if self._held:
                self._drain()
