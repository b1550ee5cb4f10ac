"""More and fewer workers, while clients keep connecting."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from tests.harness import kernel, processes
from tests.harness.clients import SERVICE_RESTART, aside, crowd, prober
from tests.harness.instance import Instance

Start = Callable[..., Instance]


def _port(instance: Instance) -> int:
    return int(instance.address().rpartition(":")[2])


async def _scale(instance: Instance, count: int, was: int) -> None:
    done = await aside(instance.run, "scale", str(count))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"scaled from {was} to {count} workers" in done.stdout
    await aside(instance.wait, lambda s: _ready(s) == list(range(count)), f"{count} workers alone")


def _ready(status: dict[str, Any]) -> list[int]:
    """The slots with a worker, if all of these are ready and accept; else none."""
    workers = [(s["slot"], w) for s in status["slots"] for w in s["workers"]]
    if all(w["state"] == "ready" and w.get("accepting") for _, w in workers):
        return [slot for slot, _ in workers]
    return []


async def test_scale_up_and_down(start: Start) -> None:
    """From 2 workers to 5 to 1 to 3 nobody who connects fails; the listeners of parked slots stay
    open, lent to a worker that accepts, and are taken up again.
    """
    instance = start(drain_window=0.2)
    instance.running()
    port = _port(instance)
    async with prober(instance.url(), 3) as probing:
        await _scale(instance, 5, was=2)
        listeners = kernel.listening(port)
        assert len(listeners) == 5
        # The kernel was told of five slots less than a second ago, and is told of one at most a
        # second later: until then the borrower alone serves four queues of five.
        await _scale(instance, 1, was=5)
        status = instance.status()
        assert [s["state"] for s in status["slots"]] == ["ready"] + ["parked"] * 4
        assert [s["lent_to"] for s in status["slots"]] == [None, 0, 0, 0, 0]
        assert kernel.listening(port) == listeners
        borrower = instance.workers()[0]
        # They are lent when the master has said so; it takes them in its next turn.
        await aside(
            processes.until, lambda: kernel.holds(borrower) >= listeners, 10, "it to have them"
        )
        await probing.rounds(10)
        assert probing.answers[-1].split()[0] == "0"
        await _scale(instance, 3, was=1)
        assert kernel.listening(port) == listeners
        assert [s["lent_to"] for s in instance.status()["slots"]][:3] == [None] * 3
        processes_of = instance.workers()
        await aside(
            processes.until,
            lambda: sum(len(kernel.holds(p) & listeners) for p in processes_of.values()) == 5,
            20,
            "each listener to be held by one worker",
        )
        await aside(
            processes.until,
            lambda: {a.split()[0] for a in probing.answers[-30:]} == {"0", "1", "2"},
            20,
            "all three to be served from",
        )
        assert probing.failures == []
    assert instance.status()["workers"] == 3


async def test_scaling_down_closes_only_the_parked(start: Start) -> None:
    """Scaling down tells the connections of the parked slots 1012, and no others; they are counted
    as drained, and `open` is what is left.
    """
    instance = start(workers=3, drain_window=0.2)
    instance.running()
    async with crowd(instance.url(), 60) as people:
        stay = {s["slot"]: s["workers"][0]["open"] for s in instance.status()["slots"]}
        await _scale(instance, 1, was=3)
        await people.wait(lambda: len(people.live) == stay[0], "the parked slots' connections")
        assert people.codes == {SERVICE_RESTART: 60 - stay[0]}
        connections = instance.status()["connections"]
        assert connections["open"] == kernel.established(_port(instance)) == stay[0]
        assert connections["closed_by_reason"]["drain"] == 60 - stay[0]


async def test_signals_scale(start: Start) -> None:
    """SIGTTIN starts one worker more, SIGTTOU ends one, and the last one stays."""
    instance = start(drain_window=0.1)
    instance.running()
    for number, count in (
        (signal.SIGTTIN, 3),
        (signal.SIGTTOU, 2),
        (signal.SIGTTOU, 1),
        (signal.SIGTTIN, 2),
        (signal.SIGTTOU, 1),
    ):
        instance.signal(number)
        instance.wait(lambda s, n=count: _ready(s) == list(range(n)), f"{count} workers")
    instance.signal(signal.SIGTTOU)
    (refused,) = instance.wait_logged("signal_refused")
    assert "0 workers: it must be 1 to 64" in refused["reason"]
    assert instance.status()["workers"] == 1


def test_impossible_scales_are_refused(start: Start) -> None:
    """No workers at all and more than max_workers are refused, with what is possible."""
    instance = start(max_workers=4)
    instance.running()
    workers = instance.workers()
    none = instance.run("scale", "0")
    assert none.returncode == 2
    assert "0 is not in the range 1<=x<=1000" in none.stderr
    many = instance.run("scale", "5")
    assert many.returncode == 1
    assert "5 workers: it must be 1 to 4" in many.stderr
    assert "max_workers sets the upper end" in many.stderr
    for workers_wanted in (0, -1, 5, "three", 2.5, True):
        error = instance.ask("scale", workers=workers_wanted)["error"]
        assert error["code"] == "bad_argument"
        assert str(workers_wanted) in error["message"]
    assert instance.workers() == workers
    assert instance.status()["workers"] == 2


async def test_a_terminated_worker_is_replaced_at_once(start: Start) -> None:
    """TERM to one worker drains it, while its slot has a successor at once and nobody who connects
    fails; the other workers' connections notice nothing.
    """
    instance = start(drain_window=8, drain_timeout=30, backoff_min=30)
    instance.running()
    async with crowd(instance.url(), 60) as people:
        async with prober(instance.url()) as probing:
            victim = instance.workers()[0]
            slot = instance.status()["slots"][0]
            # The probers' connections come and go: they are no part of the crowd.
            assert slot["workers"][0]["open"] > 0
            os.kill(victim, signal.SIGTERM)
            status = await aside(
                instance.wait, lambda s: _has_successor(s, victim), "the successor to be ready"
            )
            # It is there while the old one still drains: nothing was waited for.
            assert victim in {w["pid"] for w in status["slots"][0]["workers"]}
            await aside(
                instance.wait,
                lambda s: [len(x["workers"]) for x in s["slots"]] == [1, 1],
                "the terminated worker to end",
            )
            await probing.rounds(4)
            assert probing.failures == []
        lost = 60 - len(people.live)
        assert people.codes == {SERVICE_RESTART: lost}
        assert 0 < lost < 60
        status = await aside(
            instance.wait,
            lambda s: s["connections"]["open"] == 60 - lost,
            "the last probes to be counted",
        )
        assert kernel.established(_port(instance)) == 60 - lost
        assert [s["state"] for s in status["slots"]] == ["ready", "ready"]
        assert status["restarts"] == 0
    (leaving,) = instance.events("worker_leaving")
    assert (leaving["pid"], leaving["reason"]) == (victim, "SIGTERM")


def _has_successor(status: dict[str, Any], victim: int) -> bool:
    workers = status["slots"][0]["workers"]
    return any(w["state"] == "ready" and w["pid"] != victim for w in workers)
