"""The links of the bus: slow ones, broken ones, and nodes that die."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.topics_net import Net, Node, net, pair
from wssup.topics import packets as p
from wssup.topics import peer as peers
from wssup.topics import publishing
from wssup.topics.message import Message


@pytest.fixture
def two() -> Iterator[Net]:
    with net(2) as found:
        found.nodes[2].bus.subscribed("t", 1)
        found.settle()
        yield found


def say(node: Node, text: str, topic: str = "t") -> None:
    node.bus.publish(topic, text=True, data=text.encode())


def texts(node: Node) -> list[str]:
    return [message.data.decode() for message in node.got]


def link(found: Net, node: Node, serial: int = 99) -> tuple[socket.socket, p.Feed]:
    """A link whose other end is in the test's hands."""
    ours, theirs = pair()
    node.bus.link(serial, ours)
    found.settle()
    return theirs, p.Feed()


def greeting(serial: int = 99) -> bytes:
    hello = p.Greeting(p.PROTOCOL, serial, everything=False, history=False, keeper=False, number=0)
    return p.encode(hello) + p.encode(p.Complete())


def test_a_dead_node_is_read_to_its_end(two: Net) -> None:
    """What it had sent comes, also when it had not read what was sent to it (which is reported as
    an error first, unix(7)); only then is it gone.
    """
    a, b = two.nodes.values()
    a.bus.subscribed("t", 1)
    two.settle()
    for number in range(50):
        say(a, str(number))
    a.watcher.chores()
    say(b, "unread")
    b.watcher.chores()
    two.kill(a)
    two.settle()
    assert texts(b) == ["unread", *map(str, range(50))]
    assert not b.bus._peers
    assert not b.log.events
    assert not b.watcher.heard


def test_sending_to_a_node_that_has_died_is_not_its_end(two: Net) -> None:
    """A failed send says that nobody reads there; what had come is read all the same."""
    a, b = two.nodes.values()
    say(a, "last words")
    a.watcher.chores()
    two.kill(a)
    b.bus._book.on(1, ["u"])
    for _ in range(3):
        say(b, "x", "u")
        b.watcher.chores()
    assert texts(b)[-1] == "x"
    assert b.bus._peers[1].queued == 0
    two.settle()
    assert "last words" in texts(b)
    assert not b.bus._peers


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        b"\x04\0\0\0\x01\x02\x03\x04",
        p.encode(p.Complete()),
        p.encode(p.Greeting(99, 99, False, False, False, 0)),
        p.encode(p.Greeting(p.PROTOCOL, 98, False, False, False, 0)),
        p.encode(p.Published(1, "t", True, b"x", 0, 0.0, None, 1)) * 2 + p.encode(p.Complete()),
    ],
    ids=["too long", "no packet", "no greeting", "another version", "another node", "rude"],
)
def test_a_link_that_says_what_it_should_not_is_closed(two: Net, said: bytes) -> None:
    """And logged; others go on."""
    a, b = two.nodes.values()
    end, _ = link(two, a)
    end.sendall(said)
    two.settle()
    assert a.log.count("bus_link_broken") == 1
    assert set(a.bus._peers) == {2}
    end.close()
    say(a, "x")
    two.settle()
    assert texts(b) == ["x"]


def test_a_link_begins_with_who_one_is_and_what_one_wants(two: Net) -> None:
    """A greeting first, `Complete` when all is said, then changes."""
    _, b = two.nodes.values()
    end, feed = link(two, b)
    found = feed.feed(end.recv(65536))
    assert found[0] == p.Greeting(p.PROTOCOL, 2, False, False, False, 0)
    assert found[1:] == [p.Interest(["t"], on=True), p.Counts({"t": 1}), p.Complete()]
    b.bus.subscribed("u", 1)
    two.settle()
    assert p.Interest(["u"], on=True) in feed.feed(end.recv(65536))
    end.close()


@pytest.mark.parametrize("subscribers", [1, publishing.MANY - 1, publishing.MANY, 10_000])
def test_what_many_get_here_leaves_for_the_others_first(two: Net, subscribers: int) -> None:
    """While this worker sends it to its many, the others already do. What few get waits for the
    turn's end, from which one call sends all of the turn's messages.
    """
    a, b = two.nodes.values()
    a.bus.subscribed("t", subscribers)
    two.settle()
    there = b.bus._peers[1]._end
    sent: list[bool] = []
    a.on_deliver = lambda: sent.append(bool(select.select([there], [], [], 0)[0]))
    for number in range(3):
        say(a, str(number))
    assert sent == [subscribers >= publishing.MANY] * 3
    two.settle()
    assert texts(b) == ["0", "1", "2"]
    assert a.counts.totals["sent"] == 3


def test_what_leaves_at_once_waits_behind_what_did_not(two: Net) -> None:
    """A message with many subscribers takes those before it along, so that they keep their order;
    and if the link is full it waits in its queue as every other, and nothing is doubled.
    """
    a, b = two.nodes.values()
    b.bus.subscribed("few", 1)
    a.bus.subscribed("t", publishing.MANY)
    two.settle()
    wanted = []
    for number in range(2000):
        wanted += [f"few {number}", f"many {number}".ljust(300)]
        say(a, wanted[-2], "few")
        say(a, wanted[-1], "t")
    assert a.bus.queued
    two.settle()
    assert texts(b) == wanted
    assert a.counts.totals["sent"] == len(wanted)


def test_what_leaves_at_once_feeds_nobody_history() -> None:
    """A new node gets its part of the history once in each turn, however many messages with many
    subscribers are published in it: they leave without one.
    """
    with net(2, messages=50, everything=True) as two:
        a, b = two.nodes.values()
        for number in range(3000):
            say(a, f"{number}".ljust(2000), f"t{number % 100}")
        two.settle()
        a.bus.subscribed("t", publishing.MANY)
        two.settle()
        c = two.add()
        for _ in range(1000):
            for node in (c, b, a):
                node.watcher.turn()
            if a.bus._teaching.sends(a.bus._peers[3]):
                break
        else:
            raise AssertionError("nobody is sent a history")
        parts = 0
        asked = a.bus._teaching.part

        def part(peer: peers.Peer) -> bytes | None:
            nonlocal parts
            parts += 1
            return asked(peer)

        a.bus._teaching.part = part  # type: ignore[method-assign]
        for number in range(50):
            say(a, str(number))
        assert parts == 0
        two.settle()
        assert parts
        assert [text for text in texts(c) if len(text) < 3] == [str(n) for n in range(50)]


def test_a_slow_node_loses_the_oldest_and_is_told() -> None:
    """Its queue holds no more than its bound, others get all in time, and both ends count."""
    with net(3, buffer=4608, queue_bytes=100_000) as three:
        a, b, c = three.nodes.values()
        for node in (b, c):
            node.bus.subscribed("t", 1)
        three.settle()
        for number in range(5000):
            say(a, f"{number:05}")
            if number % 50 == 0:
                for node in (a, b):
                    node.watcher.turn()
                assert a.bus._peers[3].size <= 100_000
                assert a.bus.queued < 110_000
        for _ in range(20):
            a.watcher.turn()
            b.watcher.turn()
        assert texts(b) == [f"{n:05}" for n in range(5000)]
        three.settle()
        got = [int(text) for text in texts(c)]
        assert got == sorted(set(got))
        assert got[-1] == 4999
        missed = 5000 - len(got)
        assert missed > 1000
        assert a.counts.totals["lost_out"] == c.counts.totals["lost_in"] == missed
        assert c.bus.seen[1] == 5000
        assert a.log.count("bus_queue_full") == 1
        # The gap is one piece: the oldest that had not been sent.
        gaps = [y - x for x, y in pairwise(got) if y - x != 1]
        assert sum(gaps) - len(gaps) == missed


def test_what_is_no_message_is_never_dropped() -> None:
    """A fence that lies behind messages that are dropped still comes, and after them."""
    with net(3, buffer=4608, queue_bytes=5000) as three:
        a, b, c = three.nodes.values()
        b.bus.subscribed("t", 1)
        three.settle()
        for number in range(500):
            say(a, f"{number:0100}")
        a.watcher.turn()
        ready: list[int] = []
        c.bus.take_from(b.serial, 1)
        b.bus.hand_to(c.serial, 1, lambda _: ready.append(len(b.got)))
        while c.watcher.turn() or a.watcher.turn():
            pass
        for number in range(500):
            say(a, f"{number:0100}")
        three.settle()
        assert ready
        lost = [node.counts.totals["lost_in"] for node in (b, c)]
        assert lost[0] > 900
        assert a.counts.totals["lost_out"] == sum(lost)
        assert b.bus.seen[1] == 1000


def test_a_message_that_is_longer_than_the_queue_comes_alone(two: Net) -> None:
    """It has room when nothing else waits; what comes before it can be sent takes its place."""
    a, b = two.nodes.values()
    a.bus._peers[2].bound = 1000
    say(a, "x" * 2000)
    two.settle()
    assert texts(b) == ["x" * 2000]
    say(a, "y" * 2000)
    say(a, "short")
    two.settle()
    assert texts(b)[1:] == ["short"]
    assert b.counts.totals["lost_in"] == a.counts.totals["lost_out"] == 1


def test_a_turn_ends_after_a_while_however_few_messages_it_had(two: Net) -> None:
    """A message to many subscribers takes long; others are served in between."""
    a, b = two.nodes.values()
    plain = b.bus._deliver

    def deliver(message: Message) -> None:
        two.clock.now += 0.004
        plain(message)

    b.bus._deliver = deliver
    for number in range(100):
        say(a, str(number))
    a.watcher.chores()
    seen = [0]
    while b.watcher.turn():
        seen.append(len(b.got))
    assert max(y - x for x, y in pairwise(seen)) <= 7
    assert texts(b) == [str(n) for n in range(100)]


def test_a_turn_takes_a_bounded_number_of_packets(two: Net) -> None:
    """The rest comes in the next ones, also when nothing more is to be read."""
    a, b = two.nodes.values()
    for number in range(1500):
        say(a, str(number))
    a.watcher.chores()
    seen = []
    while b.watcher.turn():
        seen.append(len(b.got))
    assert seen[0] <= 1024  # once when its socket is heard, once at the end of the turn
    assert max(y - x for x, y in pairwise(seen)) <= 512
    assert texts(b) == [str(n) for n in range(1500)]


def test_a_socket_is_watched_for_writing_only_while_it_is_full() -> None:
    """An idle or a quick link costs no call of epoll_ctl(2) for its messages."""
    with net(2, buffer=4608) as two:
        a, b = two.nodes.values()
        b.bus.subscribed("t", 1)
        two.settle()
        before = a.watcher.attends
        for _ in range(100):
            say(a, "x")
            two.settle()
        assert a.watcher.attends == before
        for _ in range(200):
            say(a, "x" * 100)
        two.settle()
        assert a.watcher.attends > before
        assert len(b.got) == 300
        assert a.bus._peers[2]._mask == peers._IN


def test_everything_in_single_bytes(two: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little a read gives."""
    monkeypatch.setattr(peers, "READ", 1)
    a, b = two.nodes.values()
    for number in range(20):
        say(a, f"{number} " + "x" * number)
    two.settle()
    assert len(b.got) == 20


def test_closing_gives_all_descriptors_back(two: Net) -> None:
    """And nothing is watched any more."""
    a, b = two.nodes.values()
    fds = [peer._end for peer in a.bus._peers.values()]
    a.bus.close()
    assert all(end.fileno() < 0 for end in fds)
    assert not a.watcher.heard
    two.settle()
    assert not b.bus._peers
    a.bus.close()
