"""Connections move on when the worker that they move to goes itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import EVENT, TASK
from tests.harness.oracle_client import QUIET, mixed
from tests.harness.oracle_run import exact, same
from tests.harness.oracle_sockets import inodes

Start = Callable[..., Instance]


def _scale(instance: Instance, workers: int) -> None:
    done = instance.run("scale", str(workers))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("application", [EVENT, TASK], ids=["event", "task"])
def test_one_after_the_other(start: Start, application: str) -> None:
    """The number of workers is lowered again before the last time is over: who was to take the
    connections of the worker that went first goes now, too, and stood still until then. Nobody is
    closed, and all are in the workers that stay.
    """
    instance = start(application, workers=4, drain_window=0.1, drain_timeout=60)
    instance.running()
    with Oracle(instance.address(), [*mixed(40), *40 * [QUIET]]) as people:
        # All have as many, so all get some.
        assert instance.run("rebalance").returncode == 0
        people.go_on()
        sockets = inodes(people.server_port, people.ports)
        family = instance.workers()
        os.kill(family[2], signal.SIGSTOP)
        try:
            _scale(instance, 3)
            started = instance.wait_logged("handoff_started", 3)
            assert family[2] in {line["to"] for line in started}
            # Those that go to the others are there.
            instance.wait(
                lambda s: sum(w["active"] for w in s["slots"][3]["workers"]) < 20,
                "some to have moved",
            )
            _scale(instance, 2)
        finally:
            os.kill(family[2], signal.SIGCONT)
        gone = [family[2], family[3]]
        processes.until(lambda: not any(map(processes.alive, gone)), 60, "both to end")
        people.go_on(3)
        last = instance.events("handoff_started")[-1]
        assert (last["pid"], last["quota"]) == (family[3], 0)
        same(people, sockets)
        stay = {family[0], family[1]}
        assert {client.pid for client in people.living} <= stay
        people.finish()
        assert exact(instance, people).closed_by_reason["drain"] == 0
