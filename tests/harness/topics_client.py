"""One client of the oracle of topics: what it publishes, and what it makes sure of.

What one connection of a publisher publishes to one topic is a *stream*, numbered from 1. A
subscriber hears each stream from the point where it subscribed, without a gap, in order, nothing
twice; the text of each message is computed from its number and compared. A publisher whose
connection ended begins new streams with the next one: the end of the old ones may be cut off, but
not what was published before by workers that were not killed.
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import socket
import struct
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.harness.oracle_client import BINARY, PATIENCE, PING, frame
from tests.harness.raw import ABNORMAL, CLOSE, TEXT, request

__all__ = ["Book", "Client", "FaultError", "Kind", "Stream"]

_WORDS = "\N{SNOWMAN}a\N{GRINNING FACE}\0 é{}=" * 600
#: Publications that may be unanswered, and seconds between two.
_WINDOW, _PACE = 4, 0.02
#: Seconds that one stays, and stays away, who comes and goes.
_STAY = 0.15
_MASK = b"\x5a\xc3\x01\xfe"


class Kind(NamedTuple):
    """What a client does.

    :ivar hears: topics that it subscribes to.
    :ivar tells: topics that it publishes to; what it says there it does not hear itself.
    :ivar positions: it has positions told, and after a pause asks for what it has missed.
    :ivar passing: it unsubscribes and subscribes again, all the time.
    """

    name: str
    hears: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()
    positions: bool = False
    passing: bool = False


@dataclass
class Stream:
    """What one connection has published to one topic.

    :ivar sent: how many messages; ``acked``: how many the application says that it has published.
    :ivar acks: the last number that each process has published, in their order.
    :ivar over: the connection has ended without a goodbye.
    """

    topic: str
    sent: int = 0
    acked: int = 0
    acks: dict[int, int] = field(default_factory=dict)
    over: bool = False

    def safe(self, killed: set[int]) -> int:
        """The last number that must have reached everybody, when these processes were killed."""
        if not self.over:
            return self.sent
        return max((n for pid, n in self.acks.items() if pid not in killed), default=0)


@dataclass
class Book:
    """What all clients know of each other.

    :ivar kinds: of the clients, by number.
    :ivar streams: by publisher (``NUMBER.TIME``) and topic.
    """

    kinds: list[Kind] = field(default_factory=list)
    streams: dict[tuple[str, str], Stream] = field(default_factory=dict)

    def sort(self, who: str, topic: str, number: int) -> str:
        """How a message is published: publishers do not hear themselves."""
        if topic in self.kinds[int(who.partition(".")[0])].hears:
            return "others"
        return "bytes" if (len(topic) + number) % 3 == 0 else "text"


class FaultError(Exception):
    """A client was told what it must not be told."""


def said(topic: str, who: str, number: int) -> str:
    """A message: different from all others, of any stream."""
    length = (0, 3, 40, 125, 700, 2600)[(number + len(topic)) % 6]
    return f"{topic} {who} {number} {_WORDS[number % 97 :][:length]}"


class Client:
    """One client.

    :ivar heard: the last number of each stream.
    :ivar pid: the process that has answered last.
    :ivar recovered: how often each process has told it that nothing was missed.
    :ivar answers: what came on commands of the test: command and answer.
    :ivar code: the close code that ended it, 1006 if none did; 0 while it lives.
    :ivar may_speak: it publishes.
    """

    def __init__(self, number: int, kind: Kind, address: tuple[str, int], book: Book) -> None:
        self.number, self.kind = number, kind
        self.heard: dict[tuple[str, str], int] = {}
        self.answers: deque[tuple[str, str]] = deque()
        self.recovered: Counter[int] = Counter()
        self.pid = self.code = self.times = 0
        self.may_speak = self.leaving = False
        self._address, self._book = address, book
        self._positions: dict[str, str] = {}
        #: Streams heard since the last subscription to a topic without ``since``: such a one
        #: knows nothing of the one before, nor of the worker that this had been in.
        self._since: dict[str, set[str]] = {}
        self._chance = random.Random(number)
        self.connect()

    def __repr__(self) -> str:
        return f"client {self.number}.{self.times} ({self.kind.name}) at {self.pid}"

    def connect(self) -> None:
        """Connect, anew if it was before.

        :raises OSError: it cannot.
        """
        self.socket = socket.create_connection(self._address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.times += 1
        self.code = self._told_code = 0
        self.subscribed: set[str] = set()
        self._asked: deque[tuple[str, str, int]] = deque()
        self._buffer = bytearray()
        self._out = bytearray(request("/"))
        self._upgraded = False
        self._next_at = self._turn_at = 0.0
        for topic in self.kind.hears:
            self.subscribe(topic)

    @property
    def me(self) -> str:
        """Its name as a publisher."""
        return f"{self.number}.{self.times}"

    @property
    def lives(self) -> bool:
        """Whether its connection is open."""
        return not self.code

    @property
    def ready(self) -> bool:
        """Whether it is subscribed to all that it wants."""
        return self.lives and self._upgraded and self.subscribed >= set(self.kind.hears)

    @property
    def idle(self) -> bool:
        """Whether everything that it asked for was answered."""
        return not self._out and not self._asked and self._upgraded

    @property
    def wants_to_write(self) -> bool:
        """Whether the kernel did not take everything."""
        return bool(self._out)

    def subscribe(self, topic: str) -> None:
        """Ask for a topic; for what was missed, too, if it knows since when."""
        options: dict[str, Any] = {"member": f"m{self.number}"}
        since = self._positions.get(topic) if self.kind.positions else None
        if self.kind.positions:
            options |= {"positions": True, "since": since}
        if not self.kind.positions and (self.times > 1 or self.kind.passing):
            self._since[topic] = set()
        self._ask("sub", topic, json.dumps(options))

    def command(self, line: str) -> None:
        """Say something for the test."""
        self._ask("test", "", line)

    def turn(self, now: float) -> None:
        """Do what it is time for."""
        if not self.lives or not (self.ready or self.kind.passing):
            return
        if self.may_speak and now >= self._next_at and len(self._asked) < _WINDOW:
            self._next_at = now + _PACE * self._chance.uniform(0.5, 1.5)
            for topic in self.kind.tells:
                self.publish(topic)
        if self.kind.passing and self.may_speak and now >= self._turn_at and not self._asked:
            self._turn_at = now + _STAY * self._chance.uniform(0.1, 2)
            for topic in self.kind.hears:
                if topic in self.subscribed:
                    self._ask("unsub", topic, "")
                else:
                    self.subscribe(topic)
        self.write()

    def publish(self, topic: str) -> None:
        """Publish the next message."""
        stream = self._book.streams.setdefault((self.me, topic), Stream(topic))
        stream.sent += 1
        sort = self._book.sort(self.me, topic, stream.sent)
        self._ask("pub", topic, f"{sort} {said(topic, self.me, stream.sent)}", stream.sent)

    def write(self) -> None:
        """Send what the kernel takes.

        :raises OSError: the connection is broken.
        """
        while self._out:
            try:
                sent = self.socket.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]

    def hear(self) -> None:
        """Take what came.

        :raises FaultError: it is not what had to come.
        """
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        if not data:
            self.end()
            return
        self._buffer += data
        if not self._upgraded:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                raise FaultError(f"refused: {bytes(head)!r}")
            self._upgraded, self._buffer = True, rest
        for opcode, payload in self._frames():
            self._take(opcode, payload)

    def leave(self) -> None:
        """Say goodbye."""
        self.leaving = True
        self._out += frame(CLOSE, struct.pack("!H", 1000), _MASK)

    def end(self) -> None:
        """The connection is over: so are its streams."""
        self.code = self._told_code or ABNORMAL
        self.socket.close()
        if not self.leaving:
            for topic in self.kind.tells:
                if (stream := self._book.streams.get((self.me, topic))) is not None:
                    stream.over = True

    def missing(self, killed: set[int]) -> list[str]:
        """What it should have heard and has not."""
        found = []
        for (who, topic), stream in list(self._book.streams.items()):
            if topic not in self.kind.hears or who.partition(".")[0] == str(self.number):
                continue
            if stream.over and not self._strict(topic):
                continue
            least, last = stream.safe(killed), self.heard.get((who, topic), 0)
            if last < least:
                found.append(f"{self!r} has {last} of {who} {topic}, of {least}: {stream}")
        return found

    def _strict(self, topic: str) -> bool:
        """Whether nothing may be missing from the beginning on."""
        return topic not in self._since

    def _ask(self, what: str, topic: str, rest: str, number: int = 0) -> None:
        self._asked.append((what, topic, number))
        line = rest if what == "test" else f"{what} {topic} {rest}"
        self._out += frame(TEXT, line.encode(), self._chance.randbytes(4))

    def _frames(self) -> list[tuple[int, bytes]]:
        """The whole frames that came; the server sends each message in one, unmasked."""
        buffer, found, at = self._buffer, [], 0
        while len(buffer) - at >= 2:
            first, length, start = buffer[at], buffer[at + 1], at + 2
            if not first & 0x80 or first & 0x70 or length & 0x80:
                raise FaultError(f"its stream is out of step: {bytes(buffer[at : at + 20])!r}")
            if length > 125:
                start += 2 if length == 126 else 8
                length = int.from_bytes(buffer[at + 2 : start], "big")
            if len(buffer) < start + length:
                break
            found.append((first & 0x0F, bytes(buffer[start : start + length])))
            at = start + length
        del buffer[:at]
        return found

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._out += frame(10, payload, _MASK)
        elif opcode == CLOSE:
            self._told_code = int.from_bytes(payload[:2], "big")
            if not self.leaving:
                self._out += frame(CLOSE, payload[:2], _MASK)
        elif opcode == TEXT and payload.startswith(b"="):
            self._answered(payload.decode())
        else:
            self._message(opcode, payload)

    def _answered(self, text: str) -> None:
        """An answer: ``= COMMAND REST``; they come in the order of the commands."""
        what, _, rest = text[2:].partition(" ")
        asked, topic, number = self._asked.popleft()
        if asked == "test":
            self.answers.append((what, rest))
            return
        if asked != what or rest.startswith("error "):
            raise FaultError(f"the answer to {asked} {topic} is {text[:300]}")
        if what == "pub":
            self.pid = int(rest)
            stream = self._book.streams[self.me, topic]
            stream.acked, stream.acks[self.pid] = number, number
        elif what == "sub":
            self._subscribed(topic, json.loads(rest))
        elif what == "unsub":
            self.subscribed.discard(topic)
            if json.loads(rest) != {"topic": topic, "was": True}:
                raise FaultError(f"unsubscribed: {rest}")

    def _subscribed(self, topic: str, told: dict[str, Any]) -> None:
        self.pid = told["pid"]
        if self.kind.positions and topic in self._positions:
            if told["recovered"] is not True:
                raise FaultError(f"{topic} was not recovered: {told}")
            self.recovered[self.pid] += 1
        self.subscribed.add(topic)
        # One that came with a message, which may be before this answer, is newer.
        self._positions.setdefault(topic, told["position"])

    def _message(self, opcode: int, payload: bytes) -> None:
        """A message of a topic: ``PID TOPIC WHO NUMBER TEXT``, in an envelope or not."""
        envelope: dict[str, str] = {}
        if opcode == TEXT and payload.startswith(b"{"):
            envelope = json.loads(payload)
            opcode, payload = _opened(envelope)
        if bool(envelope) is not self.kind.positions:
            raise FaultError(f"an envelope or none: {payload[:60]!r}")
        try:
            _, message = payload.decode().split(" ", 1)
            topic, who, told, _ = message.split(" ", 3)
            number = int(told)
        except ValueError:
            raise FaultError(f"a message that nobody has published: {payload[:80]!r}") from None
        if (who, topic) not in self._book.streams:
            raise FaultError(f"a message that nobody has published: {payload[:80]!r}")
        wanted = BINARY if self._book.sort(who, topic, number) == "bytes" else TEXT
        if message != said(topic, who, number) or opcode != wanted:
            raise FaultError(f"{message[:60]!r} ({opcode}) instead of number {number} of {who}")
        if who == self.me:
            raise FaultError(f"its own message {number} of {topic}")
        # What an earlier connection of its own said is new for this one.
        if who.partition(".")[0] != str(self.number):
            self._count(who, topic, number)
        if envelope:
            if envelope["topic"] != topic:
                raise FaultError(f"a message of {topic} as one of {envelope['topic']}")
            self._positions[topic] = envelope["position"]

    def _count(self, who: str, topic: str, number: int) -> None:
        if not (topic in self.subscribed or any(a[:2] == ("sub", topic) for a in self._asked)):
            raise FaultError(f"{topic} {who} {number}, and it is not subscribed to that")
        last = self.heard.get((who, topic), 0)
        first = not self._strict(topic) and who not in self._since[topic]
        if number <= last and not first:
            raise FaultError(f"number {number} of {who} {topic} again, or late, after {last}")
        if number != last + 1 and not first:
            stream = self._book.streams[who, topic]
            raise FaultError(f"number {number} of {who} {topic} after {last}: {stream}")
        if first:
            self._since[topic].add(who)
        self.heard[who, topic] = number


def _opened(envelope: dict[str, str]) -> tuple[int, bytes]:
    """What is in an envelope."""
    if "data" in envelope:
        return TEXT, envelope["data"].encode()
    try:
        return BINARY, base64.b64decode(envelope["base64"], validate=True)
    except binascii.Error as error:
        raise FaultError(f"no base64: {envelope!s:.80}") from error
