"""Connections move on other occasions than a reload: fewer workers, rebalancing, recycling."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness import processes
from tests.harness.instance import Instance, in_service
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import EVENT, TASK
from tests.harness.oracle_client import PLAIN, QUIET, mixed
from tests.harness.oracle_run import exact, lives_in_the_new, reload, same
from tests.harness.oracle_sockets import counts, inodes
from tests.harness.raw import Raw, endings

Start = Callable[..., Instance]


def _scale(instance: Instance, workers: int) -> None:
    done = instance.run("scale", str(workers))
    assert done.returncode == 0, done.stdout + done.stderr
    instance.wait(
        lambda s: (
            len(in_service(s)) == workers
            and all(w["state"] == "ready" for x in s["slots"] for w in x["workers"])
        ),
        f"{workers} workers alone",
    )


def _spread(instance: Instance) -> list[int]:
    """How many connections each worker has, the fewest first."""
    workers = [w for slot in instance.status()["slots"] for w in slot["workers"]]
    return sorted(worker["active"] for worker in workers)


def test_fewer_workers(start: Start) -> None:
    """Scaling down empties the slots that are parked: their connections go on in the workers that
    stay, about as many in each, and nobody is closed.
    """
    instance = start(EVENT, workers=4, drain_window=0.5)
    instance.running()
    with Oracle(instance.address(), mixed(60)) as people:
        people.go_on()
        sockets = inodes(people.server_port, people.ports)
        family = instance.workers()
        _scale(instance, 2)
        people.go_on(3)
        stay = instance.workers()
        assert stay == {slot: pid for slot, pid in family.items() if slot < 2}
        same(people, sockets)
        assert {client.pid for client in people.living} <= set(stay.values())
        left = set(family.values()) - set(stay.values())
        assert not [pid for pid in left if processes.alive(pid)]
        assert min(_spread(instance)) >= 10
        _scale(instance, 1)
        people.go_on(3)
        same(people, sockets)
        people.finish()
        assert exact(instance, people).closed_by_reason["client"] == 60


def test_rebalance(start: Start) -> None:
    """`wssup rebalance` moves connections from a worker that has many to a new one that has none,
    until both have as many; those that move are no more than needed, and nobody is closed.
    """
    instance = start(EVENT, workers=1)
    instance.running()
    with Oracle(instance.address(), [PLAIN] * 20 + [QUIET] * 20) as people:
        people.go_on()
        sockets = inodes(people.server_port, people.ports)
        _scale(instance, 2)
        people.go_on()
        assert _spread(instance) == [0, 40]
        done = instance.run("rebalance")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "20" in done.stdout
        assert _spread(instance) == [20, 20]
        people.go_on(3)
        assert set(Counter(client.pid for client in people.living).values()) == {20}
        same(people, sockets)
        assert counts(instance).moved_in == 20
        again = instance.run("rebalance")
        assert again.returncode == 0, again.stdout + again.stderr
        assert counts(instance).moved_in == 20
        people.finish()
        exact(instance, people)


def test_a_rebalance_is_over_when_it_is_counted(start: Start) -> None:
    """`wssup rebalance` comes back when the worker that took the connections has counted them, also
    if its application takes its time with each.
    """
    slow = EVENT.replace('note("resume", ws)', 'time.sleep(0.03)\n        note("resume", ws)')
    instance = start(f"import time\n{slow}", workers=1)
    instance.running()
    with Oracle(instance.address(), [QUIET] * 40) as people:
        people.go_on()
        _scale(instance, 2)
        done = instance.run("rebalance")
        assert done.returncode == 0, done.stdout + done.stderr
        assert _spread(instance) == [20, 20]
        people.finish()
        exact(instance, people)


@pytest.mark.parametrize("occasion", ["scale", "respawn"])
def test_rebalance_by_itself(start: Start, occasion: str) -> None:
    """With `rebalance = true` connections move to a worker that was added, or that has replaced one
    that was killed, without being asked.
    """
    workers = {"scale": 1, "respawn": 2}[occasion]
    instance = start(EVENT, workers=workers, rebalance=True)
    instance.running()
    with Oracle(instance.address(), [QUIET] * 60, may_end=occasion == "respawn") as people:
        people.go_on()
        if occasion == "scale":
            _scale(instance, 2)
        else:
            victim = instance.workers()[0]
            os.kill(victim, signal.SIGKILL)
            instance.wait(lambda s: s["restarts"] == 1, "the death to be noticed")
            instance.running()
            # Who was cut off has noticed it by now, and who lives is answered.
            people.go_on()
        total = len(people.living)
        instance.wait(
            lambda _: (s := _spread(instance)) and len(s) == 2 and s[1] - s[0] <= 1,
            "both workers to have as many",
        )
        people.go_on()
        assert len(people.living) == total
        exact(instance, people)


def _memory(application: str) -> str:
    """An application that keeps what it is sent."""
    return application.replace(
        "    def on_receive(self, ws, data):\n",
        "    kept = []\n\n    def on_receive(self, ws, data):\n"
        "        if data == 'leak':\n            self.kept.append(b'x' * (400 << 20))\n",
    )


@pytest.mark.parametrize("occasion", ["connections", "age", "rss"])
def test_recycling(start: Start, occasion: str) -> None:
    """A worker that has served max_worker_connections, is older than max_worker_age or larger than
    max_worker_rss is replaced by a new one of the same generation, which gets its connections.
    """
    limit: dict[str, Any] = {"connections": 60, "age": 8, "rss": "300MiB"}
    instance = start(
        _memory(EVENT), workers=1, settle=0.1, **{f"max_worker_{occasion}": limit[occasion]}
    )
    instance.running()
    first = instance.workers()[0]
    with Oracle(instance.address(), mixed(50)) as people:
        people.go_on()
        sockets = inodes(people.server_port, people.ports)
        if occasion == "connections":
            assert instance.workers()[0] == first
            for _ in range(20):
                with Raw(instance.address()) as client:
                    client.open().close()
        elif occasion == "rss":
            with Raw(instance.address()) as client:
                client.open().ask("leak")
                client.close()
        people.wait(
            lambda: all(client.pid not in {0, first} for client in people.living),
            "answers of the successor",
        )
        instance.wait(
            lambda s: (
                [w["role"] for w in s["slots"][0]["workers"]] == ["current"]
                and instance.workers()[0] != first
            ),
            "the successor alone",
        )
        assert not processes.alive(first)
        assert {client.generation for client in people.living} == {1}
        same(people, sockets)
        people.finish()
    found = counts(instance)
    assert found.closed == found.closed_by_reason["client"] == found.accepted
    assert found.moved_in == found.moved_out >= 50
    assert instance.status()["restarts"] == 0


def test_generations_that_come_and_go(start: Start) -> None:
    """From marked to unmarked and back, and from one style to the other: what the new code cannot
    take is closed with 1012 without having been moved; between the styles nobody is closed.
    """
    instance = start(TASK, settle=0.1, drain_window=0.3)
    instance.running()
    address = instance.address()
    with Oracle(address, [PLAIN] * 20) as people:
        people.go_on()
        instance.source.write_text(EVENT)
        reload(instance)
        people.served_by(2)
        lives_in_the_new(instance, people, set())
        instance.source.write_text(TASK)
        reload(instance)
        people.served_by(3)
        people.finish()
    moved = counts(instance).moved_in
    assert moved == 40
    instance.edit("@wssup.resumable", "# @wssup.resumable")
    with Raw(address) as client:
        client.open()
        command = instance.launch("reload")
        assert [end.code for end in endings([client])] == [1012]
        assert command.wait(60) == 0
    with Raw(address) as client:
        client.open()
        instance.edit("# @wssup.resumable", "@wssup.resumable")
        command = instance.launch("reload")
        assert [end.code for end in endings([client])] == [1012]
        assert command.wait(60) == 0
    found = counts(instance)
    assert found.moved_in == moved
    assert found.closed_by_reason["drain"] == 2
    assert found.handoff_refused_by_reason["not_resumable"] == 2
