"""Floods of topics meet limits with clear errors, and cost bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness.instance import Instance
from tests.harness.raw import raw_clients
from tests.harness.topics_apps import EVENT
from tests.harness.topics_run import Talk, by_slot, on_time, resident, rows

Start = Callable[..., Instance]

#: How often a worker subscribes and unsubscribes; a million times in `make soak`.
_CHURN = int(os.environ.get("WSSUP_CHURN", "100000"))
_MIB = 1 << 20


def test_a_client_without_end(start: Start) -> None:
    """A client that subscribes to one name after the other is told at topics.per_connection, and
    remains; when it leaves one it may have another, and publishing goes on all the time.
    """
    instance = start(EVENT, workers=1, topics={"per_connection": 20})
    instance.running()
    with by_slot(instance, 1) as talks:
        talk = talks[0]
        answers = [talk.ask(f"sub name{number}") for number in range(200)]
        assert all(json.loads(answer)["recovered"] for answer in answers[:20])
        assert len(set(answers[20:])) == 1
        assert answers[20].startswith("error SubscriptionLimitError: ")
        assert "topics.per_connection" in answers[20]
        assert talk.ask("topics") == "20"
        assert "error" not in talk.ask("sub name0")
        assert "error" not in talk.ask("unsub name7")
        assert "error" not in talk.ask("sub other")
        talk.ask("pub other text hello")
        assert talk.hear().endswith(b" hello")
        assert talk.ask("topics") == "20"


def test_clients_without_end(start: Start) -> None:
    """Many clients together are told at topics.per_worker; a topic that others have is no new one;
    when they leave, others may come.
    """
    instance = start(EVENT, workers=1, topics={"per_worker": 50})
    instance.running()
    address = instance.address()
    with raw_clients(address, 1) as (one,):
        talk = Talk(one)
        with raw_clients(address, 10) as many:
            for number, raw in enumerate(many[:5]):
                for name in range(10):
                    assert "error" not in Talk(raw).ask(f"sub {number}.{name}")
            answer = Talk(many[5]).ask("sub new")
            assert answer.startswith("error SubscriptionLimitError: ")
            assert "topics.per_worker" in answer
            assert "error" not in talk.ask("sub 0.0")
            for raw in many:
                raw.close()
        assert "error" not in talk.ask("sub new")
        assert "error" not in Talk(one).ask("sub newer")


@pytest.mark.parametrize("topic", ["", "\N{SNOWMAN}" * 86, "a\x07", "x" * 256])
def test_names_that_are_none(start: Start, topic: str) -> None:
    """A name that is empty, too long, or has control characters is told to whoever uses it, which
    harms nobody.
    """
    instance = start(EVENT, workers=1)
    instance.running()
    with by_slot(instance, 1) as talks:
        for command in (f"sub {topic}", f"pub {topic} text hello"):
            assert talks[0].ask(command).startswith("error ValueError: ")
        assert "error" not in talks[0].ask(f"sub {'x' * 255}")


@pytest.mark.timeout(60 + _CHURN // 2000)
@pytest.mark.parametrize("names", [100, _CHURN], ids=["few", "all-different"])
def test_coming_and_going(start: Start, names: int) -> None:
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
        talks[0].ask("churn warm 100000 100000")
        before = {slot: resident(pid) for slot, pid in workers.items()}
        talks[1].messages.clear()
        talks[0].raw.say(f"churn name {_CHURN} {names}")
        with ThreadPoolExecutor(1) as threads:
            done = threads.submit(talks[0].answer, "churn")
            heard = []
            while not done.done():
                heard += talks[1].hear_until(b"")
                queued = max(row.bus_queue_bytes for row in rows(instance))
                assert queued < _MIB, f"{queued} bytes wait in a link"
        assert done.result() == str(_CHURN)
        on_time(heard, 2)
        for slot, pid in workers.items():
            grown = resident(pid) - before[slot]
            assert grown < 12 * _MIB, f"worker {slot} has grown by {grown} bytes"
        assert talks[1].ask("count name0") == "0"
        assert json.loads(talks[1].ask("there name1")) == [0, [], True]
        found = {row.slot: row for row in rows(instance)}
        assert (found[0].subscriptions, found[0].topics) == (0, 0)
