"""A node of the bus that begins, stands still, and ends."""

from __future__ import annotations

import pytest

from tests.topics_net import NODE, Node, net, pair
from tests.unit.test_topics_links import say, texts


def test_what_is_queued_before_there_is_a_watcher_is_sent_then() -> None:
    """Links and messages may be there before the node runs."""
    with net(0) as found:
        first, second = (Node(serial, clock=found.clock) for serial in (1, 2))
        found.nodes.update({1: first, 2: second})
        ours, theirs = pair()
        first.bus.link(2, ours)
        second.bus.link(1, theirs)
        say(first, "early")
        first.bus.subscribed("t", 1)
        assert not first.bus.ready()
        for node in (first, second):
            node.bus.begin(node.watcher)
        found.settle()
        say(second, "answer")
        found.settle()
        assert texts(second) == ["early", "answer"]
        assert texts(first) == ["early", "answer"]


def test_what_is_lost_after_a_standstill_is_lost_as_of_now() -> None:
    """A node that stood still for long reads that it has lost something before its heart beats:
    who was somewhere meanwhile is not told that it has everything.
    """
    with net(2, buffer=4608, queue_bytes=5000, messages=1000, everything=True) as two:
        a, b = two.nodes.values()
        b.bus.subscribed("t", 1)
        two.beat()
        for number in range(200):
            say(a, f"{number:0100}")
            a.watcher.turn()
        two.clock.now += 24
        meanwhile = {f"{NODE}.0": int(two.clock.now * 1000), f"{NODE}.{a.serial}": 1}
        two.clock.now += 4
        two.settle()
        assert b.counts.totals["lost_in"] > 0
        _, complete = b.history.since_marks("t", meanwhile)
        assert not complete


def test_a_node_that_leaves_in_order_is_heard_to_its_end() -> None:
    """Who waits until all it has published is sent loses nothing of it, however slow others are; of
    one that reads nothing it knows how much is left.
    """
    with net(2, buffer=4608) as found:
        a, b = found.nodes.values()
        b.bus.subscribed("t", 1)
        found.settle()
        for number in range(200):
            say(a, f"{number} " + "x" * 500)
        a.watcher.turn()
        sent: list[bool] = []
        a.bus.when_sent(lambda: sent.append(True))
        assert not sent
        assert a.bus.unsent > 0
        while not sent:
            b.watcher.turn()
            a.watcher.turn()
            a.bus.beat(found.clock.now)
        assert a.bus.unsent == 0
        found.kill(a)
        found.settle()
        assert [text.split()[0] for text in texts(b)] == [*map(str, range(200))]


def test_a_node_that_takes_long_to_begin() -> None:
    """Who wants nothing is sent nothing from the start on, however long it takes until it reads:
    nothing is lost that was for nobody.
    """
    with net(2, queue_bytes=4096, buffer=4608) as two:
        a = two.nodes[1]
        late = two.add(begin=False)
        two.settle()
        for number in range(1000):
            say(a, f"{number} " + "x" * 500, "nobody's")
            a.watcher.turn()
        late.bus.begin(late.watcher)
        two.settle()
        assert late.counts.totals["lost_in"] == a.counts.totals["lost_out"] == 0
        late.bus.subscribed("t", 1)
        two.settle()
        say(a, "hello")
        two.settle()
        assert texts(late) == ["hello"]


def hear(node: Node, other: Node) -> None:
    """Read from one link alone, and do what there is to do."""
    fd = node.bus._peers[other.serial]._end.fileno()
    for ready, bits in node.watcher.ready():
        if ready == fd:
            node.watcher.tell(fd, bits)
    node.watcher.chores()


@pytest.mark.parametrize("silent", [False, True])
def test_a_new_node_has_all_that_it_was_taught(silent: bool) -> None:  # noqa: FBT001 - a case
    """What an older node teaches a new one may still be on its way to that one, too: it serves
    nobody before it has come, since it would be given twice to who comes back with a position. It
    does not wait for long for a publisher that stands still.
    """
    with net(2, messages=50, everything=True) as found:
        a, d = found.nodes.values()
        c = found.add()
        complete: list[bool] = []
        c.bus.when_complete(lambda: complete.append(True))
        while c.bus._learning._asked is None:
            for node in found.nodes.values():
                node.watcher.turn()
        for number in range(10):
            say(d, str(number))
        d.watcher.turn()
        hear(a, d)
        while not c.bus._learning.over:
            a.watcher.turn()
            hear(c, a)
        assert len(c.history.since_marks("t", {})[0]) == 10
        assert not c.bus.ready()
        if silent:
            c.bus.beat(found.clock.now + 1)
            assert not c.bus.ready()
            found.clock.now += 2
        else:
            hear(c, d)
        assert c.bus.ready()
        c.bus.beat(found.clock.now)
        c.watcher.chores()
        assert complete


def test_ends_that_are_not_said() -> None:
    """A node that is so far behind that all is said to it anew is not told that a move is over: it
    knows that it is.
    """
    with net(2) as two:
        a, b = two.nodes.values()
        session = two.session()
        b.bus.take_from(a.serial, session)
        two.settle()
        assert a.bus.moves
        b.bus.taken_from(a.serial, session)
        other = two.session()
        b.bus.take_from(77, other)
        for number in range(1 << 14):
            b.bus.subscribed(f"{number}", 1)
        two.settle()
        assert not a.bus.moves
        assert a.bus._sessions == {other: (b.serial, 77)}
