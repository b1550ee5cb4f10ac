"""One link of the bus: a socket to one other node, what waits to be sent on it, and what was read.

What waits is of three kinds. *Urgent* packets may overtake messages. *Messages* are bounded: when
there are too many, the oldest go, and one `Lost` stands in their place. *Fixed* packets keep their
place among the messages: each knows the number of the last message before it. All work is done in
turns of the watcher, a bounded piece in each.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import Final

from wssup.errors import MessageError
from wssup.topics.around import Owner
from wssup.topics.news import Reader
from wssup.topics.order import Barrier
from wssup.topics.packets import Feed, Lost, Packet, encode

__all__ = ["Peer"]

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_FLAGS: Final = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
#: Bytes of one read, reads of a turn, and packets of a turn.
READ: Final = 64 << 10
_READS: Final = 4
_PACKETS: Final = 512
#: Bytes that are sent with one call, about, and in one turn.
_BATCH: Final = 64 << 10
_TURN: Final = 1 << 20
#: Bytes of packets that are no messages, above which only what cannot be left out is added.
ROOM: Final = 256 << 10


class Peer:
    """One link.

    :param serial: the node at its other end; :param source: that one's name among all nodes.
    :param end: owned from now on.
    :param bound: bytes of messages that may wait.
    :param reader: what it is told of this node.
    :ivar waits: the link is not read before the messages of a carrier have come up to a number.
    :ivar greeted: the other end has said who it is; ``complete``: and all of its interest.
    :ivar heard: when something of it was last taken, by its owner's clock.
    :ivar is_fed: it was given a piece of something long in this turn; ``is_hungry``: there is more.
    :ivar met: this node's number in the other end's greeting.
    """

    __slots__ = (
        "_at",
        "_attended",
        "_broken",
        "_chunk",
        "_end",
        "_fd",
        "_feed",
        "_go_later",
        "_in_chunk",
        "_mask",
        "_owner",
        "_packets",
        "bound",
        "carries",
        "closed",
        "complete",
        "counts",
        "fixed",
        "greeted",
        "heard",
        "is_due",
        "is_fed",
        "is_hungry",
        "keeper",
        "lost",
        "lost_number",
        "messages",
        "met",
        "other",
        "reader",
        "remembers",
        "serial",
        "size",
        "source",
        "urgent",
        "waits",
    )

    def __init__(  # noqa: PLR0917 - one caller
        self,
        owner: Owner,
        serial: int,
        source: str,
        end: socket.socket,
        bound: int,
        reader: Reader,
    ) -> None:
        end.setblocking(False)
        self._owner = owner
        self.serial = serial
        self.source = source
        self._end = end
        self._fd = end.fileno()
        self.bound = bound
        self.reader = reader
        #: Subscribers there, by topic.
        self.counts: dict[str, int] = {}
        self.greeted = self.complete = self.closed = False
        self.keeper = self.remembers = False
        #: It may have what others published; who knows before it has greeted.
        self.carries = True
        self.met = 0
        self.heard = 0.0
        self.waits: Barrier | None = None
        # To send. `messages` and `size` are written by the bus for each message.
        self.messages: deque[tuple[int, bytes]] = deque()
        self.size = 0
        self.urgent: deque[bytes] = deque()
        self.fixed: deque[tuple[int, bytes]] = deque()
        self.other = 0
        self.lost = 0
        self.lost_number = 0
        self.is_due = self.is_fed = self.is_hungry = False
        self._chunk: bytes | memoryview = b""
        self._in_chunk = 0
        self._broken = False
        # Read.
        self._feed = Feed()
        self._packets: list[Packet] = []
        self._at = 0
        self._mask = _IN
        self._attended = False
        self._go_later = False

    # Queueing.

    def post(self, frame: bytes) -> None:
        """Queue a packet that may overtake messages."""
        self.say(frame)
        self._owner.due(self)

    def say(self, frame: bytes) -> None:
        """The same, when the link asks for it (`Owner.refill`)."""
        self.urgent.append(frame)
        self.other += len(frame)

    def say_fixed(self, number: int, frame: bytes) -> None:
        """As `say`, after the message of this number."""
        self.fixed.append((number, frame))
        self.other += len(frame)

    def post_fixed(self, number: int, frame: bytes) -> None:
        """Queue a packet after the message of this number."""
        self.say_fixed(number, frame)
        self._owner.due(self)

    def shed(self) -> None:
        """Drop the oldest messages until the others have room."""
        messages = self.messages
        count = 0
        # One alone has room, however long it is.
        while self.size > self.bound and len(messages) > 1:
            self.lost_number, frame = messages.popleft()
            self.size -= len(frame)
            count += 1
        if count:
            self.lost += count
            self._owner.dropped(self, count)

    @property
    def queued(self) -> int:
        """Bytes that wait."""
        return self.size + self.other + len(self._chunk)

    @property
    def unsent(self) -> int:
        """Messages that wait; of those in the piece under way the kernel may have some already."""
        return len(self.messages) + (self._in_chunk if self._chunk else 0)

    # Sending.

    def flush(self) -> None:
        """Send, unless the kernel has yet to say that it has room."""
        if not self._mask & _OUT or not self._attended:
            self._flush()

    def hurry(self) -> None:
        """Send what waits, if the kernel has room; the turn's end is yet to come."""
        if not self._mask & _OUT and self._attended:
            self._send()

    def _flush(self) -> None:
        """Send what there is to say."""
        self.is_fed = self.is_hungry = False
        self._send()

    def _send(self) -> None:
        """Send what the kernel takes, up to a turn's worth."""
        owner = self._owner
        left = _TURN
        while not self._broken and not self.closed:
            chunk = self._chunk or self._next()
            if not chunk:
                self._want(_IN)
                if self.is_hungry:
                    owner.due(self)
                return
            if left <= 0:
                self._chunk = chunk
                owner.due(self)
                return
            try:
                count = self._end.send(chunk, _FLAGS)
            except BlockingIOError:
                self._chunk = chunk
                self._want(_IN | _OUT)
                return
            except OSError:
                # Who is gone may have left something to read: only the end of that is the end.
                self._broken = True
                break
            left -= count
            if count < len(chunk):
                self._chunk = memoryview(chunk)[count:]
            else:
                self._chunk = b""
        self._forget()

    def _next(self) -> bytes:
        """What is sent next, in one piece."""
        if self.other < ROOM:
            self._owner.refill(self)
        urgent, fixed, messages = self.urgent, self.fixed, self.messages
        parts: list[bytes] = []
        count = size = 0
        if not urgent and not fixed and not self.lost and self.size <= _BATCH:
            parts = [frame for _, frame in messages]
            count, size = len(parts), self.size
            messages.clear()
            self.size = 0
        while size < _BATCH:
            if urgent:
                frame = urgent.popleft()
                self.other -= len(frame)
            elif self.lost:
                frame = encode(Lost(self.lost, self.lost_number))
                self.lost = 0
            elif fixed and (not messages or fixed[0][0] < messages[0][0]):
                _, frame = fixed.popleft()
                self.other -= len(frame)
            elif messages:
                _, frame = messages.popleft()
                self.size -= len(frame)
                count += 1
            else:
                break
            parts.append(frame)
            size += len(frame)
        self._in_chunk = count
        if parts:
            self._owner.sent(count, size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _forget(self) -> None:
        self.messages.clear()
        self.urgent.clear()
        self.fixed.clear()
        self.size = self.other = self.lost = 0
        self._chunk = b""

    # Reading.

    def begin(self) -> None:
        """There is a watcher now."""
        self._attend()
        self._owner.due(self)

    def _attend(self) -> None:
        watcher = self._owner.watcher
        if watcher is not None:
            self._attended = True
            watcher.attend(self._fd, self._mask, self._heard)

    def _want(self, mask: int) -> None:
        if self.waits is not None:
            mask &= ~_IN
        if mask != self._mask:
            self._mask = mask
            if self._attended:
                self._attend()

    def _heard(self, bits: int) -> None:
        if bits & _OUT:
            self._flush()
        if not bits & ~_OUT or self.closed:
            return
        if self.waits is None:
            if not self._go_later:
                self.go()
        elif not bits & _IN and self._owner.watcher is not None:
            # Its other end is gone, which is reported for ever; what it left is read later.
            self._attended = False
            self._owner.watcher.leave(self._fd)

    def resume(self) -> None:
        """What the link waited for has come."""
        self.waits = None
        if self.closed:
            return
        self._want(self._mask | _IN)
        if not self._attended:
            self._attend()
        self._later()

    def _later(self) -> None:
        if not self._go_later and self._owner.watcher is not None:
            self._go_later = True
            self._owner.watcher.soon(self._went)

    def _went(self) -> None:
        self._go_later = False
        if not self.closed and self.waits is None:
            self.go()

    def go(self) -> None:
        """Take what was read, and read, a bounded piece of it."""
        try:
            self._go()
        except MessageError as error:
            self._owner.ended(self, str(error))

    def _go(self) -> None:  # noqa: C901 - a read's whole way, with each of its ends
        left = _PACKETS
        more = True
        for _ in range(_READS):
            packets, at = self._packets, self._at
            if at < len(packets):
                stop = self._owner.take(self, packets, at, min(len(packets), at + left))
                self._at = stop
                left -= stop - at
                if self.closed:
                    return
                if stop == len(packets):
                    self._packets, self._at = [], 0
                if self.waits is not None:
                    self._want(self._mask)
                    return
                if self._packets:
                    self._later()
                    return
            if not more or left <= 0:
                return
            try:
                data = self._end.recv(READ, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # said once, before what the other end had sent
            except OSError as error:
                self._owner.ended(self, str(error))
                return
            if not data:
                self._owner.ended(self, "")
                return
            more = len(data) == READ
            self._packets = self._feed.feed(data)
        if self._packets:
            self._later()

    def close(self) -> None:
        """Close the link; nothing is called afterwards."""
        if self.closed:
            return
        self.closed = True
        if self._attended and self._owner.watcher is not None:
            self._owner.watcher.leave(self._fd)
        self._forget()
        self._packets, self._at = [], 0
        self._end.close()
