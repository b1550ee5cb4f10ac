"""Nodes of the bus: who gets what, in which order, and what they know of each other."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from tests.topics_net import NODE, Net, Node, connect, net, pair
from wssup.topics import packets as p
from wssup.topics.message import Message


@pytest.fixture
def three() -> Iterator[Net]:
    with net(3) as found:
        yield found


def texts(node: Node) -> list[str]:
    return [message.data.decode() for message in node.got]


def say(node: Node, topic: str, text: str) -> Message:
    return node.bus.publish(topic, text=True, data=text.encode())


def test_a_message_goes_to_those_that_want_its_topic_and_is_delivered_here(three: Net) -> None:
    """With all that it is, and as which message of whom."""
    a, b, c = three.nodes.values()
    b.bus.subscribed("t", 1)
    three.settle()
    say(a, "u", "nobody else's")
    message = a.bus.publish("t", text=False, data=b"\0", exclude=7)
    three.settle()
    assert message == Message("t", False, b"\0", 1, 2, f"{NODE}.1", 2, 1000.0, 7)
    assert a.got[1] == message
    assert b.got == [message]
    assert not c.got
    assert b.bus.seen[1] == 2
    assert c.bus.seen[1] == 0
    assert a.counts.totals | {"bytes": 0} == {
        "published": 2,
        "sent": 1,
        "bytes": 0,
        "received": 0,
        "lost_out": 0,
        "lost_in": 0,
    }
    assert b.counts.totals["received"] == 1


def test_a_message_from_elsewhere_keeps_who_published_it(three: Net) -> None:
    """The carrier numbers it, the source and its sequence stay."""
    a, b, _ = three.nodes.values()
    b.bus.subscribed("t", 1)
    three.settle()
    a.bus.publish("t", text=True, data=b"x", source="deadbeef.9", sequence=77)
    three.settle()
    assert [(m.carrier, m.number, m.source, m.sequence) for m in b.got] == [
        (1, 1, "deadbeef.9", 77)
    ]


def test_who_has_not_said_what_it_wants_gets_everything() -> None:
    """A new node misses nothing between its link and its wishes."""
    with net(2) as two:
        a = two.nodes[1]
        new = two.add(begin=False)
        say(a, "t", "early")
        two.settle()
        new.bus.begin(new.watcher)
        two.settle()
        assert texts(new) == ["early"]
        say(a, "t", "late")
        two.settle()
        assert texts(new) == ["early"]


def test_a_node_that_wants_everything_gets_it() -> None:
    """Whatever it has subscribed to."""
    with net(1) as found:
        bridge = found.add(everything=True)
        found.settle()
        say(found.nodes[1], "t", "x")
        found.settle()
        assert texts(bridge) == ["x"]


def test_what_is_published_while_a_message_is_delivered_comes_after_it(three: Net) -> None:
    """Here and at the others, also when it is published because of one that came."""
    a, b, c = three.nodes.values()
    for node in (a, b, c):
        node.bus.subscribed("t", 1)
    three.settle()
    for node in (a, b):
        plain = node.bus._deliver

        def deliver(message: Message, node: Node = node, plain: object = plain) -> None:
            plain(message)  # type: ignore[operator]
            if message.data in {b"1", b"2"}:
                say(node, "t", f"{node.serial} says {message.data.decode()}")

        node.bus._deliver = deliver
    say(a, "t", "1")
    say(a, "t", "2")
    three.settle()
    assert texts(a)[:4] == ["1", "1 says 1", "2", "1 says 2"]
    assert [t for t in texts(c) if not t.startswith("2 ")] == ["1", "1 says 1", "2", "1 says 2"]
    assert [t for t in texts(c) if t.startswith("2 ")] == ["2 says 1", "2 says 2"]
    assert [m.number for m in c.got if m.carrier == 1] == [1, 2, 3, 4]


def test_a_deliverer_that_raises_harms_nobody(three: Net) -> None:
    """It is logged, and the next message comes."""
    a, b, _ = three.nodes.values()
    b.bus.subscribed("t", 1)
    three.settle()
    for node in (a, b):
        plain = node.bus._deliver

        def deliver(message: Message, plain: object = plain) -> None:
            if message.data == b"bad":
                raise RuntimeError("on purpose")
            plain(message)  # type: ignore[operator]

        node.bus._deliver = deliver
    for text in ("bad", "good"):
        say(a, "t", text)
    three.settle()
    assert texts(b) == ["good"]
    assert b.bus.seen[1] == 2
    assert b.log.count("deliver_failed") == a.log.count("deliver_failed") == 1


def test_interest_lingers_for_a_second(three: Net) -> None:
    """Who comes back meanwhile says nothing to anybody; then it is over."""
    a, b, _ = three.nodes.values()
    b.bus.subscribed("t", 1)
    three.settle()
    b.bus.subscribed("t", 0)
    three.beat(0.9)
    assert a.bus._book.says(2, "t")
    b.bus.subscribed("t", 1)
    b.bus.subscribed("t", 0)
    three.beat(0.9)
    assert a.bus._book.says(2, "t")
    three.beat(0.2)
    assert not a.bus._book.says(2, "t")


def test_subscribers_are_counted_over_all_nodes(three: Net) -> None:
    """At once where they are, and elsewhere a moment later; none of a node that is gone."""
    a, b, c = three.nodes.values()
    for count in range(1, 51):
        a.bus.subscribed("t", count)
        b.bus.subscribed("t", count)
    assert a.bus.subscribers("t") == 50
    three.beat(0.1)
    assert [node.bus.subscribers("t") for node in (a, b, c)] == [100, 100, 100]
    b.bus.subscribed("t", 0)
    three.beat(0.1)
    assert a.bus.subscribers("t") == c.bus.subscribers("t") == 50
    three.kill(a)
    three.settle()
    assert c.bus.subscribers("t") == 0


def test_counts_are_told_at_most_every_50_ms(three: Net) -> None:
    """However many come and go in between."""
    a, b, _ = three.nodes.values()
    told: list[dict[str, int]] = []
    count = b.bus._acts[p.Counts]
    b.bus._acts[p.Counts] = lambda peer, packet: (told.append(packet.counts), count(peer, packet))  # type: ignore[func-returns-value]
    for number in range(1, 1001):
        a.bus.subscribed("t", number)
        if number % 10 == 0:
            three.settle()
    assert len(told) <= 2
    three.beat(0.06)
    assert told[-1] == {"t": 1000}
    assert len(told) <= 3


def test_the_first_reason_for_a_topic_and_the_last(three: Net) -> None:
    """The bridge subscribes with the server when a node says that it wants a topic, not because it
    might; and gives up when the last one that wanted it is gone.
    """
    told: list[tuple[str, bool]] = []
    bridge = Node(9, clock=three.clock, everything=True)
    bridge.bus.on_interest = lambda topic, on: told.append((topic, on))
    for other in three.nodes.values():
        ours, theirs = pair()
        bridge.bus.link(other.serial, ours)
        other.bus.link(9, theirs)
    bridge.bus.begin(bridge.watcher)
    three.nodes[9] = bridge
    three.settle()
    assert not told
    a, b, _, _ = three.nodes.values()
    a.bus.subscribed("t", 1)
    b.bus.subscribed("t", 1)
    three.settle()
    assert told == [("t", True)]
    a.bus.subscribed("t", 0)
    three.beat(1.1)
    three.beat(1.1)
    assert told == [("t", True)]
    three.kill(b)
    three.settle()
    assert told == [("t", True), ("t", False)]


def test_a_gap_is_told_to_all_histories() -> None:
    """Those that keep one answer no longer that a token from before it has missed nothing."""
    with net(2, messages=10, everything=True) as two:
        a, b = two.nodes.values()
        two.beat(0.1)
        say(a, "t", "x")
        two.settle()
        token = b.history.marks("t")
        assert b.history.since_marks("t", token) == ([], True)
        two.beat(2.0)
        a.bus.gap()
        two.settle()
        assert b.history.since_marks("t", token)[1] is False
        assert b.counts.totals["lost_in"] == 0


def test_numbers_of_the_dead_are_remembered_for_a_minute(three: Net) -> None:
    """For positions that are on their way; their serial numbers never come again."""
    a, b, _ = three.nodes.values()
    say(b, "t", "x")
    three.kill(b)
    three.settle()
    assert 2 in a.bus.position()
    three.beat(59)
    ours, theirs = pair()
    a.bus.link(2, ours)
    assert a.log.count("bus_linked_twice") == 1
    assert ours.fileno() < 0
    theirs.close()
    assert 2 in a.bus.position()
    three.beat(2)
    assert 2 not in a.bus.position()


def test_who_may_carry_what_others_published() -> None:
    """Bridges, which get everything for no history; also who is not known any more, or yet."""
    with net(1, messages=10, everything=True) as found:
        (a,) = found.nodes.values()
        worker, bridge = found.add(), found.add(messages=0)
        plain = found.add(messages=0, everything=False)
        assert a.bus.may_carry(worker.serial)
        found.settle()
        assert not a.bus.may_carry(worker.serial)
        assert not a.bus.may_carry(plain.serial)
        assert a.bus.may_carry(bridge.serial)
        found.kill(worker)
        found.settle()
        assert a.bus.may_carry(worker.serial)


def test_a_node_is_linked_once(three: Net) -> None:
    """A second end for the same node, or for itself, is closed and logged."""
    a = three.nodes[1]
    for serial in (1, 2):
        ours, theirs = pair()
        a.bus.link(serial, ours)
        assert ours.fileno() < 0
        theirs.close()
    assert a.log.count("bus_linked_twice") == 2
    say(three.nodes[2], "t", "x")
    three.settle()


def test_two_hundred_nodes() -> None:
    """Each knows each: 19 900 links take seconds, and a message to all of them milliseconds."""
    with net(40) as forty:
        first = forty.nodes[1]
        for node in list(forty.nodes.values())[1:]:
            node.bus.subscribed("t", 1)
        forty.beat(0.1)
        assert first.bus.subscribers("t") == 39
        say(first, "t", "x")
        forty.settle()
        assert all(texts(node) == ["x"] for node in forty.nodes.values())
        ends = []
        for serial in range(1000, 1160):
            ours, theirs = pair()
            first.bus.link(serial, ours)
            ends.append(theirs)
        assert len(first.bus._peers) == 199
        say(first, "t", "y")
        first.watcher.turn()
        for end in ends:
            assert b"y" in end.recv(65536)
            end.close()
        forty.settle()
        assert len(first.bus._peers) == 39


def test_a_flood_of_subscriptions_takes_bounded_memory_beside_a_node_that_does_not_read(
    three: Net,
) -> None:
    """What has changed is told as it is when there is room; who is too far behind is told anew."""
    a, b, c = three.nodes.values()

    def turn() -> None:
        for node in (a, b):
            node.watcher.turn()

    a.bus.subscribed("kept", 1)
    tracemalloc.start()
    try:
        for number in range(100_000):
            topic = f"topic-{number}"
            a.bus.subscribed(topic, 1)
            a.bus.subscribed(topic, 0)
            if number % 1000 == 0:
                three.clock.now += 0.6
                a.bus.beat(three.clock.now)
                turn()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert a.bus.queued < 1 << 20
    three.clock.now += 2
    a.bus.beat(three.clock.now)
    turn()
    turn()
    assert b.bus._book._nodes[1].topics == {"kept"}
    three.beat(1.0)
    assert c.bus._book._nodes[1].topics == {"kept"}
    assert c.bus._peers[1].counts == {"kept": 1}
    say(c, "kept", "x")
    say(c, "topic-5", "y")
    three.settle()
    assert texts(a) == ["x"]


def test_who_is_told_anew_keeps_what_its_mirrors_kept(three: Net) -> None:
    """A link that is told everything again in the middle of a session goes on mirroring."""
    a, b, c = three.nodes.values()
    conn = connect(b, 1, "t")
    three.settle()
    session = three.session()
    c.bus.take_from(b.serial, session)
    b.bus.hand_to(c.serial, session, lambda _: None)
    three.settle()
    for number in range(20_000):  # more than the log holds
        c.bus.subscribed(f"x{number}", 1)
    c.resume(b.suspend(conn), b.serial)
    b.bus.handed_to(c.serial, session)
    three.clock.now += 1.5
    b.bus.beat(three.clock.now)
    for _ in range(4):
        b.watcher.turn()
        a.watcher.turn()
    say(a, "t", "x")
    three.settle()
    assert len(conn.got) == 1
    assert session in a.bus._sessions
    c.bus.taken_from(b.serial, session)
    three.settle()
    assert session not in a.bus._sessions
    assert not a.bus._book._nodes[3].mirrors


def test_packets_of_mirrors_come_before_complete(three: Net) -> None:
    """A new link says what is mirrored before it says that all is said."""
    _, b, c = three.nodes.values()
    c.bus.take_from(b.serial, 77)
    said = [type(packet) for packet in c.bus._news.greeting(0)]
    assert said == [p.Greeting, p.Mirror]


def test_what_is_wanted_is_said_before_the_end_of_a_session(three: Net) -> None:
    """In one turn with it: nobody stops mirroring before it knows what is wanted instead."""
    a, b, c = three.nodes.values()
    c.bus.take_from(b.serial, 77)
    three.settle()
    told: list[type] = []
    act = a.bus._act
    a.bus._act = lambda peer, packet: (told.append(type(packet)), act(peer, packet))  # type: ignore[func-returns-value,method-assign]
    c.bus.taken_from(b.serial, 77)
    c.bus.subscribed("t", 1)
    three.settle()
    assert told.index(p.Interest) < told.index(p.Unmirror)
