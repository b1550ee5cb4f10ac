"""Floods of topics meet limits with clear errors, and cost bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.raw import raw_clients
from tests.harness.topics_apps import EVENT
from tests.harness.topics_run import Talk, by_slot, on_time, resident, rows

Start = Callable[..., Instance]

#: How often a worker subscribes and unsubscribes; a million times in `make soak`.
_CHURN = int(os.environ.get("WSSUP_CHURN", "40000"))
_MIB = 1 << 20


def test_names_without_end(start: Start) -> None:
    """A client that subscribes to one name after the other is told at topics.per_connection, many
    clients together at topics.per_worker; both remain, publish, and may have another name for one
    that they leave. A name that is none is told to whoever uses it, and harms nobody.
    """
    instance = start(EVENT, workers=1, topics={"per_connection": 20, "per_worker": 50})
    instance.running()
    with by_slot(instance, 1) as talks:
        talk = talks[0]
        answers = [talk.ask(f"sub name{number}") for number in range(200)]
        assert all(json.loads(answer)["recovered"] for answer in answers[:20])
        assert len(set(answers[20:])) == 1
        assert answers[20].startswith("error SubscriptionLimitError: ")
        assert "topics.per_connection" in answers[20]
        assert "error" not in talk.ask("sub name0")
        assert "error" not in talk.ask("unsub name7")
        assert "error" not in talk.ask("sub other")
        assert talk.ask("topics") == "20"
        talk.ask("pub other text hello")
        assert talk.hear().endswith(b" hello")
        with raw_clients(instance.address(), 3) as raws:
            some, more, last = map(Talk, raws)
            for number in range(20):
                assert "error" not in some.ask(f"sub some{number}")
            for number in range(10):
                assert "error" not in more.ask(f"sub more{number}")
            answer = more.ask("sub more10")
            assert answer.startswith("error SubscriptionLimitError: ")
            assert "topics.per_worker" in answer
            # One that others have is no new one.
            assert "error" not in last.ask("sub some0")
            for name in ("", "\N{SNOWMAN}" * 86, "a\x07", "x" * 256):
                for command in (f"sub {name}", f"pub {name} text hello"):
                    assert last.ask(command).startswith("error ValueError: ")
            some.raw.close()
            assert "error" not in last.ask(f"sub {'x' * 255}")


@pytest.mark.timeout(150 + _CHURN // 1000)
def test_coming_and_going(start: Start) -> None:
    """A worker that subscribes and unsubscribes without a pause, to a few names or to ever new
    ones, grows no more than it does in a second of that, and so do the others; these are on time
    meanwhile, and know in the end that nobody is subscribed.
    """
    instance = start(EVENT)
    instance.running()
    workers = instance.workers()
    with by_slot(instance, 2) as talks:
        talks[1].subscribe("ticks")
        # What is remembered for a second, and then no more.
        talks[0].ask(f"churn warm {min(_CHURN, 100_000)} {_CHURN}")
        before = {slot: resident(pid) for slot, pid in workers.items()}
        talks[1].messages.clear()
        heard: list[tuple[float, bytes]] = []
        for names in (100, _CHURN):
            heard += _churned(instance, talks, names)
        on_time(heard, 4)
        for slot, pid in workers.items():
            grown = resident(pid) - before[slot]
            assert grown < 12 * _MIB, f"worker {slot} has grown by {grown} bytes"
        assert talks[1].ask("count name0") == "0"
        # Workers that do not answer in time are left out of an answer.
        processes.until(
            lambda: json.loads(talks[1].ask("there name1")) == [0, [], True], 20, "nobody there"
        )
        found = {row.slot: row for row in rows(instance)}
        assert (found[0].subscriptions, found[0].topics) == (0, 0)


def _churned(instance: Instance, talks: dict[int, Talk], names: int) -> list[tuple[float, bytes]]:
    """Come and go, with so many names; what is heard in the other worker meanwhile."""
    talks[0].raw.say(f"churn name {_CHURN} {names}")
    heard: list[tuple[float, bytes]] = []
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(talks[0].answer, "churn")
        while not done.done():
            heard += talks[1].hear_until(b"")
            queued = max(row.bus_queue_bytes for row in rows(instance))
            assert queued < _MIB, f"{queued} bytes wait in a link"
    assert done.result() == str(_CHURN)
    return heard
