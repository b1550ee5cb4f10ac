"""What nodes ask each other: who is subscribed, what was missed, and a whole history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.topics_net import NODE, Net, Node, net, pair
from wssup.topics import packets as p
from wssup.topics.message import Message


@pytest.fixture
def three() -> Iterator[Net]:
    with net(3) as found:
        for node in found.nodes.values():
            names = [f"{node.serial}{letter}" for letter in "abc"]
            node.bus.members = lambda _topic, limit, names=names: (names[:limit], 3)  # type: ignore[misc]
            node.bus.subscribed("t", 3)
        found.beat(0.1)
        yield found


def ask(node: Node, limit: int = 100, **fields: Any) -> list[tuple[list[str], int, bool]]:
    found: list[tuple[list[str], int, bool]] = []
    node.bus.ask("t", limit, lambda *answer: found.append(answer), **fields)
    assert not found, "the answer comes in a turn"
    return found


def test_presence_is_asked_of_all_that_have_subscribers(three: Net) -> None:
    """Names of all nodes, the count, and that it is all."""
    found = ask(three.nodes[1])
    three.settle()
    [(names, count, complete)] = found
    assert sorted(names) == [f"{n}{letter}" for n in (1, 2, 3) for letter in "abc"]
    assert (count, complete) == (9, True)


def test_presence_names_at_most_so_many(three: Net) -> None:
    """The count is of all; none are named when none are asked for."""
    for limit in (0, 1, 4):
        found = ask(three.nodes[2], limit)
        three.settle()
        [(names, count, complete)] = found
        assert (len(names), count, complete) == (limit, 9, True)


def test_a_node_that_does_not_answer_in_time_is_left_out(three: Net) -> None:
    """The answer comes at its deadline, and says that it is not all."""
    a, b, c = three.nodes.values()
    found = ask(a, timeout=0.5)
    del three.nodes[c.serial]
    three.settle()
    assert not found
    three.beat(0.4)
    assert not found
    three.beat(0.2)
    [(_, count, complete)] = found
    assert (count, complete) == (6, False)
    three.nodes[c.serial] = c
    three.settle()
    assert len(found) == 1
    assert b.bus.queued == 0


def test_a_node_that_dies_has_no_subscribers(three: Net) -> None:
    """So the answer without it is complete."""
    found = ask(three.nodes[1])
    three.kill(three.nodes[3])
    three.settle()
    [(_, count, complete)] = found
    assert (count, complete) == (6, True)


def test_who_is_alone_answers_itself() -> None:
    """With nobody to ask the answer comes as well, and in a turn."""
    with net(1) as one:
        found = ask(one.nodes[1])
        one.settle()
        assert found == [([], 0, True)]


def test_questions_to_a_node_that_does_not_read_are_bounded(three: Net) -> None:
    """After some the others are asked without it."""
    a, b, c = three.nodes.values()
    del three.nodes[c.serial]
    answers: list[bool] = []
    for number in range(6000):
        a.bus.ask("t" * 200, 1000, lambda *answer: answers.append(answer[2]))
        a.bus.ask("t", 1000, lambda *answer: answers.append(answer[2]))
        if number % 500 == 0:
            three.settle()
    assert a.bus.queued < 1 << 20
    three.beat(1.1)
    three.beat(1.1)
    assert len(answers) == 12_000
    assert not a.bus._questions._open
    assert b.bus.queued == 0
    c.close()


def test_a_question_sees_subscribers_whose_count_was_not_told_yet(three: Net) -> None:
    """Interest is told at once, counts a little later."""
    _, b, c = three.nodes.values()
    c.bus.members = lambda topic, limit: (["late"][:limit], 1) if topic == "new" else ([], 0)
    c.bus.subscribed("other", 1)
    three.settle()
    c.bus.subscribed("new", 1)
    three.settle()
    found: list[Any] = []
    b.bus.ask("new", 5, lambda *answer: found.append(answer))
    three.settle()
    # Each node here names its three for any topic, but only those that want it are asked.
    assert found == [(["2a", "2b", "2c", "late"], 4, True)]


def test_what_was_missed_is_asked_of_the_nodes_that_keep_it() -> None:
    """In pieces, of at most so many entries."""
    with net(1) as two:
        asked: list[p.Recover] = []
        replies: list[Callable[[p.Recovered], None]] = []

        def answer(packet: p.Recover, reply: Callable[[p.Recovered], None]) -> bool:
            asked.append(packet)
            replies.append(reply)
            return True

        bridge = Node(9, clock=two.clock, everything=True)
        bridge.bus.on_recover = answer
        bridge.bus._news.keeper = True
        ours, theirs = pair()
        a = two.nodes[1]
        bridge.bus.link(1, ours)
        a.bus.link(9, theirs)
        bridge.bus.begin(bridge.watcher)
        two.nodes[9] = bridge
        two.settle()
        found: list[tuple[list[p.Entry], bool]] = []
        a.bus.recover("t", {"x.1": 5}, 3, lambda *answer: found.append(answer))
        two.settle()
        assert asked == [p.Recover(1, "t", {"x.1": 5}, 3)]
        entries = [p.Entry("t", True, b"x", "x.1", n, 0.0, 0, 0) for n in (6, 7, 8, 9)]
        replies[0](p.Recovered(1, entries[:2], complete=True, last=False))
        two.settle()
        assert not found
        replies[0](p.Recovered(1, entries[2:3], complete=True, last=True))
        two.settle()
        assert found == [(entries[:3], True)]
        a.bus.recover("t", {}, 3, lambda *answer: found.append(answer))
        two.settle()
        replies[1](p.Recovered(2, entries, complete=True, last=True))
        two.settle()
        assert found[1] == (entries[:3], False)
        # The one who asked dies: the late answer goes nowhere.
        a.bus.recover("t", {}, 3, lambda *answer: found.append(answer))
        two.settle()
        two.kill(a)
        two.settle()
        replies[2](p.Recovered(3, [], complete=True, last=True))
        two.settle()


def test_nobody_keeps_what_was_missed(three: Net) -> None:
    """Then the answer says that it is not all, in a turn; and so does a node that is asked."""
    found: list[Any] = []
    a, b, _ = three.nodes.values()
    a.bus.recover("t", {}, 3, lambda *answer: found.append(answer))
    three.settle()
    assert found == [([], False)]
    a.bus._peers[2].keeper = True
    a.bus.recover("t", {}, 3, lambda *answer: found.append(answer))
    three.settle()
    assert found == [([], False)] * 2
    a.bus.recover("t", {}, 3, lambda *answer: found.append(answer))
    three.kill(b)
    three.settle()
    assert found == [([], False)] * 3


# A new node's history.


def say(node: Node, text: str) -> Message:
    return node.bus.publish("t", text=True, data=text.encode())


def kept(node: Node) -> tuple[list[str], bool]:
    found, complete = node.history.since_marks("t", {})
    return [message.data.decode() for message in found], complete


def learners(found: Net, count: int) -> None:
    found.options = {"everything": True, "messages": 1000}
    for _ in range(count):
        found.add()
    found.beat(0.1)


def test_a_new_node_has_the_history_of_the_oldest() -> None:
    """Before it is ready; of each message all is as it was."""
    with net(0) as found:
        learners(found, 2)
        for number in range(500):
            say(found.nodes[1 + number % 2], f"{number}" + "x" * 300)
            found.settle()
        new = found.add()
        told: list[str] = []
        new.bus.when_complete(lambda: told.append("ready"))
        assert not new.bus.ready()
        found.settle()
        assert told == ["ready"]
        assert new.bus.ready()
        assert new.history.since_marks("t", {}) == found.nodes[1].history.since_marks("t", {})
        assert len(kept(new)[0]) == 500


def test_what_was_on_its_way_to_the_oldest_is_waited_for() -> None:
    """A message that was published before the new node was linked, and not yet read by the node
    that is asked, is in the history all the same.
    """
    with net(0) as found:
        learners(found, 2)
        a, b = found.nodes.values()
        say(b, "early")  # on its way to A
        new = found.add()
        told: list[str] = []
        new.bus.when_complete(lambda: told.append("ready"))
        # A reads the new node's link only, as long as it can.
        fd = a.bus._peers[new.serial]._fd
        for _ in range(20):
            for node in (b, new):
                node.watcher.turn()
            for ready, bits in a.watcher.ready():
                if ready == fd:
                    a.watcher.tell(ready, bits)
            a.watcher.chores()
        assert not told
        found.settle()
        assert told
        assert kept(new) == kept(a) == (["early"], kept(a)[1])


def test_the_node_that_is_asked_dies() -> None:
    """The next oldest is asked; if it dies in the middle, the history says that it is not all."""
    with net(0) as found:
        learners(found, 3)
        a, b, _ = found.nodes.values()
        for number in range(100):
            say(a, f"{number}")
        found.beat(0.1)
        new = found.add()
        told: list[str] = []
        new.bus.when_complete(lambda: told.append("ready"))
        found.kill(a)
        found.settle()
        assert told
        assert kept(new)[0] == kept(b)[0] != []


def test_a_history_that_does_not_come_is_waited_for_ten_seconds() -> None:
    """The node is ready then, and says of old positions that they are not complete."""
    with net(0) as found:
        learners(found, 2)
        a, b = found.nodes.values()
        say(b, "x")
        found.settle()
        token = b.history.marks("t")
        del found.nodes[1]
        new = found.add()
        ours, theirs = pair()
        a.bus.link(new.serial, ours)
        new.bus.link(1, theirs)
        told: list[str] = []
        new.bus.when_complete(lambda: told.append("ready"))
        a.watcher.turn()
        a.watcher.turn()
        a.watcher.turn()
        new.watcher.turn()
        found.beat(2.5)
        assert not told
        found.beat(10)
        assert told
        assert new.history.since_marks("t", token)[1] is False
        a.close()


def test_a_history_may_take_long_as_long_as_parts_come() -> None:
    """Its deadline is one of each part."""
    with net(0, buffer=4608) as found:
        learners(found, 1)
        a = found.nodes[1]
        for number in range(400):
            say(a, f"{number}" + "x" * 5000)
        found.beat(0.1)
        new = found.add()
        told: list[str] = []
        new.bus.when_complete(lambda: told.append("ready"))
        before, waited = 0, 0
        while not told and waited < 100:
            # What is sent in so much time is a part or two.
            while len(new.history._incoming) == before and not told:
                for node in (a, new):
                    node.watcher.turn()
            before = len(new.history._incoming)
            found.clock.now += 1.5
            waited += 1
            new.bus.beat(found.clock.now)
        assert 10 < waited < 60
        assert len(kept(new)[0]) == 400


def test_who_has_nobody_older_is_ready_at_once() -> None:
    """Nodes that are young do not wait for each other."""
    with net(0) as found:
        learners(found, 1)
        told: list[str] = []
        found.nodes[1].bus.when_complete(lambda: told.append("ready"))
        found.settle()
        assert told


def test_an_older_node_that_says_nothing_is_waited_for_two_seconds() -> None:
    """A new node is ready then all the same."""
    with net(1) as found:
        a = found.nodes[1]
        new = found.add()
        del found.nodes[1]
        told: list[str] = []
        new.bus.when_complete(lambda: told.append("ready"))
        found.settle()
        found.beat(1.9)
        assert not told
        found.beat(0.2)
        assert told
        a.close()


def test_a_long_history_is_sent_bit_by_bit() -> None:
    """Not much more than a part of it is in a queue at any time; live messages go in between."""
    with net(0, buffer=4608) as found:
        learners(found, 1)
        a = found.nodes[1]
        for number in range(900):
            say(a, f"{number}" + "x" * 5000)
        found.beat(0.1)
        new = found.add()
        new.bus.when_complete(lambda: None)
        most = 0
        deadline = time.monotonic() + 20
        while not new.bus.ready() and time.monotonic() < deadline:
            for node in (a, new):
                node.watcher.turn()
            most = max(most, a.bus.queued)
        assert new.bus.ready()
        assert most < 1 << 20
        assert len(kept(new)[0]) == len(kept(a)[0]) == 900
        assert all(m.source == f"{NODE}.1" for m in new.history.since_marks("t", {})[0])
