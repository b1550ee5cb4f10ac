"""The continuity oracle: clients that notice whatever a handoff could do to a stream.

Each client sends numbered messages without a pause: it never waits for an answer before it sends
the next message, up to a bound on what is unanswered. The application (`oracle_apps`) counts its
answers in ``ws.state`` and sends back what it was sent. Whatever is lost, doubled, reordered or
corrupted, in either direction, shows in the first answer that is not the expected one, byte by
byte; a ``ws.state`` that was lost, or one that two processes use, shows in its number.

All clients of an oracle live in one thread beside the test, on bare sockets: what they send, in
which pieces and under which masks (RFC 6455 section 5.3) is their own doing and no library's.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Self

from tests.harness import processes
from tests.harness.oracle_client import PATIENCE, Client, Kind
from tests.harness.raw import request

__all__ = ["Oracle"]

#: Seconds between two rounds of all clients: the server shall have some of the processor, too.
_BREATH = 0.002
#: Seconds between two looks at whether a client that has nothing to say was asked to.
_SWEEP = 0.03


class Oracle:
    """Clients beside the test.

    :param address: ``host:port``.
    :param kinds: one client of each.
    :param path: what they ask for.
    :param may_end: it is no fault if a client is closed (by a crash that the test makes).
    :ivar faults: what went wrong.
    """

    def __init__(
        self, address: str, kinds: Iterable[Kind], *, path: str = "/", may_end: bool = False
    ) -> None:
        host, _, port = address.rpartition(":")
        self.server_port = int(port)
        self.faults: list[str] = []
        self.clients: list[Client] = []
        self._where = (host, int(port))
        self._kinds = list(kinds)
        self._path = path
        self._may_end = may_end
        self._over = threading.Event()
        # Between a client's end and the fault that it is, nobody may look.
        self._turning = threading.Lock()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        try:
            for number, kind in enumerate(self._kinds):
                self.clients.append(Client(number, kind, self._where))
                self.clients[-1].socket.sendall(request(self._path))
            for client in self.clients:
                _upgraded(client.socket)
        except BaseException:
            self._close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._close()

    @property
    def living(self) -> list[Client]:
        """Those that were not closed."""
        return [client for client in self.clients if not client.ended]

    @property
    def ports(self) -> list[int]:
        """The local ports of those."""
        return [client.port for client in self.living]

    @property
    def codes(self) -> Counter[int]:
        """How the others ended."""
        return Counter(client.code for client in self.clients if client.ended)

    @property
    def pause(self) -> float:
        """The longest time between two answers to any client, in seconds."""
        return max(client.pause for client in self.clients)

    def wait(self, fact: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait for a fact; a fault of a client ends the wait.

        :raises AssertionError: a client has found a fault, or the fact never comes.
        """

        def known() -> object:
            with self._turning:
                return self.faults or fact()

        try:
            processes.until(known, seconds, what)
        except AssertionError as error:
            late = [client for client in self.living if not client.idle]
            raise AssertionError(f"{error}; not idle: {late[:10]}; {self.codes}") from None
        assert not self.faults, self.faults[:10]

    def go_on(self, answers: int = 2) -> None:
        """Every client that lives gets so many more answers, or ends."""
        goals = {client: client.answered + answers for client in self.living}
        for client in goals:
            if not client.kind.busy:
                client.wanted += answers
        self.wait(
            lambda: all(c.ended or c.answered >= goal for c, goal in goals.items()),
            "answers for all clients",
        )

    def served_by(self, generation: int) -> None:
        """Wait until each client was answered by this generation."""
        self.wait(
            lambda: all(client.generation == generation for client in self.living),
            f"answers of generation {generation} for all clients",
        )

    def settle(self) -> None:
        """Begin no more messages, and wait for the answers to all that were begun."""
        for client in self.clients:
            client.wanted = client.sent
        self.wait(lambda: all(client.idle for client in self.living), "all answers")

    def finish(self) -> None:
        """Settle, have all clients close, and see that each is closed with its own code."""
        self.settle()
        self._may_end = True
        left = self.living
        for client in left:
            client.leave()
        self.wait(lambda: not self.living, "all clients to be closed")
        assert {client.code for client in left} <= {1000}

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client in self.clients:
                client.socket.setblocking(False)
                selector.register(client.socket, selectors.EVENT_READ, client)
            sweep = 0.0
            while not self._over.is_set():
                ready = selector.select(_BREATH)
                for key, events in ready:
                    with self._turning:
                        self._turn(key.data, events)
                keys = [key for key, _ in ready]
                if time.monotonic() > sweep:
                    keys = list(selector.get_map().values())
                    sweep = time.monotonic() + _SWEEP
                for key in keys:
                    _watch(selector, key)
                time.sleep(_BREATH)

    def _turn(self, client: Client, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                client.hear()
            if events & selectors.EVENT_WRITE and not client.ended:
                client.say()
        except BlockingIOError:
            return
        except OSError:
            client.end()
        except Exception as error:  # noqa: BLE001 - whatever it stumbles over, it is a fault
            self.faults.append(f"{client!r}: {str(error) or repr(error)}")
            client.end()
            return
        if client.ended and not self._may_end:
            self.faults.append(f"{client!r} was closed with {client.code}")

    def _close(self) -> None:
        for client in self.clients:
            client.socket.close()


def _watch(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Look out for what a client can do now."""
    client: Client = key.data
    if client.ended:
        selector.unregister(key.fd)
        return
    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.may_write else 0)
    if key.events != events:
        selector.modify(key.fd, events, client)


def _upgraded(connection: socket.socket) -> None:
    """Read the answer to a handshake, and nothing after it: the server does not speak first."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        more = connection.recv(1 << 12)
        assert more, answer
        answer += more
    assert answer.startswith(b"HTTP/1.1 101 "), answer
