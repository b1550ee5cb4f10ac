"""What the scoreboard says of topics: a worker's counters and gauges, and the bridge's cells."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from wssup.scoreboard import BridgeFault, BridgeState, Scoreboard, TopicCounts
from wssup.scoreboard.layout import BRIDGE, BRIDGE_CELLS, POOL, RETIRED


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Scoreboard]:
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, rows=3, slots=2)
    yield board
    board.close()
    board.unlink()


#: Each argument of RowWriter.topics with a number of its own, in the order of TopicCounts.
_ALL = {
    "published": 1,
    "delivered": 2,
    "sent": 3,
    "sent_bytes": 4,
    "received": 5,
    "lost": 6,
    "missed": 7,
    "dropped": 8,
    "recovered": 9,
    "not_recovered": 10,
}


def test_each_number_lands_under_its_name(board: Scoreboard) -> None:
    """What a call says is added to the counters and set in the gauges."""
    row = board.allocate(1, 0, 1)
    writer = board.writer(row)
    writer.topics(subscriptions=30, topics=20, queue_bytes=10, **_ALL)
    writer.topics(subscriptions=29, topics=21, queue_bytes=0, **_ALL)
    view = board.read(row)
    assert view is not None
    assert not view.stale
    assert (view.subscriptions, view.topics, view.bus_queue_bytes) == (29, 21, 0)
    assert view.counts.topics == TopicCounts(*(2 * n for n in _ALL.values()))
    assert view.counts.topics.bus_bytes == 8
    assert view.counts.topics.not_recovered == 20


def test_no_news_is_no_transaction(board: Scoreboard) -> None:
    """A call that changes nothing writes nothing: most turns of a worker have no topics."""
    writer = board.writer(board.allocate(1, 0, 1))
    writer.topics(subscriptions=1, topics=1, queue_bytes=0)
    before = writer._block.tolist()
    writer.topics(subscriptions=1, topics=1, queue_bytes=0)
    assert writer._block.tolist() == before


def test_totals_keep_what_is_counted_and_drop_what_is_there(board: Scoreboard) -> None:
    """A worker's counters go into the totals when it is gone, its subscriptions go with it; the
    next worker of the row begins with none.
    """
    row = board.allocate(1, 0, 1)
    board.writer(row).topics(subscriptions=3, topics=2, queue_bytes=1, published=5)
    board.fold(row)
    assert board.snapshot().total.topics.published == 5
    assert board.allocate(2, 0, 1) == row
    board.writer(row).topics(subscriptions=1, topics=1, queue_bytes=0, published=2)
    snapshot = board.snapshot()
    assert snapshot.total.topics.published == 7
    assert [view.subscriptions for view in snapshot.rows] == [1]


def test_no_bridge(board: Scoreboard) -> None:
    """Until there is a bridge its cells say so."""
    assert board.bridge() is None


def test_what_a_bridge_says(board: Scoreboard) -> None:
    """Each number is found under its name, and the state is that of the last word."""
    writer = board.bridge_writer()
    writer.begin(7)
    view = board.bridge()
    assert view is not None
    assert (view.serial, view.state, view.fault) == (7, BridgeState.CONNECTING, BridgeFault.NONE)
    assert (view.heartbeat_ns, view.since_ns, view.connects, view.reconnects) == (0, 0, 0, 0)
    writer.heartbeat(100)
    writer.disconnected(BridgeFault.REFUSED)
    view = board.bridge()
    assert view is not None
    assert (view.state, view.fault) == (BridgeState.CONNECTING, BridgeFault.REFUSED)
    writer.connected(200)
    writer.server(sent=1, received=2, lost=3, missed=4)
    writer.server(sent=1)
    writer.bus(sent=5, received=6, lost=7, missed=8)
    writer.queue(9)
    view = board.bridge()
    assert view is not None
    assert (view.state, view.fault) == (BridgeState.CONNECTED, BridgeFault.NONE)
    assert (view.heartbeat_ns, view.since_ns, view.connects, view.reconnects) == (100, 200, 1, 0)
    assert (view.sent, view.received, view.lost, view.missed, view.queue_bytes) == (2, 2, 3, 4, 9)
    assert (view.bus_sent, view.bus_received, view.bus_lost, view.bus_missed) == (5, 6, 7, 8)
    writer.disconnected(BridgeFault.LOST)
    writer.connected(300)
    writer.stopped()
    view = board.bridge()
    assert view is not None
    assert (view.state, view.since_ns, view.reconnects) == (BridgeState.STOPPED, 0, 1)


def test_another_bridge_counts_on(board: Scoreboard) -> None:
    """A bridge that takes a dead one's place begins without its state, and with its counts."""
    dead = board.bridge_writer()
    dead.begin(3)
    dead.heartbeat(1)
    dead.connected(2)
    dead.server(sent=10)
    dead.queue(5)
    writer = Scoreboard.attach(board.name).bridge_writer()
    writer.begin(4)
    writer.connected(20)
    writer.server(sent=1)
    view = board.bridge()
    assert view is not None
    assert (view.serial, view.heartbeat_ns, view.queue_bytes) == (4, 0, 0)
    assert (view.sent, view.connects, view.reconnects) == (11, 2, 1)


def test_the_bridge_touches_nobody_elses_cells(board: Scoreboard) -> None:
    """All that it writes is within its own cache lines."""
    before = board._cells.tolist()
    writer = board.bridge_writer()
    writer.begin(1)
    writer.heartbeat(2)
    writer.connected(3)
    writer.server(sent=4, received=5, lost=6, missed=7)
    writer.bus(sent=8, received=9, lost=10, missed=11)
    writer.queue(12)
    writer.disconnected(BridgeFault.OTHER)
    after = board._cells.tolist()
    changed = {cell for cell, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    assert changed <= set(range(BRIDGE, BRIDGE + BRIDGE_CELLS))
    assert BRIDGE + BRIDGE_CELLS <= RETIRED < POOL
