"""The number of workers follows the load, or from the connections that are to be held."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.harness.instance import Instance, in_service
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import EVENT
from tests.harness.oracle_client import QUIET
from tests.harness.oracle_run import same
from tests.harness.oracle_sockets import counts, inodes

Start = Callable[..., Instance]


def _alone(status: dict[str, Any], count: int) -> bool:
    """Whether there are so many workers, all of them ready, and no others."""
    states = [w["state"] for slot in status["slots"] for w in slot["workers"]]
    return len(in_service(status)) == count and states == ["ready"] * count


def test_the_load_decides(start: Start) -> None:
    """With ten connections for each of one to three workers, 25 clients bring three of them; when
    19 have gone, two workers go one after the other, and the clients that stay live on in the one
    that is left, with the sockets they had. Nobody is closed. A command to scale is refused
    meanwhile. A configuration whose connections cannot be held is refused by a reload with the
    arithmetic; one with a number of workers ends it.
    """
    bounds = {"min": 1, "max": 3, "connections_per_worker": 10}
    instance = start(EVENT, workers=bounds, scale_down_after=0.3, drain_window=0.2, settle=0.1)
    status = instance.running()
    assert status["workers"] == 1
    assert status["autoscale"] == {"min": 1, "max": 3, "each": 10, "held": None, "last": None}
    with Oracle(instance.address(), [QUIET] * 19) as leaving:
        leaving.go_on()
        instance.wait(lambda s: _alone(s, 3), "three workers")
        with Oracle(instance.address(), [QUIET] * 6) as people:
            people.go_on()
            sockets = inodes(people.server_port, people.ports)
            refused = instance.run("scale", "2")
            assert refused.returncode == 1
            assert "the number of workers follows the load, 1 to 3" in refused.stderr
            shown = instance.run("status").stdout
            assert "autoscale  3 workers, 1 to 3 with 10 each; last " in shown
            leaving.go_on()
            leaving.finish()
            status = instance.wait(lambda s: _alone(s, 1), "one worker alone")
            people.go_on(3)
            same(people, sockets)
            assert {client.pid for client in people.living} == {instance.workers()[0]}
            last = status["autoscale"]["last"]
            assert (last["workers"], last["was"], last["reason"]) == (1, 2, "idle")
            steps = [(e["was"], e["workers"], e["reason"]) for e in instance.events("autoscaled")]
            # How many more it takes at once depends on how fast they come.
            assert steps[0][0] == 1
            assert (2, 3, "full") in steps or (1, 3, "full") in steps
            assert steps[-2:] == [(3, 2, "idle"), (2, 1, "idle")]
            instance.signal(signal.SIGTTIN)
            assert "follows the load" in instance.wait_logged("signal_refused")[0]["reason"]
            _not_planned(instance)
            people.go_on()
            instance.reconfigure(workers=2)
            assert instance.run("reload").returncode == 0
            people.go_on()
            instance.wait(lambda s: _alone(s, 2) and s["autoscale"] is None, "two workers")
            assert instance.run("scale", "1").returncode == 0
            people.go_on()
            people.finish()
            assert counts(instance).closed_by_reason["client"] == 25


def _not_planned(instance: Instance) -> None:
    """A reload is refused whose connections need more workers than there may be."""
    workers = instance.workers()
    instance.reconfigure(workers=None, connections=100_000, worker_connections=100)
    refused = instance.run("reload")
    assert refused.returncode == 1
    said = refused.stdout + refused.stderr
    assert "connections = 100000 does not fit" in said
    assert "may have 100 (worker_connections = 100)" in said
    assert instance.workers() == workers
    instance.reconfigure(connections=0, worker_connections=0)


def test_the_plan_decides(start: Start) -> None:
    """The number of workers follows from the connections and from what one may have; a reload with
    the same of them leaves a number that was commanded, one with more brings more workers. Where
    the limit of open files is too low, a start has one line with the arithmetic and the remedy,
    and exit status 2.
    """
    with _one_processor():
        instance = start(workers=None, connections=100, worker_connections=70, settle=0.1)
    assert instance.running()["workers"] == 3
    assert instance.run("scale", "4").returncode == 0
    assert instance.run("reload").returncode == 0
    assert instance.status()["workers"] == 4
    instance.reconfigure(connections=200, drain_window=0.1)
    assert instance.run("reload").returncode == 0
    instance.wait(lambda s: _alone(s, 5), "five workers")
    instance.reconfigure(name="other", max_workers=2, connections=1000, worker_connections=0)
    _not_started(instance)


@contextmanager
def _one_processor() -> Iterator[None]:
    """What is started meanwhile has one processor; there are as many workers at least."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _not_started(instance: Instance) -> None:
    limited = ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh", *instance.command("serve")]
    done = subprocess.run(
        limited,
        cwd=instance.home,
        env=instance.environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "connections = 1000 does not fit: with max_workers = 2 a worker gets up to 580" in line
    assert "may have 172 (RLIMIT_NOFILE 300 - 128 for other things = 172)" in line
    assert "raise the limit of open files to 708 (LimitNOFILE= or ulimit -Hn)" in line
    assert "or max_workers to 9" in line
