"""A random run of several nodes of the bus, and what must be true of it.

Each step is one small thing that can happen by itself: a message from the master is read, one
socket of one node is read (in pieces of any size), chores are done, somebody publishes or
subscribes, a connection is sent, taken or comes back, a node dies or is added.
"""

from __future__ import annotations

import random
import select
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.property.topics_checks import Checks
from tests.topics_net import Clock, Conn, Node, Record, pair
from wssup.topics import peer as peers
from wssup.topics.message import Message

TOPICS = ("a", "b", "c")


class Session:
    """A handoff session, with what is on its link."""

    def __init__(self, number: int, sender: int, receiver: int) -> None:
        self.number, self.sender, self.receiver = number, sender, receiver
        self.link: deque[Record] = deque()
        self.ready = self.began = self.taking = self.over = self.taken = False


class Driver(Checks):
    """One run.

    :param buffer: bytes of a socket's buffer; 0: as usual.
    :param queue_bytes: of a link.
    :param deaths: nodes die.
    """

    def __init__(
        self, seed: int, *, buffer: int = 0, queue_bytes: int = 8 << 20, deaths: bool = True
    ) -> None:
        super().__init__(queue_bytes)
        self.random = random.Random(seed)
        self.clock = Clock()
        self.buffer, self.deaths = buffer, deaths
        self.channels: dict[int, deque[Callable[[], None]]] = {}
        self.asleep: dict[int, int] = {}
        self.sessions: list[Session] = []
        #: Nodes and topics of which it may be on its way that they are not wanted any more.
        self.fading: set[tuple[int, str]] = set()
        self.serial = self.session = self.moves = 0
        weights, self.choices = zip(*self.steps(), strict=True)
        # Each run has more of one thing and less of another.
        self.weights = [w * self.random.choice((0.3, 1, 1, 3)) for w in weights]
        for _ in range(self.random.randint(2, 4)):
            self.add()
        self.settle()

    # What can happen.

    def steps(self) -> list[tuple[int, Callable[[], None]]]:
        return [
            (30, self.read_one),
            (20, self.chores),
            (10, self.turn),
            (6, self.channel),
            (2, self.beat),
            (24, self.publish),
            (9, self.subscribe),
            (3, self.unsubscribe),
            (4, self.connect),
            (1, self.disconnect),
            (4, self.begin_session),
            (24, self.send),
            (20, self.take),
            (1, self.end_session),
            (2, self.taken),
            (1, self.sleep),
        ]

    def run(self, count: int) -> None:
        for _ in range(count):
            choice = self.random.random()
            if choice < 0.004 and len(self.nodes) < 6:
                self.add()
            elif choice < 0.007 and len(self.nodes) > 2 and self.deaths:
                self.kill()
            elif choice < 0.012:
                self.settle()
            else:
                self.random.choices(self.choices, self.weights)[0]()
            for node in self.nodes.values():
                for peer in node.bus._peers.values():
                    assert peer.size <= self.queue_bytes or len(peer.messages) == 1
                    assert peer.other <= peers.ROOM + 4096
        self.finish()

    def some_node(self) -> Node | None:
        able = [s for s in self.nodes if not self.asleep.get(s)]
        for serial in list(self.asleep):
            self.asleep[serial] -= 1
            if self.asleep[serial] <= 0:
                del self.asleep[serial]
        return self.nodes[self.random.choice(able)] if able else None

    def some_conn(self) -> tuple[Node, Conn] | None:
        node = self.some_node()
        if node is None or not node.conns:
            return None
        return node, self.random.choice(list(node.conns))

    def read_one(self) -> None:
        node = self.some_node()
        if node is None:
            return
        ready = node.watcher.ready()
        if ready:
            peers.READ = self.random.choice((1, 3, 17, 100, 1000, 65536))
            fd, bits = self.random.choice(ready)
            if bits & select.EPOLLIN and self.random.random() < 0.2:
                bits &= ~select.EPOLLOUT
            node.watcher.tell(fd, bits)

    def chores(self) -> None:
        node = self.some_node()
        if node is not None:
            node.watcher.chores()

    def turn(self) -> None:
        node = self.some_node()
        if node is not None:
            peers.READ = 65536
            node.watcher.turn()

    def channel(self) -> None:
        node = self.some_node()
        if node is not None and self.channels[node.serial]:
            self.channels[node.serial].popleft()()

    def beat(self) -> None:
        self.clock.now += self.random.choice((0.01, 0.06, 0.3, 0.5))
        for node in self.nodes.values():
            if not self.asleep.get(node.serial):
                node.bus.beat(self.clock.now)

    def publish(self) -> None:
        found = self.some_conn()
        if found is not None:
            node, conn = found
            node.publish(conn, self.random.choice(TOPICS), self.random.choice((0, 0, 10, 2000)))

    def subscribe(self) -> None:
        found = self.some_conn()
        if found is not None:
            topic = self.random.choice(TOPICS)
            if topic not in found[1].topics:
                found[0].subscribe(found[1], topic)

    def unsubscribe(self) -> None:
        found = self.some_conn()
        if found is not None and found[1].topics:
            found[0].unsubscribe(found[1], self.random.choice(list(found[1].topics)))

    def connect(self) -> None:
        node = self.some_node()
        if node is not None and len(self.conns) < 60:
            conn = Conn(len(self.conns) + 1)
            if self.random.random() < 0.1:
                conn.answers = ("a", "b")
            self.conns.append(conn)
            node.conns[conn] = None

    def disconnect(self) -> None:
        found = self.some_conn()
        if found is not None:
            self.ended[found[1].id] = None
            found[0].close_conn(found[1])

    def sleep(self) -> None:
        if len(self.nodes) - len(self.asleep) > 1:
            self.asleep[self.random.choice(list(self.nodes))] = self.random.randint(10, 120)

    # Handoff.

    def begin_session(self) -> None:
        if len(self.nodes) < 2 or sum(not s.over for s in self.sessions) > 4:
            return
        sender, receiver = self.random.sample(sorted(self.nodes), 2)
        self.session += 1
        session = Session(self.session, sender, receiver)
        self.sessions.append(session)

        def hand() -> None:
            if session.over:
                return
            session.began = True

            def ready(missing: list[int]) -> None:
                # Without fences the bus promises nothing, so nothing moves.
                session.ready = not missing

            self.nodes[sender].bus.hand_to(receiver, session.number, ready)

        def take() -> None:
            session.taking = True
            self.nodes[receiver].bus.take_from(sender, session.number)

        self.channels[sender].append(hand)
        self.channels[receiver].append(take)

    def pick(self, able: Callable[[Session], Any]) -> Session | None:
        found = [s for s in self.sessions if able(s)]
        return self.random.choice(found) if found else None

    def send(self) -> None:
        session = self.pick(
            lambda s: s.ready and not s.over and s.sender in self.nodes and len(s.link) < 5
        )
        if session is None:
            return
        node = self.nodes[session.sender]
        if node.conns:
            session.link.append(node.suspend(self.random.choice(list(node.conns))))

    def take(self) -> None:
        session = self.pick(lambda s: s.link and s.taking and not s.over)
        if session is not None and session.receiver in self.nodes:
            self.moves += 1
            self.nodes[session.receiver].resume(session.link.popleft(), session.sender)

    def end_session(self) -> None:
        session = self.pick(lambda s: s.began and not s.over)
        if session is not None:
            self.over(session)

    def over(self, session: Session) -> None:
        """The sender ends it: what was not acknowledged is its own again."""
        session.over = True
        node = self.nodes.get(session.sender)
        for record in session.link:
            if node is None:
                self.ended[record.conn.id] = None
            else:
                node.resume(record, node.serial)
        session.link.clear()
        if node is not None and session.began:
            node.bus.handed_to(session.receiver, session.number)

    def taken(self) -> None:
        session = self.pick(lambda s: s.over and s.taking and not s.taken)
        if session is not None:
            session.taken = True
            if session.receiver in self.nodes:
                self.nodes[session.receiver].bus.taken_from(session.sender, session.number)

    # Nodes.

    def add(self) -> None:
        self.serial += 1
        serial = self.serial
        node = Node(serial, clock=self.clock, queue_bytes=self.queue_bytes)
        node.keeps = False
        self.logs.append(node.log)
        release, tidy = node.bus._release, node.bus._news.tidy

        def released(message: Message) -> None:
            self.published[serial, message.topic].append(message.number)
            self.arm(node, message)
            release(message)

        def tidied(now: float) -> list[str]:
            over = tidy(now)
            self.fading.update((serial, topic) for topic in over)
            return over

        node.bus._release = released  # type: ignore[method-assign]
        node.bus._news.tidy = tidied  # type: ignore[method-assign]
        self.channels[serial] = deque()
        ends = []
        for other in self.nodes.values():
            ours, theirs = pair(self.buffer)
            ends.append((other.serial, ours))
            bus = other.bus
            self.channels[other.serial].append(
                lambda bus=bus, end=theirs: bus.link(serial, end)  # type: ignore[misc]
            )

        def first() -> None:
            for peer, end in ends:
                node.bus.link(peer, end)
            node.bus.begin(node.watcher)

        first()
        self.nodes[serial] = node

    def kill(self) -> None:
        node = self.nodes.pop(self.random.choice(list(self.nodes)))
        for conn in node.conns:
            self.ended[conn.id] = None
        node.close()
        self.asleep.pop(node.serial, None)
        # The ends that nobody has read from the channel are closed with the process.
        for step in self.channels.pop(node.serial):
            if step.__defaults__:
                step.__defaults__[1].close()
        for session in self.sessions:
            if node.serial in {session.sender, session.receiver} and not session.over:
                self.over(session)

    # What must be true.

    def settle(self) -> None:
        """All is read, and nothing is on its way any more but connections."""
        peers.READ = 65536
        for _ in range(20_000):
            busy = False
            for serial, node in list(self.nodes.items()):
                while self.channels[serial]:
                    self.channels[serial].popleft()()
                    busy = True
                busy = node.watcher.turn() or busy
            if not busy:
                self.fading.clear()
                return
        raise AssertionError("it does not come to rest")

    def arm(self, node: Node, message: Message) -> None:
        """Who is known to be subscribed gets this message, and all that come after it."""
        topic = message.topic
        for serial, other in self.nodes.items():
            known = other is node or (
                serial in node.bus._peers
                and node.bus._book.says(serial, topic)
                and (serial, topic) not in self.fading
            )
            for conn in other.subscribed.get(topic, ()) if known else ():
                run = conn.topics[topic]
                self.topics[conn.id, run] = topic
                self.armed[conn.id, run].setdefault(node.serial, message.number)

    def finish(self) -> None:
        self.asleep.clear()
        self.settle()
        for session in self.sessions:
            if not session.over and session.sender in self.nodes:
                self.over(session)
        self.settle()
        for session in self.sessions:
            if session.taking and not session.taken and session.receiver in self.nodes:
                session.taken = True
                bus = self.nodes[session.receiver].bus
                bus.taken_from(session.sender, session.number)
        self.settle()
        for _ in range(4):
            self.clock.now += 0.6
            for node in self.nodes.values():
                node.bus.beat(self.clock.now)
            self.settle()
        self.check()

    def lost(self) -> int:
        """Messages for which there was no room; both ends have counted them where nobody died."""
        out = sum(node.counts.totals["lost_out"] for node in self.nodes.values())
        if len(self.nodes) == self.serial:
            assert out == sum(node.counts.totals["lost_in"] for node in self.nodes.values())
        return out

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()
        for channel in self.channels.values():
            for step in channel:
                if step.__defaults__:
                    step.__defaults__[1].close()
