"""Nodes of the bus in one process, joined by real sockets, and what is around them: watchers, a
clock, connections with subscriptions that move between nodes as the workers' hub moves them.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wssup.topics.bus import Bus
from wssup.topics.history import History
from wssup.topics.message import Message

NODE = "cafe0123"


class Clock:
    """Time that goes by when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watcher:
    """An epoll and chores, as the pump of a worker has them; it turns only when it is told to."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.heard: dict[int, Callable[[int], None]] = {}
        self.waiting: list[Callable[[], None]] = []
        self.attends = 0

    def attend(self, fd: int, mask: int, heard: Callable[[int], None]) -> None:
        self.attends += 1
        if fd in self.heard:
            self.epoll.modify(fd, mask)
        else:
            self.epoll.register(fd, mask)
        self.heard[fd] = heard

    def leave(self, fd: int) -> None:
        if self.heard.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def soon(self, chore: Callable[[], None]) -> None:
        self.waiting.append(chore)

    def ready(self) -> list[tuple[int, int]]:
        return self.epoll.poll(0)

    def tell(self, fd: int, bits: int) -> None:
        if fd in self.heard:
            self.heard[fd](bits)

    def chores(self) -> bool:
        waiting, self.waiting = self.waiting, []
        for chore in waiting:
            chore()
        return bool(waiting)

    def turn(self) -> bool:
        """One turn of everything; whether there was anything to do."""
        ready = self.ready()
        for fd, bits in ready:
            self.tell(fd, bits)
        return self.chores() or bool(ready)

    def close(self) -> None:
        self.epoll.close()


class Counts:
    """A teller that adds up."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys(
            ("published", "sent", "bytes", "received", "lost_out", "lost_in"), 0
        )

    def published(self, count: int) -> None:
        self.totals["published"] += count

    def sent(self, count: int, size: int) -> None:
        self.totals["sent"] += count
        self.totals["bytes"] += size

    def received(self, count: int) -> None:
        self.totals["received"] += count

    def lost_out(self, count: int) -> None:
        self.totals["lost_out"] += count

    def lost_in(self, count: int) -> None:
        self.totals["lost_in"] += count


class Log:
    """What was said, by event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))

    error = warning

    def count(self, event: str) -> int:
        return sum(name == event for name, _ in self.events)


@dataclass(eq=False)
class Conn:
    """A connection of a client.

    :ivar got: what it got, in order: message and when it had subscribed last (its run).
    """

    id: int
    topics: dict[str, int] = field(default_factory=dict)
    floor: dict[int, int] = field(default_factory=dict)
    got: list[tuple[Message, int]] = field(default_factory=list)
    runs: int = 0
    published: int = 0
    #: The nodes at which it was, with how much it had published when it came.
    path: list[tuple[int, int]] = field(default_factory=list)
    #: It answers each message of this topic with one of that, as plain hooks can.
    answers: tuple[str, str] | None = None


@dataclass
class Record:
    """A connection on its way."""

    conn: Conn
    position: dict[int, int]
    topics: list[str]


class Node:
    """A worker, as far as topics go: the hub in small."""

    def __init__(
        self,
        serial: int,
        *,
        clock: Callable[[], float],
        queue_bytes: int = 8 << 20,
        everything: bool = False,
        messages: int = 0,
        history_bytes: int = 8 << 20,
        node: str = NODE,
    ) -> None:
        self.serial = serial
        self.watcher = Watcher()
        self.counts = Counts()
        self.history = History(
            messages=messages, seconds=0.0, size=history_bytes, topics=1000, node=node
        )
        self.got: list[Message] = []
        self.on_deliver: Callable[[], None] = lambda: None
        self.bus = Bus(
            serial,
            node,
            queue_bytes=queue_bytes,
            everything=everything,
            history=self.history,
            deliver=self.deliver,
            tell=self.counts,
            now=clock,
        )
        self.log = Log()
        self.bus._log = self.log  # type: ignore[assignment]
        self.clock = clock
        self.conns: dict[Conn, None] = {}
        self.subscribed: dict[str, dict[Conn, None]] = {}
        self.keeps = True
        self.resuming: list[str] | None = None

    def deliver(self, message: Message) -> None:
        self.on_deliver()
        if self.keeps:
            self.got.append(message)
        for conn in list(self.subscribed.get(message.topic, ())):
            self.give(conn, message)

    def give(self, conn: Conn, message: Message) -> None:
        if message.exclude == conn.id or message.number <= conn.floor.get(message.carrier, 0):
            return
        conn.got.append((message, conn.topics[message.topic]))
        if conn.answers is not None and conn.answers[0] == message.topic:
            if self.resuming is None:
                self.publish(conn, conn.answers[1])
            else:
                self.resuming.append(conn.answers[1])

    def publish(self, conn: Conn, topic: str, size: int = 0) -> Message:
        conn.published += 1
        data = f"{conn.id}:{conn.published}:".encode() + b"x" * size
        return self.bus.publish(topic, text=True, data=data)

    def subscribe(self, conn: Conn, topic: str) -> None:
        conn.runs += 1
        self._enter(conn, topic, conn.runs)

    def _enter(self, conn: Conn, topic: str, run: int) -> None:
        conn.topics[topic] = run
        found = self.subscribed.setdefault(topic, {})
        found[conn] = None
        self.bus.subscribed(topic, len(found))

    def unsubscribe(self, conn: Conn, topic: str) -> None:
        del conn.topics[topic]
        found = self.subscribed[topic]
        del found[conn]
        if not found:
            del self.subscribed[topic]
        self.bus.subscribed(topic, len(found))

    def close_conn(self, conn: Conn) -> None:
        for topic in list(conn.topics):
            self.unsubscribe(conn, topic)
        del self.conns[conn]

    # Moving.

    def suspend(self, conn: Conn) -> Record:
        """Take a connection off, and make its record."""
        self.bus.mark()
        position = self.bus.position()
        for serial, number in conn.floor.items():
            if number > position.get(serial, 0):
                position[serial] = number
        topics = dict(conn.topics)
        self.close_conn(conn)
        conn.topics = topics
        return Record(conn, position, list(topics))

    def resume(self, record: Record, sender: int) -> None:
        """Go on with a connection."""
        conn = record.conn
        conn.path.append((conn.published, self.serial))
        self.conns[conn] = None
        conn.floor = self.bus.floor(record.position)
        if sender != self.serial:
            self.bus.after(record.position, sender)
        missed = self.bus.since(record.position, record.topics, {})
        runs = conn.topics
        for topic in record.topics:
            self._enter(conn, topic, runs[topic])
        # What it publishes meanwhile comes after all that it has missed.
        self.resuming = []
        for message in missed:
            self.give(conn, message)
        topics, self.resuming = self.resuming, None
        for topic in topics:
            self.publish(conn, topic)

    def close(self) -> None:
        self.bus.close()
        self.watcher.close()


def pair(size: int = 0) -> tuple[socket.socket, socket.socket]:
    """A stream pair, with a small buffer in the kernel if asked for."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends if size else ():
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    return ends


class Net:
    """Some nodes, each joined to each other one."""

    def __init__(self, count: int = 0, *, buffer: int = 0, **options: object) -> None:
        self.clock = Clock()
        self.nodes: dict[int, Node] = {}
        self.buffer = buffer
        self.options = options
        self._last = 0
        self._sessions = 0
        for _ in range(count):
            self.add()

    def add(self, *, begin: bool = True, **options: object) -> Node:
        """A new node, linked and begun."""
        self._last += 1
        chosen = {**self.options, **options}
        node = Node(self._last, clock=self.clock, **chosen)  # type: ignore[arg-type]
        for other in self.nodes.values():
            ours, theirs = pair(self.buffer)
            node.bus.link(other.serial, ours)
            other.bus.link(node.serial, theirs)
        self.nodes[node.serial] = node
        if begin:
            node.bus.begin(node.watcher)
        return node

    def session(self) -> int:
        self._sessions += 1
        return self._sessions

    def kill(self, node: Node) -> None:
        """A node dies: what the kernel has is still read by others, what it had queued is gone."""
        del self.nodes[node.serial]
        node.close()

    def settle(self, most: int = 10_000) -> None:
        """Turn until nobody has anything to do."""
        for _ in range(most):
            if not sum(node.watcher.turn() for node in self.nodes.values()):
                return
        raise AssertionError("it does not come to rest")

    def beat(self, seconds: float = 0.3) -> None:
        """Time goes by, everybody's heart beats, and all comes to rest."""
        self.clock.now += seconds
        for node in self.nodes.values():
            node.bus.beat(self.clock.now)
        self.settle()

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()
        self.nodes.clear()


@contextmanager
def net(count: int = 0, **options: object) -> Iterator[Net]:
    """Some nodes at rest."""
    found = Net(count, **options)  # type: ignore[arg-type]
    try:
        found.settle()
        yield found
    finally:
        found.close()


@dataclass
class Session:
    """A handoff session, with its link."""

    number: int
    sender: Node
    receiver: Node
    link: deque[Record] = field(default_factory=deque)
    ready: bool = False
    begun: bool = False
    over: bool = False
    quiet: bool = True


def connect(node: Node, number: int, *topics: str) -> Conn:
    """A connection of a node, subscribed to topics."""
    conn = Conn(number)
    node.conns[conn] = None
    for topic in topics:
        node.subscribe(conn, topic)
    return conn


def begin(found: Net, sender: Node, receiver: Node) -> tuple[int, list[list[int]]]:
    """Begin to move connections: the session, and what `Bus.hand_to` has called back with."""
    session = found.session()
    ready: list[list[int]] = []
    receiver.bus.take_from(sender.serial, session)
    sender.bus.hand_to(receiver.serial, session, ready.append)
    return session, ready
