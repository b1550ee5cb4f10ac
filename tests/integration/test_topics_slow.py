"""Who is slow, client or worker, loses messages, which are counted; everybody else is on time."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.oracle_sockets import counts
from tests.harness.raw import Raw
from tests.harness.topics_apps import EVENT
from tests.harness.topics_run import Talk, by_slot, numbers, on_time, resident, rows

Start = Callable[..., Instance]
Heard = list[tuple[float, bytes]]

#: Messages, and their size: together more than the kernel keeps for a client that reads nothing
#: (net.ipv4.tcp_wmem and tcp_rmem), one second's worth of them far less.
_COUNT, _SIZE = 3000, 4000
_MIB = 1 << 20
#: RFC 6455 section 7.4.1: try again later.
_TRY_AGAIN = 1013


@contextmanager
def _deaf(instance: Instance, topic: str) -> Iterator[Talk]:
    """A subscriber that reads nothing but the answer to its subscription."""
    with Raw(instance.address()) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        talk = Talk(raw.open())
        talk.subscribe(topic)
        yield talk


def _flooded(
    talks: dict[int, Talk], known: int, size: int = _SIZE
) -> list[list[tuple[float, bytes]]]:
    """Everybody subscribes to the flood and to the clocks, the first one floods, and what all heard
    of it.

    :param known: subscribers that the flood has then.
    """
    for talk in talks.values():
        talk.subscribe("red")
    processes.until(
        lambda: all(int(talk.ask("count red")) == known for talk in talks.values()), 10, "all"
    )
    for talk in talks.values():
        talk.subscribe("ticks")
    publisher = talks[min(talks)]
    publisher.raw.say(f"flood red {_COUNT} {size}")
    last = b"%d x" % _COUNT
    with ThreadPoolExecutor(len(talks)) as threads:
        heard = list(threads.map(lambda talk: talk.hear_until(last), talks.values()))
    assert publisher.answer("flood") == str(_COUNT)
    return heard


def test_a_slow_subscriber(start: Start) -> None:
    """A client that reads nothing keeps no more than its outbound queue in the worker; what does
    not fit is dropped and counted, message by message. Others hear everything and are on time. When
    it reads again it has all that was not dropped, in order, and goes on.
    """
    # What it is sent waits for it until the flood is over, however long that takes.
    limits = {"outbound_bytes": "1MiB", "send_timeout": 300}
    instance = start(EVENT, limits=limits, heartbeat={"ping_interval": 0})
    instance.running()
    with by_slot(instance, 2) as talks, _deaf(instance, "red") as deaf:
        for heard in _flooded(talks, known=3):
            assert numbers(heard) == list(range(1, _COUNT + 1))
            on_time(heard, 5)
        assert max(row.send_queue_bytes for row in rows(instance)) < _MIB + 2 * _SIZE
        processes.until(lambda: counts(instance).topics.dropped > 0, 60, "the loss to be counted")
        for talk in talks.values():
            # What its turn with the last message has counted is written down by now.
            talk.ask("topics")
            talk.ask("topics")
        dropped = counts(instance).topics.dropped
        found = [int(deaf.hear().split()[0]) for _ in range(_COUNT - dropped)]
        assert found == sorted(set(found))
        deaf.ask("pub red text more")
        assert deaf.hear().endswith(b" more")
        assert counts(instance).topics.dropped == dropped


def test_a_slow_subscriber_is_closed(start: Start) -> None:
    """With slow_client = "close" such a client is closed with 1013, and others are on time."""
    # It reads its close frame only when the flood is over.
    limits = {"outbound_bytes": "1MiB", "slow_client": "close", "close_timeout": 60}
    instance = start(EVENT, limits=limits)
    instance.running()
    with by_slot(instance, 2) as talks, _deaf(instance, "red") as deaf:
        for heard in _flooded(talks, known=3):
            assert numbers(heard) == list(range(1, _COUNT + 1))
            on_time(heard, 5)
        ending = deaf.raw.ending()
        assert ending.code == _TRY_AGAIN
        found = [int(text.split()[0]) for text in ending.texts]
        assert found == list(range(1, len(found) + 1))
        processes.until(
            lambda: all(int(talk.ask("count red")) == 2 for talk in talks.values()),
            20,
            "it to be gone",
        )
    assert counts(instance).closed_by_reason["slow_client"] == 1


def test_a_slow_worker(start: Start) -> None:
    """While a worker is stopped, others hear everything and are on time, and what waits for it
    stays within topics.queue_bytes: the oldest messages are dropped, and counted. It goes on with
    those that are left, in order, and knows how many are missing.
    """
    instance = start(
        EVENT, workers=4, topics={"queue_bytes": "3MiB"}, stall_after=60, hang_after=300
    )
    instance.running()
    workers = instance.workers()
    with by_slot(instance, 4) as talks:
        stopped = talks[3]
        stopped.subscribe("red")
        awake = {slot: talk for slot, talk in talks.items() if slot != 3}
        processes.until(
            lambda: all(int(talk.ask("count red")) == 1 for talk in awake.values()), 10, "it"
        )
        before = resident(workers[0])
        os.kill(workers[3], signal.SIGSTOP)
        try:
            for heard in _flooded(awake, known=4, size=2000):
                assert numbers(heard) == list(range(1, _COUNT + 1))
                on_time(heard, 5)
            grown = resident(workers[0]) - before
            publisher = next(row for row in rows(instance) if row.slot == 0)
            # What is about to be sent is no longer in the queue, and is not dropped.
            assert publisher.bus_queue_bytes < (3 * 1024 + 64 + 16) << 10
            assert grown < 8 * _MIB
            _, _, complete = json.loads(talks[0].ask("there red"))
            assert complete is False
        finally:
            os.kill(workers[3], signal.SIGCONT)
        found = numbers(stopped.hear_until(b"%d x" % _COUNT))
        assert found == sorted(set(found))
        lost = _COUNT - len(found)
        assert lost > 0

        def counted() -> bool:
            at = {row.slot: row.counts.topics for row in rows(instance)}
            return at[0].bus_lost == at[3].bus_missed == lost

        processes.until(counted, 10, f"{lost} losses to be counted")
        talks[0].ask("pub red text more")
        assert stopped.hear().endswith(b" more")
        assert [e["event"] for e in instance.entries() if e["level"] == "warning"]

        def found_by_all() -> bool:
            count, _, complete = json.loads(talks[0].ask("there red"))
            return (count, complete) == (4, True)

        # Workers that do not answer in time are left out of an answer.
        processes.until(found_by_all, 20, "all four")
