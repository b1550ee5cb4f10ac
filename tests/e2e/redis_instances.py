"""Two whole instances on one Redis server: what clients see. `make e2e` installs Debian's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.common import Start
from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.redis_server import RedisServer, redis_server

APPLICATION = """\
import json
import wssup


class App:
    async def on_receive(self, ws, data):
        what, topic, rest = data.split(" ", 2)
        if what == "sub":
            options = json.loads(rest)
            there = ws.subscribe(topic, positions=True, **options)
            await there.settled()
            ws.send_nowait("= " + json.dumps([there.position, there.recovered, there.missed]))
        else:
            wssup.publish(topic, rest)


app = App()
"""
PATIENCE = 60.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that writes everything to its file."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with redis_server(tmp_path / "redis", *options) as server:
        yield server


class Client:
    """A client that subscribes and publishes."""

    def __init__(self, instance: Instance) -> None:
        self._connect = connect(instance.url(), compression=None, max_queue=None)
        self.got: list[str] = []
        self.position = ""
        self.answers: list[list[Any]] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self.ws: ClientConnection = self._connect.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connect.__exit__(None, None, None)
        self._thread.join(10)

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            self._take()

    def _take(self) -> None:
        for line in self.ws:
            assert isinstance(line, str)
            if line.startswith("= "):
                self.answers.append(json.loads(line[2:]))
                continue
            said = json.loads(line)
            self.got.append(said["data"])
            self.position = said["position"]

    def subscribe(self, topic: str = "t", since: str | None = None) -> tuple[bool | None, int]:
        """Subscribe; whether it was sent all that it had missed, and how many these were."""
        options = {} if since is None else {"since": since}
        self.ws.send(f"sub {topic} {json.dumps(options)}")
        processes.until(lambda: self.answers, PATIENCE, "the answer to a subscription")
        position, recovered, missed = self.answers.pop()
        self.position = self.position or position
        return recovered, missed

    def publish(self, *data: object, topic: str = "t") -> None:
        for each in data:
            self.ws.send(f"pub {topic} {each}")

    def wait(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait for so many messages."""
        processes.until(
            lambda: len(self.got) >= count,
            seconds,
            f"{count} messages, of which are {self.got[-3:]}",
        )


def bridge(instance: Instance) -> dict[str, Any]:
    """What the status says of the bridge."""
    found: dict[str, Any] = instance.status()["topics"]["bridge"]
    return found


def connected(instance: Instance) -> None:
    instance.wait(
        lambda s: s["topics"]["bridge"].get("state") == "connected", "the bridge to connect"
    )


@contextmanager
def clients(*instances: Instance) -> Iterator[list[Client]]:
    """A client of each."""
    with ExitStack() as stack:
        yield [stack.enter_context(Client(instance)) for instance in instances]


def both(start: Start, redis: RedisServer, **topics: object) -> tuple[Instance, Instance]:
    """Two instances of two workers, with their bridges connected."""
    topics = {"bus": f"redis://127.0.0.1:{redis.port}"} | topics
    a = start(APPLICATION, name="a", topics=topics)
    b = start(name="b", topics=topics)
    for instance in (a, b):
        instance.running()
        connected(instance)
    return a, b


def heard(redis: RedisServer, count: int, channel: str = "wssup:t") -> None:
    """Wait until the server knows so many subscribers of a channel."""
    processes.until(
        lambda: redis.ask("pubsub", "numsub", channel)[1] == str(count), PATIENCE, "subscriptions"
    )


def test_ten_thousand_messages(start: Start, redis: RedisServer) -> None:
    """Subscribers of four workers in two instances get each of 10 000 messages, from a publisher
    in each instance, exactly once and in each publisher's order.
    """
    a, b = both(start, redis)
    with clients(a, a, a, b, b, b) as (p, *subscribers, q):
        for subscriber in subscribers:
            assert subscriber.subscribe() == (True, 0)
        heard(redis, 2)
        for number in range(5000):
            p.publish(f"p {number}")
            q.publish(f"q {number}")
        for subscriber in subscribers:
            subscriber.wait(10_000)
            for name in "pq":
                mine = [x.partition(" ")[2] for x in subscriber.got if x.startswith(name)]
                assert mine == [str(number) for number in range(5000)]
    for instance in (a, b):
        instance.wait(
            lambda s: s["topics"]["bridge"]["sent"] == s["topics"]["bridge"]["received"] == 5000,
            "the counters",
        )
        assert (bridge(instance)["lost"], bridge(instance)["missed"]) == (0, 0)
        assert instance.run("stop").returncode == 0
        assert instance.exited() == 0


def test_service_goes_on_without_the_server(start: Start, redis: RedisServer) -> None:
    """While the server is stopped, and while it is gone, the clients of one instance have each
    other's messages at once; the status says what the matter is and what waits; and when the
    server is back, so are the others.
    """
    a, b = both(start, redis)
    with clients(a, a, b) as (p, mine, theirs):
        for subscriber in (mine, theirs):
            subscriber.subscribe()
        heard(redis, 2)
        p.publish(1)
        theirs.wait(1)
        mine.wait(1)
        with redis.stalled():
            a.wait(lambda s: s["topics"]["bridge"]["fault"] == "timeout", "the stall", 15)
            began = time.monotonic()
            p.publish(*range(2, 102))
            mine.wait(101)
            assert time.monotonic() - began < 5
            a.wait(lambda s: s["topics"]["bridge"]["queue_bytes"] > 0, "a queue")
        connected(a)
        connected(b)
        heard(redis, 2)
        redis.kill()
        a.wait(lambda s: s["topics"]["bridge"]["fault"] == "refused", "the death", 15)
        shown = a.run("status")
        assert "refused" in shown.stdout, shown.stdout
        began = time.monotonic()
        p.publish(*range(102, 202))
        mine.wait(201)
        assert time.monotonic() - began < 5
        redis.start()
        connected(a)
        connected(b)
        heard(redis, 2)
        before = len(theirs.got)
        p.publish("again")
        theirs.wait(before + 1)
        processes.until(lambda: theirs.got[-1] == "again", PATIENCE, "the next message")
        assert mine.got[:201] == [str(n) for n in range(1, 202)]
        assert theirs.got == [x for x in mine.got if x in set(theirs.got)]


def test_recovery_on_another_machine(start: Start, redis: RedisServer) -> None:
    """With `bus_history`: a client's machine goes away with all its workers, the server is killed
    and restarted, and the client comes to the other instance with its position: it is sent exactly
    what it missed, and told that this is all.
    """
    a, b = both(start, redis, bus_history=True, history=1000)
    with clients(a, b) as (p, q):
        q.subscribe()
        p.publish(*range(10))
        q.wait(10)
        position = q.position
    assert b.run("stop").returncode == 0
    b.exited()
    with clients(a) as (p,):
        p.publish(*range(10, 300))
        a.wait(lambda s: s["topics"]["bridge"]["sent"] == 300, "the server to have it")
        redis.kill()
        redis.start()
        connected(a)
        p.publish(*range(300, 400))
        with clients(a) as (q,):
            assert q.subscribe(since=position) == (True, 390)
            q.wait(390)
            p.publish("next")
            q.wait(391)
            assert q.got == [*map(str, range(10, 400)), "next"]
            assert q.subscribe(since=q.position) == (True, 0)
            # What goes beyond the history is not called complete.
            p.publish(*range(3000))
            q.wait(3391)
            recovered, missed = q.subscribe(since=position)
            assert not recovered
            assert missed >= 1000


def test_a_bridge_that_is_killed(start: Start, redis: RedisServer) -> None:
    """A killed bridge is replaced, and messages of other machines come again; so is one whose
    settings changed in a reload.
    """
    a, b = both(start, redis)
    with clients(a, b) as (p, q):
        q.subscribe()
        heard(redis, 1)
        pid = bridge(b)["pid"]
        os.kill(pid, signal.SIGKILL)
        b.wait(lambda s: s["topics"]["bridge"]["pid"] not in (None, pid), "another bridge")
        connected(b)
        heard(redis, 1)
        p.publish("after")
        q.wait(1)
        assert bridge(b)["restarts"] == 1
        done = b.run("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        p.publish("reloaded")
        q.wait(2)
        # A history needs another bridge: one that hears of all topics.
        pid = bridge(b)["pid"]
        b.reconfigure(topics={"bus": f"redis://127.0.0.1:{redis.port}", "history": 10})
        done = b.run("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        b.wait(lambda s: s["topics"]["bridge"]["pid"] not in (None, pid), "another bridge")
        connected(b)
        processes.until(
            lambda: redis.ask("pubsub", "numpat") == ["1"], PATIENCE, "a subscription to all"
        )
        assert bridge(b)["restarts"] == 1
        p.publish("renewed")
        q.wait(3)
        assert q.got == ["after", "reloaded", "renewed"]


def test_a_wrong_password(start: Start, redis: RedisServer) -> None:
    """The instance serves, the status and the log say that the password is not accepted, and
    nothing shows it.
    """
    redis.ask("config", "set", "requirepass", "another")
    a = start(
        APPLICATION, name="a", topics={"bus": f"redis://me:hush%2Fhush@127.0.0.1:{redis.port}"}
    )
    a.running()
    a.wait(lambda s: s["topics"]["bridge"].get("fault") == "auth", "the refusal")
    with clients(a, a) as (p, q):
        q.subscribe()
        p.publish("here")
        q.wait(1)
    shown = [a.run("status"), a.run("status", "--json"), a.run("config")]
    assert "auth" in shown[0].stdout
    texts = [a.logged(), *(x.stdout + x.stderr for x in shown)]
    texts += [processes.title(pid) for pid in processes.descendants(a.pid)]
    assert not [text for text in texts if "hush" in text]
    assert a.events("bridge_away")[0]["level"] == "error"
