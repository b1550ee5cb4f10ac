"""A storm of three times the capacity: who is let in, who is told to go, who waits. A minute.

Real instances with 4 workers, and 12 000 clients in this process that connect at once. ``make
bench-admission`` prints the table and judges; ``--output`` writes it to a file, too.
"""

from __future__ import annotations

import argparse
import errno
import select
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.engine import machine
from benchmarks.engine.measures import told
from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.raw import Raw, request

WORKERS, CAPACITY, TIMES = 4, 4000, 3
#: Handshakes per second of the third storm, and its clients.
RATE, HURRIED = 1000, 4000
#: Seconds for one storm, and between two samples.
PATIENCE, SAMPLE = 240.0, 0.2
APPLICATION = """\
class App:
    def on_receive(self, ws, data):
        ws.send_nowait(data)

app = App()
"""


class Storm:
    """Clients that connect at once; those who are let in stay, the others leave when told.

    :ivar inside: by descriptor; ``entered``: when each was let in.
    :ivar refused: answered with 503 and Retry-After; ``broken``: not answered at all, or otherwise.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._epoll = select.epoll()
        self._waiting: dict[int, tuple[socket.socket, bytearray]] = {}
        self.inside: dict[int, socket.socket] = {}
        self.entered: list[float] = []
        self.refused = self.broken = 0

    def begin(self, count: int) -> None:
        """So many connects, without waiting for any."""
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            assert sock.connect_ex(self._address) in {0, errno.EINPROGRESS}
            self._waiting[sock.fileno()] = sock, bytearray()
            self._epoll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLIN)

    @property
    def waiting(self) -> int:
        """Those who have no answer yet."""
        return len(self._waiting)

    def turn(self, seconds: float) -> None:
        """See who has an answer."""
        for fd, found in self._epoll.poll(seconds):
            bits = found
            sock, head = self._waiting[fd]
            try:
                if bits & select.EPOLLOUT:
                    self._epoll.modify(fd, select.EPOLLIN)
                    sock.send(request())
            except OSError:
                bits |= select.EPOLLIN  # it is answered already
            if bits & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(fd, sock, head)

    def _read(self, fd: int, sock: socket.socket, head: bytearray) -> None:
        try:
            chunk = sock.recv(4096)
        except OSError:
            chunk = b""
        head += chunk
        if chunk and b"\r\n\r\n" not in head:
            return
        self._epoll.unregister(fd)
        del self._waiting[fd]
        if head.startswith(b"HTTP/1.1 101 "):
            self.entered.append(time.monotonic())
            self.inside[fd] = sock
            return
        if head.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in head:
            self.refused += 1
        else:
            self.broken += 1
        sock.close()

    def leave(self) -> None:
        """All who are inside go."""
        for sock in self.inside.values():
            sock.close()
        self.inside.clear()

    def end(self) -> None:
        """Everybody goes."""
        self.leave()
        for sock, _ in self._waiting.values():
            sock.close()
        self._epoll.close()


class Bystander:
    """A client that is connected before, and talks on: the longest it waited for an echo."""

    def __init__(self, address: str) -> None:
        self._client = Raw(address).open()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._talk)
        self.echoes, self.longest = 0, 0.0
        self._thread.start()

    def _talk(self) -> None:
        while not self._over.wait(0.01):
            began = time.monotonic()
            assert self._client.ask("still there?") == "still there?"
            self.longest = max(self.longest, time.monotonic() - began)
            self.echoes += 1

    def end(self) -> None:
        """It leaves."""
        self._over.set()
        self._thread.join()
        self._client.socket.close()


@contextmanager
def served(**settings: object) -> Iterator[Instance]:
    """A running instance."""
    more: dict[str, object] = {
        "workers": WORKERS,
        "log_level": "info",
        # The clients answer no pings, and all of them are one process, which may be slow.
        "heartbeat": {"ping_interval": 0},
        "limits": {"handshake_timeout": PATIENCE},
    }
    with tempfile.TemporaryDirectory() as home:
        instance = Instance(Path(home), APPLICATION, more | settings)
        try:
            instance.running()
            # For a second at most all is steered to the worker that was ready first.
            time.sleep(1.5)
            yield instance
        finally:
            instance.end()


def settled(instance: Instance, accepted: int) -> dict[str, Any]:
    """The counts, once each of so many sockets is accounted for."""

    def whole(status: dict[str, Any]) -> bool:
        c = status["connections"]
        ends = c["closed"] + c["refused"] + c["handshake_failures"] + c["http_closed"]
        return bool(c["accepted"] == accepted == c["open"] + ends and c["open"] == c["active"])

    found: dict[str, Any] = instance.wait(whole, "the counts")["connections"]
    return found


def idle_share(instance: Instance) -> float:
    """The share of a processor that the workers take together while nothing happens."""
    pids = list(instance.workers().values())
    before, began = sum(map(processes.cpu, pids)), time.monotonic()
    time.sleep(2)
    return (sum(map(processes.cpu, pids)) - before) / (time.monotonic() - began)


class Row(NamedTuple):
    """A line of the table: what was found, and what it must be; nothing: whatever it is."""

    what: str
    found: float
    must: str = ""
    bound: float = 0

    @property
    def met(self) -> bool:
        """Whether it is."""
        tests = {"": True, "=": self.found == self.bound, "<": self.found < self.bound}
        return tests[self.must]

    def __str__(self) -> str:
        verdict = "" if not self.must else "met" if self.met else "**missed**"
        expected = f"{self.must} {_number(self.bound)}" if self.must else ""
        return f"| {self.what} | {_number(self.found)} | {expected} | {verdict} |"


def _number(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}".replace(",", " ")


def refused() -> list[Row]:
    """``overflow = "refuse"``."""
    told("a storm that is turned away …")
    with served(max_connections=CAPACITY, overflow="refuse") as instance:
        address = instance.address()
        bystander = Bystander(address)
        storm = Storm(address)
        count, room = TIMES * CAPACITY, CAPACITY - 1
        try:
            began, most = time.monotonic(), 0
            storm.begin(count)
            due = began + SAMPLE
            while storm.waiting and time.monotonic() < began + PATIENCE:
                storm.turn(0.05)
                if time.monotonic() > due:
                    most = max(most, instance.status()["connections"]["active"])
                    due = time.monotonic() + SAMPLE
            took = time.monotonic() - began
            counts = settled(instance, count + 1)
            share = idle_share(instance)
            bystander.end()
            return [
                Row("let in", len(storm.inside), "=", room),
                Row("answered 503", storm.refused, "=", count - room),
                Row("without an answer", storm.broken, "=", 0),
                Row("active, counted", counts["active"], "=", CAPACITY),
                Row("most active ever seen", most, "<", CAPACITY + 1),
                Row("refused, counted", counts["refused_by_reason"]["limit"], "=", count - room),
                Row("seconds until all had their answer", took),
                Row("slowest echo of one who was in, ms", 1e3 * bystander.longest),
                Row("of a processor afterwards", share, "<", 0.2),
            ]
        finally:
            bystander.end()
            storm.end()


def queued() -> list[Row]:
    """``overflow = "queue"``."""
    told("a storm that waits …")
    with served(max_connections=CAPACITY) as instance:
        storm = Storm(instance.address())
        count = TIMES * CAPACITY
        try:
            began = time.monotonic()
            storm.begin(count)
            while len(storm.inside) < CAPACITY and time.monotonic() < began + PATIENCE:
                storm.turn(0.05)
            counts = settled(instance, CAPACITY)
            share = idle_share(instance)
            storm.turn(0.1)
            inside = len(storm.inside)
            while storm.waiting and time.monotonic() < began + PATIENCE:
                storm.leave()
                storm.turn(0.05)
            storm.leave()
            last = settled(instance, count)
            return [
                Row("let in at once", inside, "=", CAPACITY),
                Row("active, counted", counts["active"], "=", CAPACITY),
                Row("of a processor while the others wait", share, "<", 0.2),
                Row("let in as others left, all in all", len(storm.entered), "=", count),
                Row("refused or without an answer", storm.broken + storm.refused, "=", 0),
                Row("refused, counted", last["refused"], "=", 0),
            ]
        finally:
            storm.end()


def hurried() -> list[Row]:
    """``max_handshakes_per_second``."""
    told("a storm at a rate …")
    with served(max_handshakes_per_second=RATE) as instance:
        storm = Storm(instance.address())
        try:
            began = time.monotonic()
            storm.begin(HURRIED)
            while storm.waiting and time.monotonic() < began + PATIENCE:
                storm.turn(0.05)
            # Seen late they seem to come together, so each is held against the beginning.
            late = [t - began for t in storm.entered]
            ahead = max(n + 1 - RATE * (1 + t) for n, t in enumerate(late))
            return [
                Row("let in", len(storm.entered), "=", HURRIED),
                Row("seconds until the last", late[-1]),
                Row("most ahead of a second's worth and the rate since", ahead, "<", WORKERS),
            ]
        finally:
            storm.end()


def main() -> int:
    """Measure and print; 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description=__doc__)
    parser.add_argument("--output", type=Path, help="a file for the tables, besides the screen")
    options = parser.parse_args()
    machine.prepared()
    company, began = machine.Company(), time.monotonic()
    count = f"{TIMES * CAPACITY:,}".replace(",", " ")
    parts = {
        f"{count} connect at once, `max_connections = {CAPACITY}`, turned away": refused(),
        f"{count} connect at once, `max_connections = {CAPACITY}`, queued": queued(),
        f"{HURRIED} connect at once, `max_handshakes_per_second = {RATE}`, queued": hurried(),
    }
    took = f"- in {time.monotonic() - began:.0f} s, while others took {company.share():.0%}"
    took += " of the processors"
    lines = [
        "## A storm of three times the capacity",
        "",
        *(line for line in machine.described({}, "all of them") if not line.startswith("- peers")),
        took,
        f"- {WORKERS} workers, event style; all clients in one process of Python",
    ]
    for title, rows in parts.items():
        lines += ["", f"### {title}", "", "| what | measured | must be | |"]
        lines += ["| --- | ---: | --- | --- |"]
        lines += map(str, rows)
    text = "\n".join(lines)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 0 if all(row.met for rows in parts.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
