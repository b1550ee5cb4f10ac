"""The order of what is published by somebody who moves between nodes."""

from __future__ import annotations

from tests.topics_net import Conn, Net, Node, Record, net


def say(node: Node, text: str) -> None:
    node.bus.publish("t", text=True, data=text.encode())


def texts(node: Node) -> list[str]:
    return [message.data.decode() for message in node.got]


def leaves(three: Net, subscribed: Node) -> tuple[Node, Record]:
    """Somebody has published at B and is on the way to C; C, and the record."""
    _, b, c = three.nodes.values()
    subscribed.bus.subscribed("t", 1)
    conn = Conn(1)
    b.conns[conn] = None
    three.settle()
    c.bus.take_from(b.serial, 1)
    b.bus.hand_to(c.serial, 1, lambda _: None)
    three.settle()
    say(b, "first")
    return c, b.suspend(conn)


def moved(three: Net) -> tuple[Node, Node, Node, Conn]:
    """A publisher that has published at B, and is at C now; A has read none of it."""
    a, b, _ = three.nodes.values()
    c, record = leaves(three, a)
    b.watcher.chores()
    while c.watcher.turn():
        pass
    c.resume(record, b.serial)
    say(c, "second")
    c.watcher.chores()
    return a, b, c, record.conn


def read(a: Node, serial: int) -> None:
    """A reads one link only."""
    fd = a.bus._peers[serial]._fd
    for ready, bits in a.watcher.ready():
        if ready == fd:
            a.watcher.tell(fd, bits)


def test_what_a_publisher_says_at_its_new_node_comes_after_what_it_said_at_the_old_one() -> None:
    """Although the new link is read first: it waits for the other one."""
    with net(3) as three:
        a, _, _, _ = moved(three)
        read(a, 3)
        assert not a.got
        assert a.bus._peers[3].waits is not None
        assert a.bus._peers[3]._fd not in [fd for fd, _ in a.watcher.ready()]
        three.settle()
        assert texts(a) == ["first", "second"]


def test_a_link_that_waits_does_not_wait_for_the_dead() -> None:
    """The old node dies: its link is read to the end, then the other one goes on."""
    with net(3) as three:
        a, b, _, _ = moved(three)
        read(a, 3)
        three.kill(b)
        three.settle()
        assert texts(a) == ["first", "second"]


def test_a_link_that_waits_and_dies_itself_does_not_spin() -> None:
    """Its end is reported for ever (epoll(7)); it is not watched until it is read on."""
    with net(3) as three:
        a, _, c, _ = moved(three)
        read(a, 3)
        fd = a.bus._peers[3]._fd
        three.kill(c)
        read(a, 3)
        assert fd not in [ready for ready, _ in a.watcher.ready()]
        assert 3 in a.bus._peers
        three.settle()
        assert texts(a) == ["first", "second"]
        assert 3 not in a.bus._peers


def test_a_link_waits_for_two_seconds_at_most() -> None:
    """Then it goes on with a warning."""
    with net(3) as three:
        a, b, _, _ = moved(three)
        del three.nodes[b.serial]  # it does nothing any more
        a.bus._peers[2]._packets = []
        a.watcher.leave(a.bus._peers[2]._fd)
        three.settle()
        assert not a.got
        three.beat(1.9)
        assert not a.got
        three.beat(0.2)
        assert texts(a) == ["second"]
        assert a.log.count("bus_order_given_up") == 1
        b.close()


def test_the_new_node_holds_its_own_messages_back_until_it_has_seen_the_old_ones() -> None:
    """Its older subscribers get both in order, too; what is held is numbered and bounded."""
    with net(3) as three:
        c, record = leaves(three, three.nodes[3])
        c.resume(record, 2)
        message = c.bus.publish("t", text=True, data=b"second")
        assert message.number == 1
        assert not c.got
        assert c.bus.queued >= len(b"second")
        three.settle()
        assert texts(c) == ["first", "second"]
        assert c.bus.queued == 0


def test_what_is_held_back_is_let_out_in_the_end() -> None:
    """A node that ends waits for nobody's order: what it holds back goes, or is known not to."""
    with net(3) as three:
        b = three.nodes[2]
        c, record = leaves(three, b)
        c.resume(record, b.serial)
        c.bus.publish("t", text=True, data=b"second")
        assert c.bus._held
        assert c.bus.unsent == 0
        c.bus.let_out()
        assert not c.bus._held
        three.kill(c)
        three.settle()
        assert texts(b) == ["first", "second"]


def test_a_flood_that_is_held_back_is_let_go() -> None:
    """No more than a queue's worth waits for another node."""
    with net(2, queue_bytes=10_000) as two:
        b, c = two.nodes.values()
        conn = Conn(1)
        b.conns[conn] = None
        say(b, "first")
        c.resume(b.suspend(conn), b.serial)
        for _ in range(101):
            c.bus.publish("u", text=True, data=b"x" * 100)
        assert len(c.got) == 101
        assert c.log.count("bus_order_given_up") == 1
