"""Hostile clients against a real worker: its memory, its other clients, and what is counted."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.raw import CLOSE, PATIENCE, TEXT, Raw, frame, raw_clients, request

Start = Callable[..., Instance]

#: Event style: an echo without tasks.
EVENT = """\
class App:
    def on_receive(self, ws, data):
        ws.send_nowait(data)

app = App()
"""
#: Seconds that a client who does nothing wrong may wait for an echo: it usually takes a thousandth.
DELAY = 5.0
MIB = 1 << 20
PING = 9


class _Small(Raw):
    """A client with a small receive buffer: it must be so before the connection is made."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((host, int(port)))
        self._buffer = b""


@contextmanager
def _watched(instance: Instance, most: int) -> Iterator[Callable[[], None]]:
    """Somebody who stands by and must be answered, and the worker's memory, which must not grow by
    more than that. Gives what looks at both.
    """
    instance.running()
    address, pid = instance.address(), instance.workers()[0]
    with raw_clients(address, 50) as clients:
        for client in clients:
            assert client.ask("hello") == "hello"
    before = processes.pss(pid)
    with Raw(address) as bystander:
        bystander.open()

        def look() -> None:
            began = time.monotonic()
            bystander.say("still there?")
            while (found := bystander.frame())[0] == PING:
                pass  # what it says is answer enough
            assert found == (TEXT, b"still there?")
            assert time.monotonic() - began < DELAY
            grown = processes.pss(pid) - before
            assert grown < most, f"{grown / MIB:.1f} MiB more than before"

        yield look
        look()
        assert instance.workers()[0] == pid
        bystander.close()


def _answer(client: Raw) -> tuple[int, bytes]:
    """What somebody is told, but pings: a busy machine takes its time between two clients."""
    while (found := client.frame())[0] == PING:
        pass
    return found


def _wait_counts(
    instance: Instance, look: Callable[[], None], what: str, expected: dict[str, int]
) -> None:
    """Wait until so many have ended for these reasons, and for no other but those of _watched."""

    def found(status: dict[str, dict[str, dict[str, int]]]) -> dict[str, int]:
        by_reason = status["connections"][what]
        return {name: n for name, n in by_reason.items() if n and name not in {"client", "lost"}}

    def enough(status: dict[str, dict[str, dict[str, int]]]) -> bool:
        look()
        return sum(found(status).values()) >= sum(expected.values())

    assert found(instance.wait(enough, f"{expected}", 30)) == expected


def _flood(
    clients: list[Raw], data: bytes, most: int, quiet: float, look: Callable[[], None]
) -> None:
    """Have all send ``data`` again and again, until each has sent that much or is cut off, or the
    server takes no more of anybody for so many seconds.
    """
    sent = dict.fromkeys(clients, 0)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.socket.setblocking(False)
            selector.register(client.socket, selectors.EVENT_WRITE, client)
        while selector.get_map() and (ready := selector.select(quiet)):
            for key, _ in ready:
                client = key.data
                try:
                    sent[client] += client.socket.send(data[sent[client] % len(data) :])
                except (ConnectionResetError, BrokenPipeError):
                    sent[client] = most
                if sent[client] >= most:
                    selector.unregister(client.socket)
            look()


def test_what_is_more_than_allowed(start: Start) -> None:
    """Fragments without end, frames that announce too much, frames and heads that come byte by
    byte: the worker's memory stays, others are answered, and all are counted by name.
    """
    instance = start(
        workers=1,
        limits={"handshake_timeout": 5},
        heartbeat={"ping_interval": 0.5, "ping_timeout": 4},
    )
    with _watched(instance, 16 * MIB) as look, ExitStack() as stack:
        address = instance.address()
        fragments = stack.enter_context(raw_clients(address, 5))
        for client in fragments:
            client.socket.sendall(b"\x01\x80\0\0\0\0" + b"\0\x80\0\0\0\0" * 100_000)
            look()
            opcode, payload = _answer(client)
            assert (opcode, payload[:2]) == (CLOSE, b"\x03\xf1")
            client.socket.close()
        for announced, code in ((1 << 63, 1002), ((1 << 63) - 1, 1009), (MIB + 1, 1009)):
            with raw_clients(address, 10) as clients:
                for client in clients:
                    client.socket.sendall(b"\x82\xff" + announced.to_bytes(8, "big"))
                    opcode, payload = _answer(client)
                    assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
                look()
        lorises = stack.enter_context(raw_clients(address, 100))
        look()
        halves = [stack.enter_context(Raw(address)) for _ in range(100)]
        head, announcing = request("/" + "x" * 100), b"\x82\xff" + MIB.to_bytes(8, "big") + bytes(4)
        look()
        for at in range(50):
            # On a busy machine their time may be over before they have said all.
            with suppress(BrokenPipeError, ConnectionResetError):
                for client in lorises:
                    client.socket.sendall(announcing[at : at + 1] or b"x")
            with suppress(BrokenPipeError, ConnectionResetError):
                for client in halves:
                    client.socket.sendall(head[at : at + 1])
            look()
        expected = {"too_big": 25, "protocol": 10, "timeout": 100}
        _wait_counts(instance, look, "closed_by_reason", expected)
        _wait_counts(instance, look, "handshake_failures_by_reason", {"timeout": 100})


def test_who_takes_nothing(start: Start) -> None:
    """Clients that send and do not read, messages or pings: the worker holds no more for each than
    outbound_bytes and a message, and closes those for which it waits in vain.
    """
    instance = start(
        EVENT,
        workers=1,
        limits={"outbound_bytes": 64 << 10, "send_timeout": 2, "close_timeout": 1},
        heartbeat={"ping_interval": 0},
    )
    with _watched(instance, 16 * MIB) as look, ExitStack() as stack:
        address = instance.address()
        echoes, pingers = (
            [stack.enter_context(_Small(address)).open() for _ in range(count)] for count in (10, 5)
        )
        _flood(pingers, frame(PING, b"x" * 125) * 100, 8 * MIB, 5.0, look)
        _flood(echoes, frame(TEXT, b"x" * 8192), 64 * MIB, 0.3, look)
        _wait_counts(instance, look, "closed_by_reason", {"slow_client": 15})


def test_who_is_not_there_any_more(start: Start) -> None:
    """Clients that are gone without a word are closed when they answer no ping, and what they held
    is given back.
    """
    instance = start(EVENT, workers=1, heartbeat={"ping_interval": 0.5, "ping_timeout": 2})
    with _watched(instance, 4 * MIB) as look:
        with ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(raw_clients(instance.address(), 50))
                look()
            _wait_counts(instance, look, "closed_by_reason", {"timeout": 500})
        codes = instance.status()["connections"]["closed_by_code"]
        assert codes["server"] == {"1011": 500}
