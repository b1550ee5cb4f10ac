"""A new node gets the history that an older one keeps; and an older one sends it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from wssup.errors import MessageError
from wssup.topics.history import Chunk, History
from wssup.topics.message import Message
from wssup.topics.packets import Entry, HistoryWanted, encode
from wssup.topics.packets import History as Piece

if TYPE_CHECKING:
    from wssup.topics.peer import Peer

__all__ = ["Learning", "Teaching"]

#: Seconds that each part of a history may take to come, and all of it, and that somebody who asks
#: for it waits for what is still on its way.
_PATIENCE: Final = 10.0
_UTMOST: Final = 60.0
_SHORT: Final = 2.0
#: Bytes of a part, about.
_PART: Final = 64 << 10


class Learning:
    """The histories that are to come: of the oldest node, all that it has, and then of each node
    that had published before there was a link to it, what the first one had not seen.

    :param serial: this node's; a younger one is not asked for all, for it may be asking this one.
    :ivar over: it is here, or will never be; what is asked for later changes nothing about it.
    """

    def __init__(self, serial: int, history: History) -> None:
        self._serial = serial
        self._history = history
        self.over = not history.configured
        self._first = True
        self._asked: Peer | None = None
        self._tried: set[int] = set()
        self._covered: dict[int, int] = {}
        self._caught_up = 0.0
        self._question = 0
        self._some = False
        self._deadline = self._utmost = 0.0

    def ask(self, peers: Mapping[int, Peer], seen: Mapping[int, int], now: float) -> None:
        """Ask the next one, if none is asked at the moment; older ones have greeted."""
        if self._asked is not None or not self._history.configured:
            return
        able = [p for s, p in peers.items() if p.remembers and s not in self._tried]
        if self._first:
            able = [peer for peer in able if peer.serial < self._serial]
            if not able:
                self._first = False
                if self._tried:
                    # What was published between this node's birth and its links is not known.
                    self._history.blind()
                able = [p for s, p in peers.items() if p.remembers and s not in self._tried]
        if not self._first:
            covered = self._covered
            able = [peer for peer in able if peer.met > covered.get(peer.serial, 0)]
        if not able:
            self.over = True
            return
        self._asked = min(able, key=lambda peer: peer.serial)
        self._tried.add(self._asked.serial)
        self._question += 1
        self._some = False
        self._deadline = now + _PATIENCE
        self._utmost = now + _UTMOST
        # What is above these comes over the other links.
        upto = {serial: seen[serial] for serial in peers if serial in seen}
        self._asked.post(encode(HistoryWanted(self._question, upto)))

    def piece(self, peer: Peer, piece: Piece, now: float) -> None:
        """A part came."""
        if peer is not self._asked or piece.question != self._question:
            return
        self._some = True
        self._deadline = min(now + _PATIENCE, self._utmost)
        messages = [
            Message(
                entry.topic,
                entry.text,
                entry.data,
                entry.carrier,
                entry.number,
                entry.source,
                entry.sequence,
                entry.at,
            )
            for entry in piece.kept
        ]
        self._history.merge(messages, piece.marks, piece.seen, last=piece.last)
        if piece.last:
            self._first = False
            self._asked = None
            for serial, number in piece.seen.items():
                self._covered[serial] = max(number, self._covered.get(serial, 0))
            self._caught_up = now + _SHORT

    def is_ahead(self, seen: Mapping[int, int], peers: Container[int], now: float) -> bool:
        """Whether what was learned is still on its way here on another link: who came back with a
        position would be given it twice. Not for long, for a node that does not get on.

        :param seen: what has come here.
        """
        return now < self._caught_up and any(
            serial in peers and seen.get(serial, 0) < number
            for serial, number in self._covered.items()
        )

    def left(self, peer: Peer) -> None:
        """A node is gone."""
        if peer is self._asked:
            self._asked = None
            if self._some:
                self._give_up()

    def beat(self, now: float) -> None:
        """Wait no longer than it may take."""
        if self._asked is not None and now >= self._deadline:
            self._asked = None
            self._give_up()

    def _give_up(self) -> None:
        if self._first or self._some:
            self._history.blind()
        self._first = False


class Teaching:
    """The histories that are being sent.

    :param seen: what this node has processed.
    """

    def __init__(self, history: History, seen: Mapping[int, int]) -> None:
        self._history = history
        self._seen = seen
        self._wanted: dict[Peer, tuple[HistoryWanted, float]] = {}
        self._sending: dict[Peer, tuple[int, dict[int, int], Iterator[Chunk]]] = {}

    def __bool__(self) -> bool:
        """Whether somebody waits for what is still on its way to this node."""
        return bool(self._wanted)

    def wanted(self, peer: Peer, packet: HistoryWanted, now: float) -> None:
        """A new node asks."""
        self._wanted[peer] = (packet, now + _SHORT)

    def begin(self, live: Mapping[int, object], now: float, due: Callable[[Peer], None]) -> None:
        """Begin to send to those for whom nothing is on its way any more."""
        seen = self._seen
        for peer, (packet, deadline) in list(self._wanted.items()):
            if now < deadline and (
                any(
                    serial in live and seen.get(serial, 0) < number
                    for serial, number in packet.upto.items()
                )
                # One that died before the new node was there, and was not read to its end here.
                or any(s < peer.serial and s not in packet.upto for s in live)
            ):
                continue
            del self._wanted[peer]
            chunks = self._history.snapshot(_PART)
            self._sending[peer] = (packet.question, dict(seen), chunks)
            due(peer)

    def left(self, peer: Peer) -> None:
        """A node is gone."""
        self._wanted.pop(peer, None)
        self._sending.pop(peer, None)

    def sends(self, peer: Peer) -> bool:
        """Whether a node is being sent a history."""
        return peer in self._sending

    def part(self, peer: Peer) -> bytes | None:
        """The next part for a node, as a packet."""
        sending = self._sending.get(peer)
        if sending is None:
            return None
        question, seen, chunks = sending
        chunk = next(chunks)
        if chunk.last:
            del self._sending[peer]
        kept = [
            Entry(m.topic, m.text, m.data, m.source, m.sequence, m.at, m.carrier, m.number)
            for m in chunk.messages
        ]
        try:
            return encode(Piece(question, kept, chunk.marks, seen, chunk.last))
        except MessageError:
            # Longer than can be sent: without its end the history counts as unknown.
            self._sending.pop(peer, None)
            return None
