"""A WebSocket client on a bare socket: it sees every byte, and can send what no library would."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, Self

#: Seconds for one exchange: ten times what a busy machine needs.
PATIENCE = 60.0

#: RFC 6455 section 5.2.
TEXT, CLOSE, PING = 1, 8, 9
#: What is told of a connection that ended without a close frame (RFC 6455 section 7.1.5).
ABNORMAL = 1006


def request(path: str = "/", *further: bytes, host: bytes = b"test") -> bytes:
    """An upgrade request (RFC 6455 section 4.1); ``further`` lines replace those of their name."""
    lines = {
        b"host": b"Host: " + host,
        b"upgrade": b"Upgrade: websocket",
        b"connection": b"Connection: Upgrade",
        b"sec-websocket-key": b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"sec-websocket-version": b"Sec-WebSocket-Version: 13",
    }
    lines |= {line.partition(b":")[0].lower(): line for line in further}
    return b"\r\n".join([b"GET %s HTTP/1.1" % path.encode(), *lines.values(), b"", b""])


def frame(opcode: int, payload: bytes) -> bytes:
    """A final frame from a client. The masking key is zero, which masks nothing (section 5.3)."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
    return head + bytes(4) + payload


class Ending(NamedTuple):
    """How a connection ended: close code, seconds (monotonic), and texts that came before."""

    code: int
    at: float
    texts: list[str]


class Raw:
    """One connection.

    :param address: ``host:port``, or ``unix:`` and a path, as the status tells it.
    :param source: the address to connect from.
    """

    def __init__(self, address: str, patience: float = PATIENCE, *, source: str = "") -> None:
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(patience)
            self.socket.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection(
                (host.strip("[]"), int(port)), patience, (source, 0) if source else None
            )
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def open(self, path: str = "/") -> Self:
        """Do the opening handshake."""
        self.socket.sendall(request(path))
        answer = self.head()
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return self

    def head(self) -> bytes:
        """The head of the answer; what there is of it if the connection ends."""
        while b"\r\n\r\n" not in self._buffer and self._more():
            pass
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def rest(self) -> bytes:
        """Everything up to the end of the connection; a reset is an end too."""
        while self._more():
            pass
        return self._buffer

    def ask(self, text: str) -> str:
        """Say something and hear the answer."""
        self.say(text)
        while (found := self.frame())[0] == PING:
            pass  # what it says is answer enough
        opcode, payload = found
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    def say(self, text: str) -> None:
        """Send a text message."""
        self.socket.sendall(frame(TEXT, text.encode()))

    def fragments(self, *texts: str) -> None:
        """Send one text message in several frames (RFC 6455 section 5.4)."""
        for index, text in enumerate(texts):
            data = frame(TEXT if index == 0 else 0, text.encode())
            final = index == len(texts) - 1
            self.socket.sendall(data if final else bytes([data[0] & 0x7F]) + data[1:])

    def frame(self) -> tuple[int, bytes]:
        """The next frame from the server; opcode -1 at the end of the connection."""
        while (found := self._parse()) is None:
            if not self._more():
                return -1, b""
        return found

    def ending(self) -> Ending:
        """Wait for the end of the connection; a close frame is answered."""
        return endings([self])[0]

    def close(self, code: int = 1000) -> Ending:
        """Begin the closing handshake and wait for its end."""
        self.socket.sendall(frame(CLOSE, struct.pack("!H", code)))
        return self.ending()

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except (ConnectionResetError, BrokenPipeError):
            return False
        self._buffer += data
        return bool(data)

    def _parse(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 2:
            return None
        length, start = self._buffer[1] & 0x7F, 2
        if length > 125:
            size = 2 if length == 126 else 8
            start += size
            length = int.from_bytes(self._buffer[2:start], "big")
        if len(self._buffer) < start + length:
            return None
        found = self._buffer[0] & 0x0F, self._buffer[start : start + length]
        self._buffer = self._buffer[start + length :]
        return found


def endings(clients: Sequence[Raw], patience: float = PATIENCE) -> list[Ending]:
    """Wait until all have ended, answering close frames as they come; in the clients' order."""
    found: dict[Raw, Ending] = {}
    texts: dict[Raw, list[str]] = {client: [] for client in clients}
    deadline = time.monotonic() + patience

    def take(client: Raw) -> None:
        """Look at the frames that were read."""
        while (got := client._parse()) is not None:
            opcode, payload = got
            if opcode == TEXT:
                texts[client].append(payload.decode())
            elif opcode == CLOSE and client not in found:
                code = int.from_bytes(payload[:2], "big")
                found[client] = Ending(code, time.monotonic(), texts[client])
                # If the server is gone, the next read says so.
                with suppress(ConnectionResetError, BrokenPipeError):
                    client.socket.sendall(frame(CLOSE, payload[:2]))

    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            # What came together with the handshake is not told of again.
            take(client)
        while selector.get_map():
            left = deadline - time.monotonic()
            assert left > 0, f"{len(selector.get_map())} of {len(clients)} have not ended"
            for key, _ in selector.select(left):
                heard: Raw = key.data
                alive = heard._more()
                take(heard)
                if not alive:
                    selector.unregister(heard.socket)
                    found.setdefault(heard, Ending(ABNORMAL, time.monotonic(), texts[heard]))
    return [found[client] for client in clients]


@contextmanager
def raw_clients(address: str, count: int, path: str = "/") -> Iterator[list[Raw]]:
    """So many open WebSockets."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Raw(address)) for _ in range(count)]
        # All requests first: the server works on them at the same time.
        for client in clients:
            client.socket.sendall(request(path))
        for client in clients:
            answer = client.head()
            assert answer.startswith(b"HTTP/1.1 101 "), answer
        yield clients


@contextmanager
def spread_clients(address: str, slots: int, least: int) -> Iterator[dict[int, list[Raw]]]:
    """Open WebSockets until every slot holds at least so many; by slot.

    The application must answer "who" with the slot first. A slot that was just started gets its
    share within a second.
    """
    found: dict[int, list[Raw]] = {slot: [] for slot in range(slots)}
    # Those that are too many stay meanwhile: a worker that has fewer than others comes next.
    many: list[Raw] = []
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while any(len(clients) < least for clients in found.values()):
            assert time.monotonic() < deadline, {s: len(c) for s, c in found.items()}
            client = stack.enter_context(Raw(address)).open()
            slot = int(client.ask("who").split()[0])
            if len(found[slot]) < 2 * least:
                found[slot].append(client)
            else:
                many.append(client)
        for client in many:
            client.close()
        yield found
