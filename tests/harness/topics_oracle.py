"""The oracle of topics: clients that notice whatever may happen to a message between the one who
publishes it and the many who hear it.

All clients live in one thread beside the test, on bare sockets. Publishers publish numbered
messages without a pause; every subscriber compares each message with the one that has to come next
(`topics_client`), so what is lost, doubled, out of order or altered shows at once, except for the
last ones, which `Oracle.settle` asks for.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Self

from tests.harness import processes
from tests.harness.clients import SERVICE_RESTART
from tests.harness.oracle_client import PATIENCE
from tests.harness.raw import ABNORMAL
from tests.harness.topics_client import Book, Client, Kind, Stream

__all__ = ["TopicsOracle"]

#: How clients of a killed worker are cut off, and those that did not get away from it.
_CUT_OFF = {ABNORMAL, SERVICE_RESTART}
#: Seconds between two rounds of all clients.
_BREATH = 0.005


class TopicsOracle:
    """Clients beside the test.

    :param address: ``host:port``.
    :param kinds: one client of each.
    :ivar faults: what went wrong.
    :ivar killed: processes that the test has killed.
    :ivar may_end: whose connection is cut off comes again, and it is no fault.
    :ivar codes: how connections ended that did so without a goodbye.
    """

    def __init__(self, address: str, kinds: Iterable[Kind]) -> None:
        host, _, port = address.rpartition(":")
        self.book = Book(list(kinds))
        self.faults: list[str] = []
        self.killed: set[int] = set()
        self.may_end = False
        self.codes: Counter[int] = Counter()
        self.clients: list[Client] = []
        self._where = (host, int(port))
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        for number, kind in enumerate(self.book.kinds):
            self.clients.append(Client(number, kind, self._where, self.book))
        self._thread.start()
        try:
            self.wait(lambda: all(c.ready for c in self.clients), "all subscriptions")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for client in self.clients:
            client.socket.close()

    @property
    def published(self) -> int:
        """Messages published so far, as far as the application has said so."""
        return sum(stream.acked for stream in self._streams)

    @property
    def heard(self) -> int:
        """Messages that subscribers have heard so far."""
        return sum(sum(client.heard.values()) for client in self.clients)

    @property
    def topics(self) -> Counter[str]:
        """How many subscribers each topic must have."""
        return Counter(topic for client in self.clients for topic in client.kind.hears)

    @property
    def pids(self) -> Counter[int]:
        """The processes that have answered last."""
        return Counter(client.pid for client in self.clients)

    def members(self, topic: str) -> list[str]:
        """Who must be present there."""
        return sorted(f"m{c.number}" for c in self.clients if topic in c.kind.hears)

    def wait(self, fact: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait for a fact; a fault of a client ends the wait. Clients stand still while it is
        looked at.

        :raises AssertionError: a client has found a fault, or the fact never comes.
        """

        def looked() -> object:
            with self._lock:
                return self.faults or fact()

        try:
            processes.until(looked, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self._late()}; {self.codes}") from None
        assert not self.faults, self.faults[:10]

    def speak(self) -> None:
        """Have publishers publish, and those who come and go do so."""
        for client in self.clients:
            client.may_speak = True

    def go_on(self, messages: int = 10) -> None:
        """Every publisher publishes so many more messages to each topic, and all hear them; if its
        connection is cut off meanwhile, less of it will do.
        """
        self.wait(lambda: all(client.ready for client in self._steady), "all to be there")
        self.wait(
            lambda: all((c.me, t) in self.book.streams for c in self.clients for t in c.kind.tells),
            "all to publish",
        )
        with self._lock:
            streams = self.book.streams.items()
            goals = {key: s.acked + messages for key, s in streams if not s.over}
        self.wait(
            lambda: all(
                self.book.streams[key].over or self._reached(key, goal)
                for key, goal in goals.items()
            ),
            f"{messages} more messages of each publisher",
        )

    def settle(self) -> None:
        """Stop publishing, when all are there again, and see that all have heard everything that
        they had to hear.
        """
        for client in self.clients:
            client.may_speak = False
        self.wait(lambda: all(client.idle for client in self.clients), "all answers")
        with self._lock:
            for client in self.clients:
                for topic in set(client.kind.hears) - client.subscribed:
                    client.subscribe(topic)
        self.wait(lambda: all(c.ready and c.idle for c in self.clients), "all subscriptions")

    def end(self, seconds: float = 20) -> None:
        """Once more each publisher publishes; all hear it and all before it, and leave."""
        with self._lock:
            for client in self.clients:
                for topic in client.kind.tells:
                    client.publish(topic)
        self.wait(lambda: all(client.idle for client in self.clients), "all answers")
        self.wait(lambda: not self._missing(), "everything to be heard", seconds)
        for client in self.clients:
            client.leave()
        self.wait(lambda: not any(client.lives for client in self.clients), "all to be closed")
        assert Counter(client.code for client in self.clients) == {1000: len(self.clients)}

    @property
    def _streams(self) -> list[Stream]:
        return list(self.book.streams.values())

    @property
    def _steady(self) -> list[Client]:
        return [client for client in self.clients if not client.kind.passing]

    def _reached(self, key: tuple[str, str], goal: int) -> bool:
        who, topic = key
        return all(
            client.heard.get(key, 0) >= goal
            for client in self._steady
            if topic in client.kind.hears and who.partition(".")[0] != str(client.number)
        )

    def _missing(self) -> list[str]:
        return [text for client in self.clients for text in client.missing(self.killed)]

    def _late(self) -> str:
        with self._lock:
            absent = [client for client in self.clients if not (client.ready and client.idle)]
            missing = self._missing()
        return f"not idle: {absent[:5]}; not heard ({len(missing)}): {missing[:5]}"

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client in self.clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            while not self._over.is_set():
                ready = selector.select(_BREATH)
                with self._lock:
                    for key, _ in ready:
                        self._turn(selector, key.data, key.data.hear)
                    now = time.monotonic()
                    for client in self.clients:
                        self._turn(selector, client, lambda c=client, now=now: c.turn(now))
                time.sleep(_BREATH)

    def _turn(
        self, selector: selectors.BaseSelector, client: Client, do: Callable[[], None]
    ) -> None:
        if not client.lives:
            return
        socket = client.socket
        try:
            do()
            if client.lives:
                client.write()
        except OSError:
            client.end()
        except Exception as error:  # noqa: BLE001 - whatever it stumbles over, it is a fault
            self.faults.append(f"{client!r}: {str(error) or repr(error)}")
            client.end()
        if client.lives:
            return
        selector.unregister(socket)
        if client.leaving or self.faults:
            return
        self.codes[client.code] += 1
        if not self.may_end or client.code not in _CUT_OFF:
            at = time.strftime("%H:%M:%S", time.gmtime())
            self.faults.append(f"{client!r} was closed with {client.code} at {at}")
            return
        client.connect()
        selector.register(client.socket, selectors.EVENT_READ, client)
