"""What the kernel does with the program that goes by the client's address, and what listeners tell
of connections that wait, on real sockets.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
import trio

from tests.harness import bpf, processes
from wssup.supervisor.address import Address
from wssup.supervisor.bpf import source_program
from wssup.supervisor.listeners import Listeners

SLOTS = 4


@pytest.fixture
def both() -> Iterator[Listeners]:
    """Listeners of four slots for both families."""
    found = Listeners(backlog=1024, mode=0o660)
    found.extend(SLOTS)
    found.add(found.bind(["[::]:0"]))
    yield found
    found.close_all()


def only(found: Listeners) -> Address:
    (address,) = found.addresses.values()
    return address


@contextlib.contextmanager
def connected(found: Listeners, *sources: str) -> Iterator[None]:
    """Connections from these addresses."""
    port = int(str(only(found)).rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for source in sources:
            v6 = ":" in source
            client = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
            stack.enter_context(client).settimeout(20)
            client.bind((source, 0))
            client.connect(("::1" if v6 else "127.0.0.1", port))
        yield


def came(found: Listeners, source: str) -> int:
    """The slot that a connection from an address comes to."""
    before = found.queued()
    with connected(found, source):
        # The client may be done before its last segment is.
        processes.until(lambda: sum(found.queued()) > sum(before), 30, "the connection")
        (slot,) = [s for s, n in enumerate(found.queued()) if n > before[s]]
    return slot


def header(source: str) -> bytes:
    """The part of an IP header that counts."""
    if ":" in source:
        return bytes([0x60, *bytes(7)]) + socket.inet_pton(socket.AF_INET6, source) + bytes(16)
    return bytes([0x45, *bytes(11)]) + socket.inet_aton(source) + bytes(4)


def test_an_address_meets_the_same_slot_in_the_kernel(both: Listeners) -> None:
    """On a listener of both families every connection from one address, IPv4 or IPv6, comes to the
    slot that the interpreter finds, whatever its port; also when a slot is parked. All slots get
    some.
    """
    sources = [f"127.{n % 7}.{n % 11}.{n + 1}" for n in range(60)] + ["::1", "127.0.0.1"]
    for shares in ([1, 1, 1, 1], [1, 0, 1, 1]):
        both.steer(shares, by_source=True)
        code = source_program(shares)
        met = {source: {came(both, source) for _ in range(2)} for source in sources}
        assert met == {source: {bpf.run(code, packet=header(source))} for source in sources}
        slots = {slot for slots in met.values() for slot in slots}
        assert slots == {slot for slot, share in enumerate(shares) if share}


def test_a_later_address_is_steered_by_source_too(both: Listeners) -> None:
    """An address that a reload adds gets the program that is in force."""
    both.steer([1] * SLOTS, by_source=True)
    slot = came(both, "127.0.0.9")
    made = both.bind(["127.0.0.2:0"])
    both.add(made)
    both.close(only_first(both))
    assert came_at(both, "127.0.0.9") == slot


def only_first(found: Listeners) -> str:
    return next(iter(found.addresses))


def came_at(found: Listeners, source: str) -> int:
    """As :func:`came`, at an address of its own host."""
    address = only(found)
    host, _, port = str(address).rpartition(":")
    before = address.queued()
    with socket.socket() as client:
        client.settimeout(20)
        client.bind((source, 0))
        client.connect((host, int(port)))
        processes.until(lambda: sum(address.queued()) > sum(before), 30, "the connection")
        (slot,) = [s for s, n in enumerate(address.queued()) if n > before[s]]
    return slot


def test_queues_are_told_by_slot(both: Listeners) -> None:
    """Connections that nobody has accepted are told of the slot whose they will be."""
    both.steer([0, 1, 0, 0])
    assert both.queued() == [0, 0, 0, 0]
    with connected(both, *["127.0.0.1"] * 5):
        processes.until(lambda: both.queued() == [0, 5, 0, 0], 30, "the queue")
    listener = socket.socket(fileno=only(both).fileno(1))
    try:
        for _ in range(2):
            listener.accept()[0].close()
    finally:
        listener.detach()
    assert both.queued() == [0, 3, 0, 0]


async def test_a_connection_wakes(both: Listeners) -> None:
    """Who waits for arrivals wakes when a connection comes to any slot, once: one that stays in the
    queue does not wake again, also when it came before the wait.
    """
    arrivals = both.arrivals
    with trio.fail_after(30):
        for slot in range(SLOTS):
            both.steer([int(s == slot) for s in range(SLOTS)])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(arrivals.wait)
                with connected(both, "127.0.0.1"):
                    pass
            arrivals.forget()
        with trio.move_on_after(0.05) as quiet:
            await arrivals.wait()
        assert quiet.cancelled_caught
        assert sum(both.queued()) == SLOTS
        both.close_all()
        with trio.move_on_after(0.05) as quiet:
            await arrivals.wait()
        assert quiet.cancelled_caught
