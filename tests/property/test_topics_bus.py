"""The bus in random runs: what every connection must get, whatever happens in between.

`WSSUP_TOPICS_RUNS` says how many runs (60).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.property.topics_driver import Driver
from wssup.topics import news, publishing

RUNS = int(os.environ.get("WSSUP_TOPICS_RUNS", "60"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is not wanted any more is over at once, and two are many, before whom a message leaves
    for other nodes: that makes more of the races.
    """
    monkeypatch.setattr(news, "_LINGER", 0.05)
    monkeypatch.setattr(publishing, "MANY", 2)
    return


@pytest.mark.parametrize("begin", range(0, RUNS, 20))
def test_every_live_connection_gets_each_message_once_and_in_order(begin: int) -> None:
    """Nodes publish, connections subscribe and move under mirror and fence, nodes die, sleep and
    come, sockets are read in pieces, in any order: each live connection gets each message of its
    topics exactly once, in order by publisher, also of publishers that move. Of a node that died
    the end may be missing, and nothing before it. Afterwards nothing is left in any book.
    """
    moves = checked = 0
    for seed in range(begin, begin + 20):
        driver = Driver(seed, buffer=(0, 4608)[seed % 2])
        try:
            driver.run(1500)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            driver.close()
        moves += driver.moves
        checked += driver.checked
    assert moves > 100, "the runs prove little"
    assert checked > 1000


@pytest.mark.parametrize("begin", range(0, RUNS // 3, 10))
def test_where_queues_are_too_small_messages_are_lost_and_nothing_else(begin: int) -> None:
    """With queues of a few messages and nodes that sleep, what is lost is counted at both ends, by
    the same number where both live; what comes is in order and never doubled; and no queue holds
    more than its bound.
    """
    lost = 0
    for seed in range(begin, begin + 10):
        driver = Driver(seed, buffer=4608, queue_bytes=2500, deaths=seed % 2 == 0)
        try:
            driver.run(2000)
            lost += driver.lost()
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            driver.close()
    assert lost > 50, "the runs prove little"
