"""Listeners on real sockets, and who is met at them."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable

from wssup.supervisor.address import Address
from wssup.supervisor.listeners import Listeners

__all__ = ["Make", "meet", "only", "port_of"]

Make = Callable[..., Listeners]


def port_of(address: Address) -> int:
    return int(str(address).rpartition(":")[2])


def only(found: Listeners) -> Address:
    (address,) = found.addresses.values()
    return address


def meet(address: Address, slots: int, clients: int) -> Counter[int]:
    """Connect from several addresses; how many came to each slot's listener."""
    port = port_of(address)
    with contextlib.ExitStack() as stack:
        for number in range(clients):
            client = stack.enter_context(socket.socket())
            client.bind((f"127.0.0.{number % 7 + 2}", 0))
            client.settimeout(20)
            client.connect(("127.0.0.1", port))
        came: Counter[int] = Counter()
        selector = stack.enter_context(selectors.DefaultSelector())
        for slot in range(slots):
            listener = stack.enter_context(socket.socket(fileno=os.dup(address.fileno(slot))))
            selector.register(listener, selectors.EVENT_READ, (slot, listener))
        deadline = time.monotonic() + 20
        while came.total() < clients:
            assert time.monotonic() < deadline, came
            for key, _ in selector.select(1):
                slot, listener = key.data
                with contextlib.suppress(BlockingIOError):
                    while True:
                        listener.accept()[0].close()
                        came[slot] += 1
    return came
