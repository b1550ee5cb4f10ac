"""When connections may begin to move: all nodes have said that their messages go to both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.topics_net import Net, begin, connect, net


@pytest.fixture
def three() -> Iterator[Net]:
    """A publishes, a connection moves from B to C."""
    with net(3) as found:
        yield found


def test_ready_comes_in_a_turn_when_all_have_fenced(three: Net) -> None:
    """Not synchronously, and not before each node and the receiver have said that they mirror."""
    a, b, c = three.nodes.values()
    _, ready = begin(three, b, c)
    assert not ready
    for _ in range(10):
        b.watcher.turn()
        c.watcher.turn()
    assert not ready, "A has not said it"
    for _ in range(10):
        a.watcher.turn()
        b.watcher.turn()
    assert ready == [[]]


def test_fences_of_an_earlier_session_do_not_count(three: Net) -> None:
    """Between the same two nodes, one session after the other: the second one waits for its own."""
    a, b, c = three.nodes.values()
    first, ready = begin(three, b, c)
    three.settle()
    assert ready
    b.bus.handed_to(c.serial, first)
    c.bus.taken_from(b.serial, first)
    second, ready = begin(three, b, c)
    for _ in range(10):
        b.watcher.turn()
        c.watcher.turn()
    assert not ready
    a.watcher.turn()
    three.settle()
    assert ready
    assert second != first


def test_fences_that_come_before_anybody_waits_for_them(three: Net) -> None:
    """The receiver's order may come long before the sender's."""
    _, b, c = three.nodes.values()
    session = three.session()
    c.bus.take_from(b.serial, session)
    three.settle()
    ready: list[list[int]] = []
    b.bus.hand_to(c.serial, session, ready.append)
    three.settle()
    assert ready


def test_a_node_that_dies_is_not_waited_for(three: Net) -> None:
    """Nor is its fence missing any more, nor that of the receiver."""
    a, b, c = three.nodes.values()
    _, ready = begin(three, b, c)
    three.kill(a)
    three.settle()
    assert ready
    _, ready = begin(three, b, c)
    three.kill(c)
    three.settle()
    assert ready


def test_a_node_that_does_not_answer_is_waited_for_two_seconds(three: Net) -> None:
    """Then connections may move, and it is named."""
    a, b, c = three.nodes.values()
    _, ready = begin(three, b, c)

    def go(seconds: float) -> None:
        three.clock.now += seconds
        for _ in range(10):
            for node in (b, c):
                node.bus.beat(three.clock.now)
                node.watcher.turn()

    go(1.9)
    assert not ready
    go(0.2)
    assert ready == [[a.serial]]
    three.settle()
    assert ready == [[a.serial]]


def test_a_node_that_is_only_slow_is_waited_for_longer(three: Net) -> None:
    """As long as something comes of it, and half a minute at most."""
    a, b, c = three.nodes.values()
    b.bus.subscribed("t", 1)
    three.settle()
    _, ready = begin(three, b, c)
    speaker = connect(a, 1)
    waited = 0.0
    while not ready and waited < 60:
        three.clock.now += 0.5
        waited += 0.5
        # A publishes, and does not come to read what C has said.
        a.publish(speaker, "t")
        a.watcher.chores()
        for node in (b, c):
            node.bus.beat(three.clock.now)
            node.watcher.turn()
            node.watcher.turn()
    assert 30 <= waited <= 33
    assert ready == [[a.serial]]
    assert len(b.got) > 50


def test_a_receiver_that_stands_still_is_not_waited_for_longer(three: Net) -> None:
    """Nobody can send a fence before the receiver has said that it mirrors the sender: that others
    are alive is no reason to wait.
    """
    a, b, c = three.nodes.values()
    b.bus.subscribed("t", 1)
    three.settle()
    ready: list[list[int]] = []
    b.bus.hand_to(c.serial, three.session(), ready.append)
    speaker = connect(a, 1)
    for _ in range(4):
        assert not ready
        three.clock.now += 0.5
        a.publish(speaker, "t")
        a.watcher.chores()
        b.bus.beat(three.clock.now)
        b.watcher.turn()
    assert ready
    assert len(b.got) == 4


def test_a_receiver_that_is_dead_is_not_waited_for(three: Net) -> None:
    """The end of its session, not the bus, says so to who was to send to it."""
    _, b, c = three.nodes.values()
    three.kill(c)
    three.settle()
    ready: list[list[int]] = []
    b.bus.hand_to(c.serial, three.session(), ready.append)
    b.watcher.turn()
    assert ready == [[]]


def test_who_is_in_a_hurry_waits_for_nobody(three: Net) -> None:
    """Sessions begin that wait, and those to come; and hear who was not waited for."""
    a, b, c = three.nodes.values()
    ready: list[list[int]] = []
    b.bus.hand_to(c.serial, three.session(), ready.append)
    b.watcher.turn()
    assert not ready
    b.bus.hurry()
    b.watcher.turn()
    b.bus.hand_to(a.serial, three.session(), ready.append)
    b.watcher.turn()
    assert ready == [[a.serial, c.serial]] * 2
