"""What must not be lost or doubled when connections move between nodes: the races one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.topics_net import Conn, Net, begin, connect, net


@pytest.fixture
def three() -> Iterator[Net]:
    """A publishes, a connection moves from B to C."""
    with net(3) as found:
        yield found


def numbers(conn: Conn) -> list[tuple[int, int]]:
    return [(message.carrier, message.number) for message, _ in conn.got]


def test_what_is_published_while_a_connection_is_on_its_way_comes_once(three: Net) -> None:
    """Before its record is made, on its way, and after it has come, from each of the nodes."""
    a, b, c = three.nodes.values()
    conn = connect(b, 1, "t")
    three.settle()
    session, _ = begin(three, b, c)
    three.settle()
    everybody = (a, b, c)
    speakers = [connect(node, 10 + node.serial) for node in everybody]
    for node, speaker in zip(everybody, speakers, strict=True):
        node.publish(speaker, "t")
    b.watcher.turn()
    record = b.suspend(conn)
    for node, speaker in zip(everybody, speakers, strict=True):
        node.publish(speaker, "t")
    c.watcher.turn()
    c.resume(record, b.serial)
    for node, speaker in zip(everybody, speakers, strict=True):
        node.publish(speaker, "t")
    three.settle()
    b.bus.handed_to(c.serial, session)
    c.bus.taken_from(b.serial, session)
    three.settle()
    found = sorted(numbers(conn))
    assert len(found) == len(set(found)) == 9
    assert {carrier for carrier, _ in found} == {1, 2, 3}


def test_what_was_ahead_at_its_old_node_is_not_given_again(three: Net) -> None:
    """B had processed what C has yet to read: C leaves it out for this connection only."""
    a, b, c = three.nodes.values()
    conn, other = connect(b, 1, "t"), connect(c, 2, "t")
    three.settle()
    session, _ = begin(three, b, c)
    three.settle()
    a.publish(connect(a, 3), "t")
    a.watcher.chores()
    while b.watcher.turn():
        pass
    assert numbers(conn) == [(1, 1)]
    c.resume(b.suspend(conn), b.serial)
    assert conn.floor == {1: 1}
    three.settle()
    assert numbers(conn) == [(1, 1)]
    assert numbers(other) == [(1, 1)]
    assert session == 1


def test_more_comes_meanwhile_than_is_kept() -> None:
    """The oldest are lost to a connection that moves, and that is said, once for all that move; not
    to one whose topics fit.
    """
    with net(3, history_bytes=20_000) as found:
        a, b, c = found.nodes.values()
        conns = [connect(b, n, "t") for n in (1, 2)]
        other = connect(b, 3, "u")
        speaker = connect(a, 4)
        found.settle()
        begin(found, b, c)
        found.settle()
        records = [b.suspend(conn) for conn in (other, *conns)]
        for _ in range(100):
            a.publish(speaker, "t")
        a.publish(speaker, "u")
        found.settle()
        c.resume(records[0], b.serial)
        assert numbers(other) == [(1, 101)]
        assert not c.log.count("bus_history_short")
        for record in records[1:]:
            c.resume(record, b.serial)
        for conn in conns:
            assert 0 < len(numbers(conn)) < 100
            assert numbers(conn)[-1] == (1, 100)
        assert c.log.count("bus_history_short") == 1
        assert not b.log.count("bus_history_short")


def test_what_is_old_is_missed_by_nobody(three: Net) -> None:
    """What is forgotten by age, of a node that has died long ago, or from before somebody
    subscribed, is nothing that anybody misses.
    """
    a, b, c = three.nodes.values()
    conn, speaker = connect(b, 1, "t"), connect(a, 2)
    connect(c, 3, "t", "u")
    three.settle()
    begin(three, b, c)
    three.settle()
    a.publish(speaker, "t")
    a.publish(speaker, "u")
    three.settle()
    three.beat(61)
    assert not c.history.covers({}, ["t"], {})
    assert c.bus.since({}, ["u"], {"u": three.clock.now - 1}) == []
    assert not c.log.count("bus_history_short")
    three.kill(a)
    three.settle()
    three.beat(61)
    assert a.serial not in b.bus.position()
    c.resume(b.suspend(conn), b.serial)
    assert not c.log.count("bus_history_short")


def test_it_comes_back_and_has_missed_nothing(three: Net) -> None:
    """The sender stays interested while a connection is on its way, and has kept what came."""
    a, b, c = three.nodes.values()
    conn = connect(b, 1, "t")
    three.settle()
    session, _ = begin(three, b, c)
    three.settle()
    record = b.suspend(conn)
    three.beat(1.5)  # nobody at B is subscribed any more, for longer than interest lingers
    three.beat(1.5)
    a.publish(connect(a, 2), "t")
    three.settle()
    assert not numbers(conn)
    b.resume(record, b.serial)
    b.bus.handed_to(c.serial, session)
    a.publish(connect(a, 3), "t")
    three.settle()
    assert numbers(conn) == [(1, 1), (1, 2)]


def test_interest_that_the_sender_drops_first_is_kept_for_the_receiver(three: Net) -> None:
    """B wants the topic no more, and A has not read yet that C wants it: C gets it all the same."""
    a, b, c = three.nodes.values()
    conn = connect(b, 1, "t")
    three.settle()
    session, _ = begin(three, b, c)
    three.settle()
    c.resume(b.suspend(conn), b.serial)  # what C says of it is not sent yet
    b.bus.handed_to(c.serial, session)
    three.clock.now += 1.5
    b.bus.beat(three.clock.now)
    for _ in range(10):
        b.watcher.turn()
        a.watcher.turn()
    assert not a.bus._book.says(b.serial, "t")
    assert not a.bus._book.says(c.serial, "t")
    a.publish(connect(a, 2), "t")
    three.settle()
    assert numbers(conn) == [(1, 1)]
    c.bus.taken_from(b.serial, session)
    a.publish(connect(a, 3), "t")
    three.settle()
    a.publish(connect(a, 4), "t")
    three.settle()
    assert numbers(conn) == [(1, 1), (1, 2), (1, 3)]


def test_the_sender_dies_and_its_wishes_live_on(three: Net) -> None:
    """B dies after its last connection has gone; A has not heard of C's own interest yet."""
    a, b, c = three.nodes.values()
    conn = connect(b, 1, "t")
    three.settle()
    session, _ = begin(three, b, c)
    three.settle()
    c.resume(b.suspend(conn), b.serial)
    three.kill(b)
    for _ in range(10):
        a.watcher.turn()
    assert 2 not in a.bus._peers
    a.publish(connect(a, 2), "t")
    three.settle()
    assert numbers(conn) == [(1, 1)]
    c.bus.taken_from(b.serial, session)
    three.beat()
    assert not a.bus._book._ghosts


def test_a_connection_goes_through_a_node_that_dies() -> None:
    """B to C to D at once, C dies, and A has heard neither of C's interest nor of D's."""
    with net(4) as four:
        a, b, c, d = four.nodes.values()
        conn = connect(b, 1, "t")
        four.settle()
        begin(four, b, c)
        begin(four, c, d)
        four.settle()
        c.resume(b.suspend(conn), b.serial)
        d.resume(c.suspend(conn), c.serial)
        four.kill(c)
        for _ in range(10):
            a.watcher.turn()
        a.publish(connect(a, 2), "t")
        four.settle()
        assert numbers(conn) == [(1, 1)]


def test_a_connection_moves_there_and_back_before_the_first_node_has_caught_up(three: Net) -> None:
    """C to B, which is behind, and back to C: the floor goes with it, so nothing is doubled."""
    a, b, c = three.nodes.values()
    conn = connect(c, 1, "t")
    connect(b, 2, "t")
    three.settle()
    begin(three, c, b)
    begin(three, b, c)
    three.settle()
    a.publish(connect(a, 3), "t")
    a.watcher.chores()
    while c.watcher.turn():
        pass
    b.resume(c.suspend(conn), c.serial)
    assert conn.floor == {1: 1}
    c.resume(b.suspend(conn), b.serial)
    three.settle()
    assert numbers(conn) == [(1, 1)]


def test_a_node_that_is_linked_while_connections_move(three: Net) -> None:
    """It mirrors from its first message on, and fences, before it knows what anybody wants."""
    _, b, c = three.nodes.values()
    conn = connect(b, 1, "t")
    three.settle()
    session = three.session()
    c.bus.take_from(b.serial, session)
    three.settle()
    new = three.add()
    ready: list[list[int]] = []
    b.bus.hand_to(c.serial, session, ready.append)
    new.publish(connect(new, 2), "t")
    for _ in range(20):
        b.watcher.turn()
        c.watcher.turn()
    assert not ready, "the new node has not fenced"
    three.settle()
    assert ready
    record = b.suspend(conn)
    new.publish(connect(new, 3), "t")
    three.settle()
    c.resume(record, b.serial)
    three.settle()
    assert numbers(conn) == [(4, 1), (4, 2)]


def test_two_senders_to_one_receiver_and_one_sender_to_two() -> None:
    """Sessions do not disturb each other; the end of one leaves the others' mirrors."""
    with net(4) as four:
        a, b, c, d = four.nodes.values()
        conns = [connect(b, 1, "t"), connect(b, 2, "u"), connect(c, 3, "v")]
        four.settle()
        sessions = {(x, y): begin(four, x, y) for x, y in ((b, d), (c, d), (b, c))}
        four.settle()
        assert all(ready for _, ready in sessions.values())
        d.resume(b.suspend(conns[0]), b.serial)
        c.resume(b.suspend(conns[1]), b.serial)
        d.resume(c.suspend(conns[2]), c.serial)
        b.bus.handed_to(d.serial, sessions[b, d][0])
        d.bus.taken_from(b.serial, sessions[b, d][0])
        for topic in "tuv":
            a.publish(connect(a, 10), topic)
        four.settle()
        assert [numbers(conn) for conn in conns] == [[(1, 1)], [(1, 2)], [(1, 3)]]
        assert set(a.bus._sessions) == {sessions[c, d][0], sessions[b, c][0]}


def test_what_a_dead_node_published_ends_where_it_ended_at_the_old_node(three: Net) -> None:
    """A dies, and a later piece of what it published came to C only: no gap, but an end."""
    a, b, c = three.nodes.values()
    conn = connect(b, 1, "t")
    three.settle()
    speaker = connect(a, 2)
    a.publish(speaker, "t")
    three.settle()
    begin(three, b, c)
    three.settle()
    a.publish(speaker, "t")
    a.publish(speaker, "t")
    # The second one dies with A's queue to B; the third one, to C, was sent.
    to_b, to_c = a.bus._peers[2], a.bus._peers[3]
    to_b.messages.clear()
    to_b.size = 0
    to_c.messages.popleft()
    a.watcher.chores()
    three.kill(a)
    three.settle()
    c.resume(b.suspend(conn), b.serial)
    three.settle()
    assert numbers(conn) == [(1, 1)]


def test_sessions_leave_nothing_behind(three: Net) -> None:
    """After a thousand sessions, some with fences that come late, all books are as at first."""
    for turn in range(300):
        a, b, c = three.nodes.values()
        session, _ = begin(three, b, c)
        if turn % 3:
            three.settle()
        b.bus.handed_to(c.serial, session)
        c.bus.taken_from(b.serial, session)
        if turn % 3 == 2:
            a.watcher.turn()
    three.settle()
    for node in three.nodes.values():
        assert not node.bus._sessions
        assert not node.bus._news.mirrors
        assert not node.bus._fences._read
        assert not node.bus._news.holding
        assert node.history._keepers == 0


def test_a_position_is_what_was_processed_and_a_floor_what_is_to_come(three: Net) -> None:
    """By node; a node's own messages too. Negative numbers are nobody's."""
    a, b, _ = three.nodes.values()
    connect(b, 1, "t")
    three.settle()
    a.publish(connect(a, 2), "t")
    a.publish(connect(a, 3), "t")
    assert a.bus.position() == {0: 1, 1: 2, 2: 0, 3: 0}
    assert b.bus.floor(a.bus.position()) == {1: 2}
    assert b.bus.floor({1: 0, -1: 7}) == {}
    three.settle()
    assert b.bus.position()[1] == 2
    assert b.bus.floor(a.bus.position()) == {}
