"""What must be true at the end of a random run of the bus."""

from __future__ import annotations

from collections import defaultdict

from tests.topics_net import Conn, Log, Node


class Checks:
    """What a run has seen, and what that proves.

    :ivar published: by carrier and topic the numbers of what was published.
    :ivar armed: by connection and run of a subscription the number by carrier from which on all
        must come; ``topics`` says of what.
    :ivar ended: connections that were closed, or died with their node.
    """

    def __init__(self, queue_bytes: int) -> None:
        self.queue_bytes = queue_bytes
        self.nodes: dict[int, Node] = {}
        self.conns: list[Conn] = []
        self.logs: list[Log] = []
        self.published: dict[tuple[int, str], list[int]] = defaultdict(list)
        self.armed: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        self.topics: dict[tuple[int, int], str] = {}
        self.ended: dict[int, None] = {}
        self.checked = 0
        self.in_order = True

    def check(self) -> None:
        for numbers in self.published.values():
            numbers.sort()  # a hook that publishes does so in the middle of a message
        said = {event for log in self.logs for event, _ in log.events}
        assert said <= {"bus_fence_timeout", "bus_order_given_up", "bus_queue_full"}, said
        self.in_order = "bus_order_given_up" not in said
        for conn in self.conns:
            self.check_conn(conn)
        for serial, node in self.nodes.items():
            bus = node.bus
            assert set(bus._peers) == set(self.nodes) - {serial}
            assert not bus._sessions, (serial, bus._sessions)
            assert not bus._order.stalled
            assert not bus._held
            assert not bus._news.holding
            assert not bus._fences._read
            assert not node.history._keepers
            assert node.bus.queued == 0
            for other in self.nodes.values():
                if other is not node:
                    says = bus._book._nodes[other.serial]
                    assert says.topics == set(other.subscribed)
                    assert not says.mirrors
                    assert bus._peers[other.serial].counts == {
                        t: len(s) for t, s in other.subscribed.items()
                    }
            assert set(bus._book._nodes) == set(self.nodes)

    def check_conn(self, conn: Conn) -> None:
        last: dict[tuple[int, str], int] = {}
        order: dict[tuple[int, str], int] = {}
        for message, _ in conn.got:
            key = (message.carrier, message.topic)
            assert message.number > last.get(key, 0), ("doubled", conn.id, message, last[key])
            last[key] = message.number
            publisher, count, _ = message.data.split(b":", 2)
            place = (int(publisher), message.topic)
            late = int(count) <= order.get(place, 0)
            if late and self.went_through_dead(int(publisher), int(count), order[place]):
                continue
            assert not self.in_order or not late, (
                "order",
                conn.id,
                message,
                order,
            )
            order[place] = int(count)
        for (number, run), carriers in self.armed.items():
            if number == conn.id:
                for carrier, first in carriers.items():
                    self.check_run(conn, run, carrier, first)

    def went_through_dead(self, publisher: int, early: int, later: int) -> bool:
        """Whether somebody was, between two messages, at a node where it said nothing and that has
        died: nobody else knows then that one has to come after the other.
        """
        [conn] = [conn for conn in self.conns if conn.id == publisher]
        way = [(said, serial) for said, serial in conn.path if said < later]
        return any(serial not in self.nodes for said, serial in way[:-1] if said >= early)

    def check_run(self, conn: Conn, run: int, carrier: int, first: int) -> None:
        """From its first message on all of a carrier's came, as far as it must have."""
        topic = self.topics[conn.id, run]
        got = [
            m.number
            for m, in_run in conn.got
            if m.carrier == carrier and in_run == run and m.number >= first
        ]
        wanted = [n for n in self.published[carrier, topic] if n >= first]
        if self.queue_bytes < 1 << 20:
            wanted = [n for n in wanted if n in got]
        if carrier not in self.nodes or conn.id in self.ended or conn.topics.get(topic) != run:
            wanted = wanted[: len(got)]
        assert got == wanted, ("gap", conn.id, run, carrier, topic, got, wanted)
        self.checked += len(got)
