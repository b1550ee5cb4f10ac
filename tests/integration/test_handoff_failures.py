"""Processes are killed in the middle of a handoff: every connection is alive exactly once, or was
closed and is counted; and nothing is left over.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from tests.harness import processes
from tests.harness.clients import SERVICE_RESTART
from tests.harness.instance import Instance, in_service
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import EVENT, TASK
from tests.harness.oracle_client import QUIET, mixed
from tests.harness.oracle_run import exact, journal, nothing_left
from tests.harness.oracle_sockets import accounts, family, holders, inodes
from tests.harness.raw import ABNORMAL
from wssup.scoreboard import RowView, Scoreboard

Start = Callable[..., Instance]

#: How often each process is killed; `make soak` does it ten times.
_FAULTS = int(os.environ.get("WSSUP_FAULTS", "1"))
#: RFC 6455 section 7.4.1: what clients of a service that stops are told.
GOING_AWAY = 1001
#: Enough for the handoff to take a while, with states that fill the sockets between the workers.
_CLIENTS = 1500
_KINDS = [QUIET] * 1440 + mixed(60)
_BALLAST = '        ws.state["ballast"] = os.urandom(12_000)\n'
_HEAVY_EVENT = EVENT.replace(
    '        ws.state["answers"] = 0\n', '        ws.state["answers"] = 0\n' + _BALLAST
)
_HEAVY_TASK = TASK.replace(
    '        ws.state["answers"] = 0\n', '        ws.state["answers"] = 0\n' + _BALLAST
)
_STYLES = {"event": _HEAVY_EVENT, "task": _HEAVY_TASK}
_MANY = pytest.mark.timeout(200 + 40 * _FAULTS)


class Amid(NamedTuple):
    """Where the handoff of a slot was when its process was killed.

    :ivar held: connections that the old worker had at first.
    :ivar moved: those of them that the new one had counted.
    """

    held: int
    moved: int


def _heavy(start: Start, application: str = _HEAVY_EVENT, name: str = "test") -> Instance:
    return start(application, name=name, settle=0.1, max_workers=4, drain_window=0.3)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _reload_and(
    instance: Instance, board: Scoreboard, then: Callable[[RowView, RowView], None]
) -> Amid:
    """Reload, and do something when a part of the connections of slot 0 has moved, a random one.

    :param then: it is given the rows of the old worker and of the new one.
    """
    for _ in range(5):
        if (amid := _once(instance, board, then)) is not None:
            return amid
        # Put aside for a moment, we saw it when all had moved.
        _comes_to_rest(instance)
    pytest.fail("it was too late, five times")


def _once(
    instance: Instance, board: Scoreboard, then: Callable[[RowView, RowView], None]
) -> Amid | None:
    """Nothing was done if it was too late."""
    old = next(row for row in board.snapshot().rows if row.slot == 0)
    least = random.randrange(1, int(0.4 * old.counts.active))
    new: RowView | None = None
    instance.launch("reload", "--no-wait")

    def moved() -> int:
        nonlocal new
        rows = board.snapshot().rows
        new = next((r for r in rows if (r.slot, r.serial > old.serial) == (0, True)), None)
        return new.counts.moved_in if new is not None and new.pid else 0

    # The handoff takes a fraction of a second: no pause between the looks at it.
    processes.until(moved, 60, "the handoff to begin")
    while (so_far := moved()) < least:
        pass
    assert new is not None
    if so_far >= old.counts.active:
        return None
    then(old, new)
    return Amid(old.counts.active, so_far)


@contextmanager
def _scoreboard(instance: Instance) -> Iterator[Scoreboard]:
    """The instance's counts; they can be read after its end, too."""
    board = Scoreboard.attach(instance.segment().name)
    try:
        yield board
    finally:
        board.close()


def _comes_to_rest(instance: Instance) -> None:
    """Wait until the reload has ended, one way or the other, and each slot has one worker."""
    instance.wait(
        lambda s: (
            s["state"] == "running"
            and s["reload"] is None
            and all(
                [(w["role"], w["state"]) for w in x["workers"]] == [("current", "ready")]
                for x in in_service(s)
            )
        ),
        "one worker in each slot",
    )


def _assert_once(instance: Instance, people: Oracle) -> None:
    """Each client that lives is answered correctly, and its socket is in one process, a worker."""
    people.go_on(1)
    workers = set(instance.workers().values())
    sockets = inodes(people.server_port, people.ports)
    assert len(sockets) == len(people.living)
    held = holders(family(instance), sockets.values())
    assert [name for name, pids in held.items() if len(pids) != 1 or not pids <= workers] == []
    assert {client.pid for client in people.living} <= workers


@_MANY
@pytest.mark.parametrize("victim", ["sender", "receiver"])
def test_a_worker_is_killed(start: Start, victim: str) -> None:
    """Kill -9 of the worker that hands connections over costs at most those that it still had; of
    the one that takes them, at most those that it had taken; everybody else goes on.
    """
    instance = _heavy(start)
    instance.running()
    _comes_to_rest(instance)
    before = accounts(instance)
    earlier = 0
    for _ in range(_FAULTS):
        with (
            _scoreboard(instance) as board,
            Oracle(instance.address(), _KINDS, may_end=True) as people,
        ):
            people.go_on(1)
            amid = _reload_and(
                instance, board, lambda old, new: _kill((old if victim == "sender" else new).pid)
            )
            _comes_to_rest(instance)
            _assert_once(instance, people)
            found = exact(instance, people, earlier)
            lost = len(people.clients) - len(people.living)
            assert set(people.codes) <= {ABNORMAL, SERVICE_RESTART}
            if victim == "sender":
                assert lost <= amid.held - amid.moved
            else:
                assert amid.moved <= lost <= amid.held
            assert people.codes[SERVICE_RESTART] <= 1 + 0.01 * amid.held
            assert found.closed_by_reason["worker_died"] >= people.codes[ABNORMAL]
            people.finish()
        earlier += _CLIENTS
        nothing_left(instance, before)


@_MANY
@pytest.mark.parametrize("style", ["task", "event"] if _FAULTS > 1 else ["task"])
def test_the_master_is_killed(start: Start, style: str) -> None:
    """When the master is killed, the workers on both ends close what they have with 1012, every
    connection once, and end; the counts that they leave say so.
    """
    for number in range(-(-_FAULTS // 2)):
        _kill_a_master(_heavy(start, _STYLES[style], f"test{number}"))


def _kill_a_master(instance: Instance) -> None:
    instance.running()
    with (
        _scoreboard(instance) as board,
        Oracle(instance.address(), _KINDS, may_end=True) as people,
    ):
        people.go_on(1)
        family: set[int] = set()

        def kill(*_: object) -> None:
            # Counted before: of a master that dies the children belong to nobody for a moment.
            family.update(processes.descendants(instance.pid))
            _kill(instance.pid)

        _reload_and(instance, board, kill)
        people.wait(lambda: not people.living, "everybody to be closed", 40)
        processes.until(
            lambda: not any(processes.alive(pid) for pid in family), 40, "the orphans to end"
        )
        found = board.snapshot().total
    assert people.codes == {SERVICE_RESTART: _CLIENTS}
    assert (found.accepted, found.closed, found.active) == (_CLIENTS, _CLIENTS, 0)
    assert found.closed_by_reason["worker_died"] == 0
    instance.process.wait()


@_MANY
@pytest.mark.parametrize("style", ["task", "event"] if _FAULTS > 1 else ["event"])
def test_the_service_stops(start: Start, style: str) -> None:
    """When the service is stopped in the middle of a handoff, everybody is told 1001, and counted
    once, wherever the connection was; the application is told of each end once.
    """
    for number in range(-(-_FAULTS // 2)):
        _stop(_heavy(start, _STYLES[style], f"test{number}"))


def _stop(instance: Instance) -> None:
    instance.running()
    (instance.home / "journal").unlink(missing_ok=True)
    with (
        _scoreboard(instance) as board,
        Oracle(instance.address(), _KINDS, may_end=True) as people,
    ):
        people.go_on(1)
        _reload_and(instance, board, lambda *_: instance.signal(signal.SIGTERM))
        people.wait(lambda: not people.living, "everybody to be closed", 40)
        assert instance.exited() == 0, instance.logged()
        found = board.snapshot().total
    assert people.codes == {GOING_AWAY: _CLIENTS}
    assert (found.accepted, found.closed, found.active) == (_CLIENTS, _CLIENTS, 0)
    assert found.closed_by_reason["stop"] == _CLIENTS
    for notes in journal(instance).values():
        told = [note.what for note in notes]
        assert told[:1] + told[-1:] == ["connect", "disconnect"]
        assert told[1:-1] == ["suspend", "resume"] * (len(told[1:-1]) // 2)


@_MANY
def test_a_zygote_is_killed(start: Start) -> None:
    """Killing the zygote of either generation costs nobody anything, and the reload succeeds."""
    instance = _heavy(start)
    instance.running()
    before = accounts(instance)
    earlier = 0
    for number in range(max(2, _FAULTS)):
        with (
            _scoreboard(instance) as board,
            Oracle(instance.address(), _KINDS) as people,
        ):
            people.go_on(1)
            _reload_and(
                instance,
                board,
                lambda *_, last=number % 2: _kill(sorted(_zygotes(instance))[last]),
            )
            _comes_to_rest(instance)
            assert instance.status()["last_reload"]["outcome"] == "done"
            _assert_once(instance, people)
            generation = instance.status()["generation"]
            assert generation >= number + 2
            assert {client.generation for client in people.living} == {generation}
            exact(instance, people, earlier)
            people.finish()
        earlier += _CLIENTS
        nothing_left(instance, before)


def _zygotes(instance: Instance) -> list[int]:
    return [p for p in processes.children(instance.pid) if "zygote" in processes.title(p)]
