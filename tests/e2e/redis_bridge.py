"""Two bridges and a real Redis server. `make e2e` installs Debian's redis-server.

The test is each bridge's master and the one worker beside it, so it sees all that a worker would.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.bridging import Instance, until
from tests.harness.redis_server import RedisServer, redis_server
from wssup.scoreboard import BridgeFault, BridgeState
from wssup.topics.message import Message

A, B = "aaaaaaaa", "bbbbbbbb"
#: Seconds in which a silent server is given up: a second until it is looked at, five for its
#: answer, and one more.
SILENCE = 7.0

Start = Callable[..., Instance]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server."""
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start bridges; what they logged is shown if the test fails."""
    started: list[Instance] = []

    def starting(name: str, port: int, url: str = "", **topics: object) -> Instance:
        started.append(Instance(tmp_path, name, bus=url or f"redis://127.0.0.1:{port}", **topics))
        return started[-1]

    yield starting
    for instance in started:
        instance.end()
        print(instance.log.read_text()[-20_000:])  # noqa: T201


def connected(instance: Instance) -> bool:
    return instance.view().state is BridgeState.CONNECTED


def subscribe(*instances: Instance, redis: RedisServer, topic: str = "t") -> None:
    """Have workers subscribe, and wait until the server knows of it."""
    for instance in instances:
        instance.worker.bus.subscribed(topic, 1)
    until(
        *instances,
        fact=lambda: redis.ask("pubsub", "numsub", f"wssup:{topic}")[1] == str(len(instances)),
    )


def patterns(redis: RedisServer) -> int:
    """How many connections are subscribed to a pattern."""
    return sum(" psub=1 " in line for line in redis.ask("client", "list"))


def numbers(instance: Instance, topic: str = "t") -> list[int]:
    return [int(data) for data in instance.worker.data(topic)]


def test_ten_thousand_messages_in_order(redis: RedisServer, start: Start) -> None:
    """Two instances publish 10 000 messages each to one topic at the same time: each gets the
    other's whole and in order, with their first source, its own not again; and a bridge needs less
    than 100 µs of a core for a message.
    """
    a, b = start(A, redis.port), start(B, redis.port)
    subscribe(a, b, redis=redis)
    used = [processor_seconds(x.process.pid) for x in (a, b)]
    for number in range(10_000):
        for instance in (a, b):
            instance.worker.publish("t", b"%d" % number)
        if number % 100 == 0:
            a.turn(0)
            b.turn(0)
    until(a, b, fact=lambda: min(len(x.worker.data()) for x in (a, b)) >= 10_000, seconds=60)
    for mine, theirs in ((a, b), (b, a)):
        assert numbers(mine) == list(range(10_000))
        remote = [m for m in mine.worker.got if m.carrier != mine.worker.bus.serial]
        assert {m.source for m in remote} == {f"{theirs.name}.1"}
        assert [m.sequence for m in remote] == list(range(1, 10_001))
        until(a, b, fact=lambda mine=mine: mine.view().received >= 10_000)
        view = mine.view()
        assert (view.sent, view.received, view.lost, view.missed) == (10_000, 10_000, 0, 0)
    spent = [processor_seconds(x.process.pid) - u for x, u in zip((a, b), used, strict=True)]
    print(f"{[round(s / 20_000 * 1e6, 1) for s in spent]} µs for a message")  # noqa: T201
    assert max(spent) < 20_000 * 100e-6


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_only_what_is_wanted_comes(redis: RedisServer, start: Start) -> None:
    """Topics without subscribers are not asked for, and are left when the last one goes."""
    a, b = start(A, redis.port), start(B, redis.port)
    subscribe(b, redis=redis)
    a.worker.publish("other", b"1")
    a.worker.publish("t", b"1")
    until(a, b, fact=lambda: numbers(b) == [1])
    assert b.worker.data("other") == []
    b.worker.bus.subscribed("t", 0)
    until(
        a,
        b,
        fact=lambda: redis.ask("pubsub", "channels") == [""] or not redis.ask("pubsub", "channels"),
    )
    a.worker.publish("t", b"2")
    until(a, b, fact=lambda: a.view().sent == 3)
    assert numbers(b) == [1]


def test_a_server_killed_and_started_again(
    redis: RedisServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is gone the status says so, what is published waits, and the loss of what
    others published cannot be told from a history that has seen it all: it says so. When the
    server is back all is subscribed to again.
    """
    # Positions made so soon after a loss are on the safe side; a test cannot wait for a minute.
    monkeypatch.setattr("wssup.topics.history.SLACK", 200)
    a, b = start(A, redis.port, history=100), start(B, redis.port, history=100)
    until(a, b, fact=lambda: connected(a) and connected(b))
    until(a, b, fact=lambda: patterns(redis) == 2)
    a.worker.publish("t", b"1")
    until(a, b, fact=lambda: numbers(b) == [1])
    history = b.worker.history
    until(a, b, fact=lambda: history.since_marks("t", history.marks("t")) == ([], True))
    token = history.marks("t")
    redis.kill()
    until(a, b, fact=lambda: not connected(a) and not connected(b))
    until(a, b, fact=lambda: a.view().fault is BridgeFault.REFUSED)
    a.worker.publish("t", *[b"%d" % n for n in range(2, 100)])
    until(a, b, fact=lambda: a.view().queue_bytes > 0)
    redis.start()
    until(a, b, fact=lambda: connected(a) and connected(b))
    until(a, b, fact=lambda: patterns(redis) == 2)
    until(a, b, fact=lambda: a.view().sent >= 99 and not a.view().queue_bytes)
    a.worker.publish("t", b"100")
    until(a, b, fact=lambda: numbers(b)[-1:] == [100])
    got = numbers(b)
    assert got == sorted(set(got))
    until(a, b, fact=lambda: not history.since_marks("t", token)[1])
    assert a.view().reconnects == b.view().reconnects == 1
    assert a.view().lost == 0
    assert len(a.events("bridge_connected")) == 2
    faults = [entry["fault"] for entry in a.events("bridge_away")]
    assert 1 <= len(faults) <= 3


def test_a_server_that_says_nothing(redis: RedisServer, start: Start) -> None:
    """A stopped server (SIGSTOP), as behind a dead network: within seconds it counts as away, the
    queue for it stays bounded, what is lost is counted and said once, and the bridge lives on.
    When it answers again everything is as before.
    """
    a, b = start(A, redis.port, queue_bytes=64 << 10), start(B, redis.port)
    subscribe(b, redis=redis)
    until(a, b, fact=lambda: connected(a))
    with redis.stalled():
        began = time.monotonic()
        until(a, b, fact=lambda: a.view().fault is BridgeFault.TIMEOUT, seconds=SILENCE)
        assert time.monotonic() - began > 4
        for number in range(1000):
            a.worker.publish("t", b"%d" % number + bytes(200))
            a.turn(0)
        # The way from the worker to the bridge is bounded as well, and drops some now and then.
        until(a, b, fact=lambda: a.view().bus_received + a.view().bus_missed == 1000)
        assert a.view().lost + a.view().bus_missed > 500
        assert a.view().queue_bytes <= 64 << 10
        assert len(a.events("bridge_queue_full")) == 1
        age = time.monotonic_ns() - a.view().heartbeat_ns
        assert age < 5e9
    until(a, b, fact=lambda: connected(a) and connected(b))
    subscribe(b, redis=redis)
    lost = a.view().lost
    until(a, b, fact=lambda: not a.view().queue_bytes)
    assert a.view().lost == lost
    assert a.events("bridge_connected")[-1]["lost"] == lost
    a.worker.publish("t", b"5000")
    until(a, b, fact=lambda: b.worker.data()[-1:] == [b"5000"])
    assert b.view().missed >= 0


def asked(instance: Instance, marks: dict[str, int], *beside: Instance) -> tuple[list[int], bool]:
    """What the bridge says was missed of topic t."""
    answers: list[tuple[list[Message], bool]] = []

    def answer(messages: list[Message], complete: bool) -> None:  # noqa: FBT001 - as the bus does
        answers.append((messages, complete))

    instance.worker.bus.recover("t", marks, 10_000, answer)
    until(instance, *beside, fact=lambda: answers)
    messages, complete = answers[0]
    assert all(m.topic == "t" for m in messages)
    return [int(m.data) for m in messages], complete


def test_recovery_from_the_server_s_history(tmp_path: Path, start: Start) -> None:
    """With `bus_history` what an instance missed while it had no bridge, and what it never heard,
    is read from the server's streams: exactly that, in order, and called complete; also after the
    server was killed and came back from its file. When the server has lost its memory, it is not.
    """
    kept = {"bus_history": True, "history": 2000}
    with redis_server(tmp_path / "r", "--appendonly", "yes", "--appendfsync", "always") as redis:
        a, b = start(A, redis.port, **kept), start(B, redis.port, **kept)
        until(a, b, fact=lambda: patterns(redis) == 2)
        a.worker.publish("t", *[b"%d" % n for n in range(1, 101)])
        until(a, b, fact=lambda: len(numbers(b)) == 100)
        marks = {f"{A}.1": 100}
        assert asked(b, marks, a) == ([], True)
        b.process.kill()
        b.process.wait(10)
        a.worker.publish("other", b"0")
        a.worker.publish("t", *[b"%d" % n for n in range(101, 1501)])
        until(a, b, fact=lambda: a.view().sent == 1501)
        redis.kill()
        redis.start()
        until(a, b, fact=lambda: connected(a))
        b.start()
        until(a, b, fact=lambda: connected(b))
        assert asked(b, marks, a) == (list(range(101, 1501)), True)
        assert asked(a, marks, b) == (list(range(101, 1501)), True)
        assert asked(b, {}, a) == (list(range(1, 1501)), True)
        b.worker.publish("t", b"1501")
        assert asked(b, marks, a) == (list(range(101, 1502)), True)
        assert asked(a, {f"{A}.1": 1400, f"{B}.1": 1}, b)[1]
        a.worker.publish("t", *[b"%d" % n for n in range(1502, 6000)])
        until(a, b, fact=lambda: a.view().sent == 5999)
        found, complete = asked(b, marks, a)
        assert not complete
        assert found == list(range(6000 - len(found), 6000))
        assert len(found) == 2000
        redis.ask("flushall")
        a.worker.publish("t", b"6000")
        until(a, b, fact=lambda: a.view().sent == 6000)
        assert asked(b, {f"{A}.1": 5999}, a) == ([], False) or asked(b, {f"{A}.1": 5999}, a)[1]
        assert not asked(b, marks, a)[1]


def test_streams_are_bounded(redis: RedisServer, start: Start) -> None:
    """The server keeps about as many messages as were asked for, and forgets a topic that nobody
    publishes to.
    """
    a = start(A, redis.port, bus_history=True, history=50, history_age=100.0)
    until(a, fact=lambda: connected(a))
    a.worker.publish("t", *[b"%d" % n for n in range(5000)])
    until(a, fact=lambda: a.view().sent == 5000)
    assert 50 <= int(redis.ask("xlen", "wssup:history:t")[0]) <= 250
    # The numbers outlive the messages.
    for key, seconds in (("wssup:history:t", 100), ("wssup:marks:t", 160)):
        assert seconds - 10 <= int(redis.ask("ttl", key)[0]) <= seconds


def test_wrong_credentials(redis: RedisServer, start: Start) -> None:
    """A server that does not take the password: the log says so and what to look at, once, without
    the password, and so does the status; once it does, the bridge connects.
    """
    redis.ask("config", "set", "requirepass", "another")
    a = start(A, redis.port, f"redis://:secret%2Fword@127.0.0.1:{redis.port}")
    until(a, fact=lambda: a.view().fault is BridgeFault.AUTH)
    (entry,) = a.events("bridge_away")
    assert entry["level"] == "error"
    assert "WRONGPASS" in entry["error"] or "invalid username-password" in entry["error"]
    assert "topics.bus" in entry["hint"]
    redis.ask("-a", "another", "config", "set", "requirepass", "secret/word")
    until(a, fact=lambda: connected(a))
    text = a.log.read_text()
    assert "secret" not in text
    assert "Traceback" not in text
    assert "secret" not in processes.title(a.process.pid)


def test_rights_that_do_not_suffice(redis: RedisServer, start: Start) -> None:
    """A user that may not subscribe is told apart from one that is not known. The rights in
    docs/how-to/redis.md are enough for everything.
    """
    page = Path(__file__).parents[2] / "docs" / "how-to" / "redis.md"
    rule = re.search("ACL SETUSER app on >word (.*)", page.read_text())
    assert rule is not None
    rights = rule[1].split()
    redis.ask("acl", "setuser", "app", "on", ">word", *rights, "resetchannels")
    a = start(
        A, redis.port, f"redis://app:word@127.0.0.1:{redis.port}", bus_history=True, history=10
    )
    until(a, fact=lambda: a.view().fault is BridgeFault.AUTH)
    assert "permission" in a.events("bridge_away")[0]["error"]
    redis.ask("acl", "setuser", "app", "&wssup:*")
    until(a, fact=lambda: patterns(redis) == 1)
    a.worker.publish("t", b"1")
    until(a, fact=lambda: a.view().sent == 1)
    assert asked(a, {}) == ([1], True)
    assert not a.events("bridge_refused")


def test_what_others_say_in_our_namespace(redis: RedisServer, start: Start) -> None:
    """Garbage that somebody publishes under our names is passed over, and said once."""
    a, b = start(A, redis.port), start(B, redis.port)
    subscribe(b, redis=redis)
    for _ in range(3):
        redis.ask("publish", "wssup:t", "hello")
    a.worker.publish("t", b"1")
    until(a, b, fact=lambda: numbers(b) == [1])
    assert len(b.events("bridge_garbled")) == 1


def test_namespaces_are_apart(redis: RedisServer, start: Start) -> None:
    """Instances of two namespaces on one server, one of them the other's beginning, share nothing;
    those in one database and another do, as channels have no database.
    """
    a = start(A, redis.port, history=10)
    b = start(B, redis.port, history=10, bus_namespace="wssup2")
    until(a, b, fact=lambda: patterns(redis) == 2)
    a.worker.publish("t", b"1")
    b.worker.publish("t", b"2")
    until(a, b, fact=lambda: a.view().sent == b.view().sent == 1)
    redis.ask("ping")
    assert numbers(a) == numbers(b) == []


def test_a_bridge_that_is_killed(redis: RedisServer, start: Start) -> None:
    """A new bridge takes over with all topics, and goes on counting where the old one was."""
    a, b = start(A, redis.port), start(B, redis.port)
    subscribe(b, redis=redis)
    a.worker.publish("t", b"1")
    until(a, b, fact=lambda: numbers(b) == [1])
    until(a, b, fact=lambda: a.view().sent == 1)
    for instance in (a, b):
        instance.process.kill()
        instance.process.wait(10)
        instance.start()
    until(a, b, fact=lambda: redis.ask("pubsub", "numsub", "wssup:t")[1] == "1")
    until(a, b, fact=lambda: connected(a))
    a.worker.publish("t", b"2")
    until(a, b, fact=lambda: numbers(b) == [1, 2])
    until(a, b, fact=lambda: a.view().sent == 2)


def test_the_end(redis: RedisServer, start: Start) -> None:
    """When the master closes the channel the bridge brings out what its workers said last, and
    ends; signals alone, which a terminal sends to all, do not end it. Without a server it ends at
    once.
    """
    a, b = start(A, redis.port), start(B, redis.port)
    subscribe(b, redis=redis)
    until(a, b, fact=lambda: connected(a))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        a.process.send_signal(number)
    a.worker.publish("t", *[b"%d" % n for n in range(1000)])
    a.turn(0)
    a.turn(0)
    a.worker.bus.close()
    a.close()
    until(b, fact=lambda: len(numbers(b)) == 1000)
    assert a.process.wait(10) == 0
    assert a.view().state is BridgeState.STOPPED
    redis.kill()
    until(b, fact=lambda: not connected(b))
    b.worker.bus.close()
    began = time.monotonic()
    b.close()
    assert b.process.wait(10) == 0
    assert time.monotonic() - began < 5


def test_a_bridge_dies_with_its_master(redis: RedisServer, start: Start) -> None:
    """End of file on the channel ends a bridge that has links and a server that says nothing."""
    a = start(A, redis.port)
    until(a, fact=lambda: connected(a))
    with redis.stalled():
        a.close()
        assert a.process.wait(10) == 0
