"""Workers whose loop does not turn: stopped, or held up by a handler."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from tests.harness import processes
from tests.harness.instance import ECHO, Instance
from tests.harness.raw import ABNORMAL, Raw, spread_clients
from wssup.scoreboard import Scoreboard

Start = Callable[..., Instance]

#: An echo that can be told never to give way again.
GRINDING = ECHO.replace(
    "        await ws.send_message(message)\n",
    """\
        if message == "grind":
            grind_for_ever()
        await ws.send_message(message)

def grind_for_ever():
    while True:
        pass
""",
)


def _slot(status: dict[str, Any], index: int) -> dict[str, Any]:
    found: dict[str, Any] = status["slots"][index]
    return found


def _stalled(status: dict[str, Any]) -> list[bool]:
    return [w["stalled"] for s in status["slots"] for w in s["workers"]]


def _who(address: str) -> tuple[int, int]:
    """Slot and pid of whoever takes a new connection."""
    with Raw(address) as client:
        slot, _, pid, _ = client.open().ask("who").split()
        client.close()
        return int(slot), int(pid)


def test_a_stopped_worker_is_stood_in_for_until_it_goes_on(start: Start) -> None:
    """A worker that is stopped is noticed after stall_after and another takes its new connections;
    when it goes on, its own connections are still there and it takes new ones again.
    """
    instance = start(stall_after=0.5, hang_after=300)
    instance.running()
    address = instance.address()
    workers = instance.workers()
    with spread_clients(address, 2, 3) as clients:
        os.kill(workers[0], signal.SIGSTOP)
        stalled = instance.wait(lambda s: _slot(s, 0)["lent_to"] == 1, "the loan")
        assert _slot(stalled, 0)["workers"][0]["stalled"] is True
        assert _slot(stalled, 0)["state"] == "ready"
        assert {_who(address) for _ in range(20)} == {(1, workers[1])}
        assert {c.ask("there") for c in clients[1]} == {"there"}
        os.kill(workers[0], signal.SIGCONT)
        back = instance.wait(
            lambda s: _slot(s, 0)["lent_to"] is None and not _slot(s, 0)["workers"][0]["stalled"],
            "the return",
        )
        assert {c.ask("still there") for c in clients[0]} == {"still there"}
        processes.until(lambda: _who(address) == (0, workers[0]), 60, "new connections to it")
        assert back["connections"]["closed_by_reason"]["worker_died"] == 0
    assert instance.workers() == workers
    assert workers[0] in {e["pid"] for e in instance.events("worker_stalled")}
    # On a busy machine another one may have stalled, too.
    (recovered, *_) = [e for e in instance.events("worker_recovered") if e["pid"] == workers[0]]
    assert recovered["seconds"] >= 0.4
    assert ("stalled", 1) in {(e["because"], e["to"]) for e in instance.events("listeners_lent")}


def test_a_handler_that_never_gives_way_costs_its_own_worker_alone(start: Start) -> None:
    """A worker whose loop is held up for hang_after has its stack dumped to the log, is killed and
    replaced; what it held is counted as lost and others go on.
    """
    instance = start(GRINDING, stall_after=0.4, hang_after=4)
    instance.running()
    address = instance.address()
    workers = instance.workers()
    with spread_clients(address, 2, 3) as clients:
        clients[0][0].say("grind")
        instance.wait(lambda s: _slot(s, 0)["lent_to"] == 1, "the loan")
        assert _who(address)[1] != workers[0]
        replaced = instance.wait(
            lambda s: (
                _slot(s, 0)["state"] == "ready" and _slot(s, 0)["workers"][0]["pid"] != workers[0]
            ),
            "the successor",
        )
        assert {c.ending().code for c in clients[0]} == {ABNORMAL}
        assert {c.ask("still there") for c in clients[1]} == {"still there"}
        lost = replaced["connections"]["closed_by_reason"]["worker_died"]
        assert lost == len(clients[0])
    [hung] = instance.events("worker_hung")
    assert (hung["slot"], hung["pid"]) == (0, workers[0])
    assert hung["seconds"] >= 4
    [told] = instance.events("worker_lost")
    assert "hang_after" in told["reason"]
    # faulthandler(3) writes the stack in plain text, the innermost frame first.
    stack = instance.logged().partition("Fatal Python error: Aborted")[2]
    assert "in grind_for_ever" in stack.partition("most recent call first")[2].splitlines()[1]
    assert instance.workers()[1] == workers[1]


def test_when_all_workers_stall_none_is_killed(start: Start) -> None:
    """Workers that all stall together are left alone for longer than hang_after, and serve on with
    their connections when they go on.
    """
    hang_after = 3.0
    instance = start(stall_after=0.3, hang_after=hang_after)
    instance.running()
    address = instance.address()
    workers = instance.workers()
    with spread_clients(address, 2, 3) as clients:
        for pid in workers.values():
            os.kill(pid, signal.SIGSTOP)
        instance.wait(lambda s: all(_stalled(s)), "both to stall")
        # That nothing happens can only be seen in time: that of the claim, and once more.
        patience = time.monotonic() + 2 * hang_after
        processes.until(lambda: time.monotonic() > patience, 60, "the time to pass")
        assert instance.workers() == workers
        assert all(_stalled(instance.status()))
        assert instance.events("worker_hung") == []
        assert instance.events("many_workers_stalled")[0]["workers"] == 2
        # Both go on before the master looks again: it could catch the slower one alone.
        instance.signal(signal.SIGSTOP)
        _go_on(instance, workers)
        instance.signal(signal.SIGCONT)
        instance.wait(lambda s: not any(_stalled(s)), "both to recover")
        assert {c.ask("there") for c in clients[0] + clients[1]} == {"there"}
    assert instance.workers() == workers
    assert instance.events("worker_lost") == []


def _go_on(instance: Instance, workers: dict[int, int]) -> None:
    """Continue stopped workers and see their hearts beat."""
    board = Scoreboard.attach(instance.segment().name)
    try:
        before = time.monotonic_ns()
        for pid in workers.values():
            os.kill(pid, signal.SIGCONT)
        processes.until(
            lambda: all(r.heartbeat_ns > before for r in board.snapshot().rows),
            60,
            "the workers to go on",
        )
    finally:
        board.close()
