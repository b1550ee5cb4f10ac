"""Thousands of people in rooms, in a process of their own: each counts what it hears.

``python -m tests.e2e.crowd HOST:PORT PEOPLE`` connects them to the room of
`wssup.examples.fastapi_room`, thirty to a room. What is said to everybody is numbered (``n 17``),
and so is what one says in a room (``c12.0: 5``): a number that is missing, or comes twice, is a
problem. It is told what to do in lines on its standard input, and answers each with a line of JSON.

====================  ==========================================================================
``talk RATE``         that many sentences a second from now on, each by somebody else
``heard N``           whether all that are connected have heard number N, and their own last words
``report``            `Crowd.report`
====================  ==========================================================================
"""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any, Final

__all__ = ["ROOM"]

#: People in a room.
ROOM: Final = 30
#: Handshakes that are under way at a time.
_AT_ONCE: Final = 200
_PATIENCE: Final = 0.02
_KEY: Final = base64.b64encode(bytes(16)).decode()


class Person:
    """One client.

    :ivar heard: the last number that was said to everybody; 0: none yet.
    :ivar others: of each who speaks in the room, the last number.
    :ivar served: the process that serves it.
    :ivar losses: how often it was disconnected, by which process it had been served then, and from
        which port.
    """

    __slots__ = (
        *("buffer", "epoch", "fd", "heard", "losses", "moves", "name", "number", "others"),
        *("port", "said", "served", "sock", "up", "version"),
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.epoch = -1
        self.moves = 0
        self.losses: list[tuple[int, int, int]] = []
        self.sock: socket.socket | None = None
        self.fd = -1
        self.up = False
        self.said = 0

    def begin(self, address: tuple[str, int]) -> None:
        """Connect, anew."""
        self.epoch += 1
        self.name = f"c{self.number}.{self.epoch}"
        self.up = False
        self.buffer = b""
        self.heard = self.said = self.served = 0
        self.version = ""
        self.others: dict[bytes, int] = {}
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.fd = self.sock.fileno()
        self.port = 0
        error = self.sock.connect_ex(address)
        assert error in {0, errno.EINPROGRESS}, os.strerror(error)


class Crowd:
    """All of them."""

    def __init__(self, address: tuple[str, int], people: int) -> None:
        self._address = address
        self._epoll = select.epoll()
        self._by_fd: dict[int, Person] = {}
        self._people = [Person(number) for number in range(people)]
        self._waiting = list(reversed(self._people))
        self._coming = 0
        self._talking: list[Person] = []
        self._rate = 0.0
        self._next = 0.0
        self.problems: list[str] = []

    def run(self) -> None:
        """Until the standard input ends."""
        self._epoll.register(0, select.EPOLLIN)
        while True:
            while self._waiting and self._coming < _AT_ONCE:
                self._connect(self._waiting.pop())
            self._talk()
            for fd, bits in self._epoll.poll(_PATIENCE):
                if fd == 0:
                    line = os.read(0, 4096).decode()
                    if not line:
                        return
                    for command in line.splitlines():
                        sys.stdout.write(json.dumps(self._obey(command.split())) + "\n")
                        sys.stdout.flush()
                    continue
                person = self._by_fd.get(fd)
                if person is not None:
                    self._serve(person, bits)

    # What it is told.

    def _obey(self, words: list[str]) -> Any:
        match words:
            case ["talk", rate]:
                self._rate, self._next = float(rate), time.monotonic()
                return True
            case ["heard", number]:
                # Who spoke has heard itself.
                return not self._waiting and all(
                    p.up and p.heard == int(number) and p.others.get(p.name.encode(), 0) == p.said
                    for p in self._people
                )
            case ["report"]:
                return self.report()
        raise AssertionError(words)

    def report(self) -> dict[str, Any]:
        """How everybody is: how many are in, served by how many of which version, and their moves;
        who was disconnected (served by which process, from which port, with which code); problems.
        """
        inside = [p for p in self._people if p.up]
        return {
            "inside": len(inside),
            "versions": sorted({p.version for p in inside}),
            "served": {
                pid: sum(p.served == pid for p in inside) for pid in {p.served for p in inside}
            },
            "ports": {p.number: p.port for p in inside},
            "least_moves": min((p.moves for p in inside), default=0),
            "losses": [loss for p in self._people for loss in p.losses],
            "said": sum(p.said for p in inside),
            "problems": self.problems[:20],
        }

    # What they do.

    def _connect(self, person: Person) -> None:
        person.begin(self._address)
        self._coming += 1
        self._by_fd[person.fd] = person
        self._epoll.register(person.fd, select.EPOLLOUT)

    def _talk(self) -> None:
        now = time.monotonic()
        while self._rate and now >= self._next:
            self._next += 1 / self._rate
            person = random.choice(self._people)
            if person.up:
                person.said += 1
                self._send(person, 1, str(person.said).encode())

    def _send(self, person: Person, opcode: int, payload: bytes) -> None:
        """A masked frame (RFC 6455 section 5.2) that a socket always has room for here."""
        assert person.sock is not None
        assert len(payload) < 126
        frame = struct.pack("!BB4s", 0x80 | opcode, 0x80 | len(payload), bytes(4)) + payload
        try:
            sent = person.sock.send(frame)
        except OSError as error:
            self._lost(person, error.errno or 0)
            return
        assert sent == len(frame)

    def _serve(self, person: Person, bits: int) -> None:
        assert person.sock is not None
        if bits & select.EPOLLOUT:
            room = person.number // ROOM
            request = (
                f"GET /ws?name={person.name}&room=r{room} HTTP/1.1\r\nHost: h\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            try:
                person.sock.send(request.encode())
            except OSError as error:
                self._lost(person, error.errno or 0)
                return
            person.port = person.sock.getsockname()[1]
            self._epoll.modify(person.fd, select.EPOLLIN)
            return
        try:
            data = person.sock.recv(65536)
        except OSError as error:
            self._lost(person, error.errno or 0)
            return
        if not data:
            self._lost(person, 0)
            return
        person.buffer += data
        if not person.up:
            head, end, rest = person.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.problems.append(f"{person.name}: {head.splitlines()[0]!r}")
                self._lost(person, 0)
                return
            person.up, person.buffer = True, rest
            self._coming -= 1
        self._frames(person)

    def _frames(self, person: Person) -> None:
        buffer, place = person.buffer, 0
        while len(buffer) - place >= 2:
            size = buffer[place + 1]
            assert size < 126, "a frame larger than any here"
            if len(buffer) - place < 2 + size:
                break
            opcode = buffer[place] & 15
            payload = buffer[place + 2 : place + 2 + size]
            place += 2 + size
            if opcode == 1:
                self._hear(person, payload)
            elif opcode == 9:
                self._send(person, 10, payload)
            elif opcode == 8:
                self._lost(person, int.from_bytes(payload[:2], "big"))
                return
        person.buffer = buffer[place:]

    def _hear(self, person: Person, text: bytes) -> None:
        if text.startswith(b"n "):
            number = int(text[2:])
            if person.heard and number != person.heard + 1:
                self.problems.append(f"{person.name}: {number} after {person.heard} to all")
            person.heard = number
        elif text.startswith(b"served "):
            _, version, served, resumed = text.decode().split()
            person.version, person.served = version, int(served)
            person.moves += int(resumed)
        elif not text.startswith(b"* "):
            who, _, said = text.partition(b": ")
            before = person.others.get(who)
            if before is not None and int(said) != before + 1:
                self.problems.append(f"{person.name}: {said!r} after {before} by {who!r}")
            person.others[who] = int(said)

    def _lost(self, person: Person, code: int) -> None:
        """Disconnected: note it, and come again."""
        assert person.sock is not None
        person.losses.append((person.served, person.port, code))
        if not person.up:
            self._coming -= 1
        person.up = False
        del self._by_fd[person.fd]
        person.sock.close()
        self._waiting.insert(0, person)


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    Crowd((host, int(port)), int(sys.argv[2])).run()
