"""What the nodes of the bus know of one another: what each wants and has, who is subscribed, and
the history that a new one gets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Unpack

from wssup.errors import MessageError
from wssup.topics import packets as p
from wssup.topics.asking import Found, Present, Questions
from wssup.topics.learning import Learning, Teaching
from wssup.topics.node import Parts
from wssup.topics.peer import ROOM, Peer
from wssup.topics.publishing import Publisher

__all__ = ["Knowing"]

#: Seconds that what was missed is asked for; bytes of answers that wait for a node.
_ASKING: Final = 2.0
_REPLIES: Final = 16 << 20
#: Bytes of names in one answer.
_NAMES: Final = 1 << 20
#: Seconds that a new node waits for what older ones have to say.
_SNAPSHOT: Final = 2.0

Answer = Callable[[p.Recovered], None]


class Knowing(Publisher):
    """What of :class:`wssup.topics.bus.Bus` knows the others; see there."""

    def __init__(self, serial: int, node: str, **parts: Unpack[Parts]) -> None:
        super().__init__(serial, node, **parts)
        self.members: Callable[[str, int], tuple[list[str], int]] = lambda _topic, _limit: ([], 0)
        self.on_interest: Callable[[str, bool], None] | None = None
        self.on_recover: Callable[[p.Recover, Answer], bool] | None = None
        self._questions = Questions()
        self._learning = Learning(serial, self._history)
        self._teaching = Teaching(self._history, self.seen)
        #: Older nodes that have not said all yet, and until when they are waited for.
        self._unknown: dict[int, float] = {}
        self._then: list[Callable[[], None]] = []
        self._acts: dict[type, Callable[[Peer, Any], None]] = {
            p.Greeting: self._greeted,
            p.Interest: self._interest,
            p.Complete: self._complete,
            p.Counts: self._counts,
            p.Lost: self._lost,
            p.Mark: lambda peer, packet: self._saw(peer.serial, packet.number),
            p.After: self._after,
            p.Ask: self._asked,
            p.Members: lambda peer, packet: _run(self._questions.members(peer.serial, packet)),
            p.HistoryWanted: self._history_wanted,
            p.History: self._piece,
            p.Recover: self._recover_asked,
            p.Recovered: lambda peer, packet: _run(self._questions.recovered(peer.serial, packet)),
        }

    def link(self, serial: int, end: socket.socket) -> None:
        """There is a new node.

        :param end: of a stream to it, owned from now on.
        """
        self._news.keeper = self.on_recover is not None
        super().link(serial, end)

    def _beat(self, now: float) -> None:
        _run(self._questions.expired(now))
        self._learning.beat(now)
        for serial in [s for s, until in self._unknown.items() if until <= now]:
            del self._unknown[serial]
        if self._teaching:
            self._teaching.begin(self._peers, now, self.due)
        self._look()

    def take(self, peer: Peer, packets: list[p.Packet], at: int, stop: int) -> int:
        """Act on packets (see :class:`wssup.topics.around.Owner`)."""
        at = super().take(peer, packets, at, stop)
        if self._teaching:
            self._teaching.begin(self._peers, self._now(), self.due)
        return at

    def _linked(self, peer: Peer) -> None:
        if peer.serial < self.serial:
            self._unknown[peer.serial] = self._now() + _SNAPSHOT

    def _left(self, peer: Peer) -> None:
        serial = peer.serial
        self._unknown.pop(serial, None)
        self._learning.left(peer)
        self._teaching.left(peer)
        _run(self._questions.left(serial))
        self._look()

    def _act(self, peer: Peer, packet: Any) -> None:
        self._acts[type(packet)](peer, packet)

    def _greeted(self, peer: Peer, packet: p.Greeting) -> None:
        if packet.protocol != p.PROTOCOL:
            raise MessageError(f"version {packet.protocol} of the bus; this is {p.PROTOCOL}")
        if packet.serial != peer.serial:
            raise MessageError(f"node {packet.serial} where {peer.serial} should be")
        if not peer.greeted:
            peer.met = packet.number
            self._history.linked(peer.serial, packet.number)
        peer.greeted, peer.complete = True, False
        peer.remembers, peer.keeper = packet.history, packet.keeper
        peer.carries = packet.everything and not packet.history
        peer.counts.clear()
        self._saw(peer.serial, packet.number)
        self._book.greeted(peer.serial, everything=packet.everything)

    def _complete(self, peer: Peer, _packet: p.Complete) -> None:
        peer.complete = True
        self._interest_changed(self._book.completed(peer.serial), on=False)
        self._unknown.pop(peer.serial, None)
        self._look()

    def _interest(self, peer: Peer, packet: p.Interest) -> None:
        change = self._book.on if packet.on else self._book.off
        self._interest_changed(change(peer.serial, packet.topics), on=packet.on)

    def _interest_changed(self, topics: Iterable[str], *, on: bool) -> None:
        if self.on_interest is not None:
            for topic in topics:
                self.on_interest(topic, on)

    def _counts(self, peer: Peer, packet: p.Counts) -> None:
        for topic, count in packet.counts.items():
            if count > 0:
                peer.counts[topic] = count
            else:
                peer.counts.pop(topic, None)

    def _lost(self, peer: Peer, packet: p.Lost) -> None:
        self._saw(peer.serial, packet.number)
        self._history.lost(peer.serial, packet.number)
        if packet.count:
            self._tell.lost_in(packet.count)

    def _after(self, peer: Peer, packet: p.After) -> None:
        barrier = self._barrier(packet.carrier, packet.number)
        if barrier.stands(self.seen, self._live):
            peer.waits = barrier
            self._order.stalled.append(peer)

    # What others know.

    def subscribers(self, topic: str) -> int:
        """Subscribers in the instance, as far as this node has heard."""
        count = self._news.counts.get(topic, 0)
        for peer in self._peers.values():
            count += peer.counts.get(topic, 0)
        return count

    def ask(self, topic: str, limit: int, answer: Present, timeout: float = 1.0) -> None:
        """Who is subscribed to a topic, in the instance.

        :param limit: names at most.
        :param answer: gets names, the count, and whether all nodes have answered: in a turn of the
            watcher, at the latest about ``timeout`` seconds from now.
        """
        asked = [
            peer
            for peer in self._peers.values()
            if not peer.complete or topic in peer.counts or self._book.says(peer.serial, topic)
        ]
        able = [peer for peer in asked if peer.other < ROOM]
        question = self._questions.presence(
            [peer.serial for peer in able],
            self._now() + timeout,
            limit,
            answer,
            self.members(topic, limit),
            complete=len(able) == len(asked),
        )
        self._put(able, p.Ask(question, topic, limit))

    def recover(
        self,
        topic: str,
        marks: Mapping[str, int],
        limit: int,
        answer: Found,
        timeout: float = _ASKING,
    ) -> None:
        """What came after these marks, from the nodes that keep it otherwise (`on_recover`).

        :param answer: gets the messages and whether nothing is missing, as in `ask`.
        """
        asked = [peer for peer in self._peers.values() if peer.keeper]
        able = [peer for peer in asked if peer.other < ROOM]
        deadline = self._now() + timeout
        question = self._questions.recovery(
            [peer.serial for peer in able], deadline, limit, answer, complete=bool(able)
        )
        self._put(able, p.Recover(question, topic, dict(marks), limit))

    def _put(self, able: list[Peer], packet: p.Ask | p.Recover) -> None:
        try:
            frame = p.encode(packet)
        except MessageError as error:
            self._log.error("bus_question_unsaid", error=str(error))
            self._soon(lambda: _run(self._questions.give_up(packet.question)))
            return
        for peer in able:
            peer.post(frame)
        if not able:
            self._soon(lambda: _run(self._questions.settle(packet.question)))

    def _asked(self, peer: Peer, packet: p.Ask) -> None:
        if peer.other < ROOM:
            names, count = self.members(packet.topic, packet.limit)
            try:
                frame = p.encode(p.Members(packet.question, packet.topic, count, _fitting(names)))
            except MessageError:
                # A name that cannot be sent. How many there are can.
                frame = p.encode(p.Members(packet.question, packet.topic, count, []))
            peer.post(frame)

    def _recover_asked(self, peer: Peer, packet: p.Recover) -> None:
        deadline = self._now() + _ASKING
        over = False

        def reply(piece: p.Recovered) -> None:
            nonlocal over
            # Who asked waits no longer; and a node that does not read gets no more.
            if over or peer.closed or self._now() > deadline:
                return
            if peer.other > _REPLIES:
                over = True
                piece = p.Recovered(packet.question, [], complete=False, last=True)
            try:
                frame = p.encode(piece)
            except MessageError:
                over = True
                last = p.Recovered(packet.question, [], complete=False, last=True)
                frame = p.encode(last)
            peer.post(frame)

        if self.on_recover is None or not self.on_recover(packet, reply):
            reply(p.Recovered(packet.question, [], complete=False, last=True))

    # What a new node waits for.

    def ready(self) -> bool:
        """Whether the older nodes have said what they want and have, and sent a history."""
        learning = self._learning
        return (
            self.watcher is not None
            and not self._unknown
            and learning.over
            and not learning.is_ahead(self.seen, self._peers, self._now())
        )

    def when_complete(self, then: Callable[[], None]) -> None:
        """Call back, in a turn of the watcher, once this node is `ready`."""
        self._then.append(then)
        self._look()

    def _look(self) -> None:
        """Look whether somebody need not wait any more."""
        if self.watcher is not None and not self._unknown:
            self._learning.ask(self._peers, self.seen, self._now())
            if self._then and self.ready():
                then, self._then = self._then, []
                for chore in then:
                    self._soon(chore)

    def _history_wanted(self, peer: Peer, packet: p.HistoryWanted) -> None:
        self._teaching.wanted(peer, packet, self._now())
        self._teaching.begin(self._peers, self._now(), self.due)

    def _piece(self, peer: Peer, packet: p.History) -> None:
        self._learning.piece(peer, packet, self._now())
        self._look()

    def refill(self, peer: Peer) -> None:
        """A link has room: for what that node does not know, and for a part of the history."""
        super().refill(peer)
        if self._teaching.sends(peer):
            # One part in each turn: the others are served in between.
            if peer.is_fed:
                peer.is_hungry = True
                return
            part = self._teaching.part(peer)
            if part is not None:
                peer.is_fed = True
                peer.say_fixed(self.seen[self.serial], part)

    def _soon(self, chore: Callable[[], None]) -> None:
        if self.watcher is not None:
            self.watcher.soon(chore)


def _fitting(names: list[str]) -> list[str]:
    """As many names as one answer may have."""
    size = 0
    for at, name in enumerate(names):
        size += len(name) + 5
        if size > _NAMES:
            return names[:at]
    return names


def _run(chores: Iterable[Callable[[], None]]) -> None:
    for chore in chores:
        chore()
