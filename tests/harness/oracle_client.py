"""One client of the continuity oracle: what it sends, and what it makes sure of."""

from __future__ import annotations

import math
import random
import socket
import struct
import time
from collections import deque
from typing import NamedTuple

from tests.harness.raw import ABNORMAL, CLOSE, TEXT

__all__ = ["FRAGMENTS", "LARGE", "ODD", "PATIENCE", "PLAIN", "QUIET", "Client", "Kind", "mixed"]

BINARY, PING, PONG, _CONTINUATION = 2, 9, 10, 0
MIB = 1 << 20

#: Seconds for whatever is waited for: ten times what a busy machine needs.
PATIENCE = 60.0
#: Letters of one to four bytes, among them NUL: a cut goes through the middle of most.
_LETTERS = "\N{SNOWMAN}a\N{GRINNING FACE}\0\N{LATIN SMALL LETTER E WITH ACUTE}" * 5000
_NOISE = random.Random(6455).randbytes(MIB + 1000)


class Kind(NamedTuple):
    """What a client sends.

    :ivar window: how many messages may be unanswered.
    :ivar parts: frames of a message; between two of them there is a ping.
    :ivar letters: how long its texts are, in turn.
    :ivar size: bytes of its messages, which are binary then.
    :ivar odd: it writes in pieces of a few bytes, so that the server reads of a frame now this part
        and now that.
    :ivar busy: it sends by itself; or only when the test asks for it.
    """

    name: str
    window: int
    parts: int = 1
    letters: tuple[int, ...] = (0, 1, 20, 60, 200)
    size: int = 0
    odd: bool = False
    busy: bool = True


PLAIN = Kind("plain", 8, letters=(0, 1, 41, 42, 43, 200, 22_000, 24_000))
FRAGMENTS = Kind("fragments", 4, parts=5, letters=(3, 50, 300, 3000))
LARGE = Kind("large", 2, size=MIB)
ODD = Kind("odd", 14, parts=2, letters=(0, 1, 5, 50), odd=True)
QUIET = Kind("quiet", 4, busy=False)


def mixed(count: int) -> list[Kind]:
    """So many clients, of all kinds that send by themselves."""
    some = [LARGE] + 5 * [PLAIN] + 5 * [FRAGMENTS] + 4 * [ODD]
    return [some[index % len(some)] for index in range(count)]


def content(kind: Kind, number: int, index: int) -> bytes:
    """A client's message: different from all others, of any client."""
    head = f"{number}:{index}:"
    if kind.size:
        return (head.encode() + _NOISE[index % 997 :])[: kind.size]
    letters = kind.letters[(number + index) % len(kind.letters)]
    start = (7 * number + index) % 500
    return (head + _LETTERS[start : start + letters]).encode()


def frame(opcode: int, payload: bytes, mask: bytes, *, final: bool = True) -> bytes:
    """A frame from a client, really masked (RFC 6455 section 5.2)."""
    length = len(payload)
    first = opcode | (0x80 if final else 0)
    if length < 126:
        head = struct.pack("!BB", first, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, length)
    whole = (mask * (length // 4 + 1))[:length]
    body = int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")
    return head + mask + body.to_bytes(length, "big")


class _FaultError(Exception):
    """A client was sent what it must not be sent."""


class Client:
    """One client.

    :ivar port: its local port.
    :ivar sent: messages that it has begun; ``answered``: those that were answered, all correctly.
    :ivar wanted: messages that it may begin.
    :ivar deaf: it takes nothing of what it is sent.
    :ivar generation: of the worker that gave the last answer; ``pid`` its process.
    :ivar pause: the longest time between two answers, in seconds.
    :ivar code: the close code that ended it, 1006 if none did; 0 while it lives.
    """

    def __init__(self, number: int, kind: Kind, address: tuple[str, int]) -> None:
        self.number, self.kind = number, kind
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.socket.getsockname()[1]
        self.wanted = math.inf if kind.busy else 0
        self.sent = self.answered = self.code = 0
        self.generation = self.pid = 0
        self.pause = 0.0
        self.ended = self.leaving = self.deaf = False
        self._pinged = self._ponged = 0
        self._heard_at = 0.0
        self._told_code = 0
        self._chance = random.Random(number)
        self._out: deque[memoryview] = deque()
        self._buffer = bytearray()

    def __repr__(self) -> str:
        return f"client {self.number} ({self.kind.name}, {self.answered} answers)"

    @property
    def idle(self) -> bool:
        """Whether everything that it began was answered."""
        return not self._out and self.sent == self.answered and self._pinged == self._ponged

    @property
    def may_write(self) -> bool:
        """Whether it has something to send."""
        return bool(self._out) or (
            not self.leaving
            and self.sent < self.wanted
            and self.sent - self.answered < self.kind.window
        )

    def say(self) -> None:
        """Send what the kernel takes, as far as the window; or a piece.

        :raises BlockingIOError: it takes no more.
        """
        while self.may_write:
            if not self._out:
                self._begin()
            data = self._out[0]
            piece = data[: self._chance.randint(1, 23)] if self.kind.odd else data
            sent = self.socket.send(piece)
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = data[sent:]
            if self.kind.odd:
                return

    def hear(self) -> None:
        """Take what came.

        :raises _FaultError: it is not what had to come.
        """
        if self.deaf:
            return
        data = self.socket.recv(1 << 18)
        if not data:
            self.end()
            return
        self._buffer += data
        while (found := self._frame()) is not None:
            self._take(*found)

    def leave(self, code: int = 1000) -> None:
        """Say goodbye after what it has begun."""
        if not self.leaving:
            self.leaving = True
            self._append(frame(CLOSE, struct.pack("!H", code), self._chance.randbytes(4)))

    def end(self) -> None:
        """The connection is over."""
        self.ended = True
        self.code = self._told_code or ABNORMAL
        self.socket.close()

    def _begin(self) -> None:
        payload = content(self.kind, self.number, self.sent)
        self.sent += 1
        if self.sent - self.answered == 1:
            self._heard_at = time.monotonic()
        ends = sorted(self._chance.randint(0, len(payload)) for _ in range(self.kind.parts - 1))
        opcode = BINARY if self.kind.size else TEXT
        for start, end in zip([0, *ends], [*ends, None], strict=True):
            if opcode == _CONTINUATION:
                self._append(frame(PING, b"%d" % self._pinged, self._chance.randbytes(4)))
                self._pinged += 1
            part = payload[start:end]
            self._append(frame(opcode, part, self._chance.randbytes(4), final=end is None))
            opcode = _CONTINUATION

    def _append(self, data: bytes) -> None:
        self._out.append(memoryview(data))

    def _frame(self) -> tuple[int, bytes] | None:
        """The next whole frame; the server sends each message in one, unmasked."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, length, start = buffer[0], buffer[1], 2
        if not first & 0x80 or first & 0x70 or length & 0x80:
            raise _FaultError(f"its stream is out of step: {bytes(buffer[:20])!r}")
        if length > 125:
            start += 2 if length == 126 else 8
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return None
        payload = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return first & 0x0F, payload

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PONG:
            if payload != b"%d" % self._ponged:
                raise _FaultError(f"pong {payload!r} instead of {self._ponged}")
            self._ponged += 1
        elif opcode == PING:
            self._append(frame(PONG, payload, self._chance.randbytes(4)))
        elif opcode == CLOSE:
            self._told_code = int.from_bytes(payload[:2], "big")
            self.leave(self._told_code)
        else:
            self._check(opcode, payload)

    def _check(self, opcode: int, payload: bytes) -> None:
        """An answer: ``NUMBER GENERATION PID MESSAGE``."""
        now = time.monotonic()
        self.pause = max(self.pause, now - self._heard_at)
        self._heard_at = now
        if self.answered == self.sent:
            raise _FaultError(f"an answer to nothing: {payload[:60]!r}")
        expected = content(self.kind, self.number, self.answered)
        number, generation, pid, message = payload.split(b" ", 3)
        if opcode != (BINARY if self.kind.size else TEXT) or message != expected:
            raise _FaultError(
                f"the answer to message {self.answered} has {_shown(message)} instead of "
                f"{_shown(expected)}"
            )
        if int(number) != self.answered:
            raise _FaultError(f"the answer to message {self.answered} is numbered {int(number)}")
        self.generation, self.pid = int(generation), int(pid)
        self.answered += 1


def _shown(message: bytes) -> str:
    return f"{message[:40]!r} ({len(message)} bytes)"
