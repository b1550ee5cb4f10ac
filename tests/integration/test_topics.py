"""Topics through everything that may happen to workers: each message reaches each subscriber once,
and in order.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.oracle_run import reload
from tests.harness.oracle_sockets import counts
from tests.harness.topics_apps import EVENT, STYLES
from tests.harness.topics_client import Kind
from tests.harness.topics_oracle import TopicsOracle
from tests.harness.topics_run import cut_off, kill, rests, right, rows

Start = Callable[..., Instance]

#: How many rounds of everything the clients live through; `make soak` has them live through ten.
_ROUNDS = int(os.environ.get("WSSUP_RELOADS", "0")) // 5
#: How often a worker is killed in the middle of a reload; in `make soak` each of both ten times.
_FAULTS = int(os.environ.get("WSSUP_FAULTS", "1"))
_WORKERS = 4
_ROOMS = ("red", "green", "blue")
#: Publishers, subscribers, and who is both and does not hear itself.
_KINDS = [
    *10 * [Kind("tells", tells=_ROOMS)],
    *4 * [Kind("chats", hears=_ROOMS[:2], tells=_ROOMS[:1])],
    *24 * [Kind("hears", hears=_ROOMS)],
    *4 * [Kind("passes", hears=_ROOMS[:1], passing=True)],
]
#: Who asks for what was missed.
_RETURNING = [
    *16 * [Kind("returns", hears=_ROOMS, positions=True)],
    *4 * [Kind("comes and goes", hears=_ROOMS[1:], positions=True, passing=True)],
]
_HISTORY = 10_000
#: Seconds for a worker whose connections move. Who moves waits for all workers to have worked down
#: what they have to deliver, which these clients see to it is a lot: on a machine that is busy
#: otherwise, for longer than the harness' 10 s.
_DRAIN = 60


def _reloads(instance: Instance, people: TopicsOracle) -> None:
    reload(instance)
    people.go_on(2)


def _crashes(instance: Instance, people: TopicsOracle) -> None:
    kill(instance, people, random.randrange(_WORKERS))
    people.go_on(2)


def _grows(instance: Instance, people: TopicsOracle) -> None:
    _scale(instance, _WORKERS + 2)
    people.go_on(2)


def _evens_out(instance: Instance, people: TopicsOracle) -> None:
    assert instance.run("rebalance").returncode == 0
    people.go_on(2)


def _shrinks(instance: Instance, people: TopicsOracle) -> None:
    _scale(instance, _WORKERS)
    people.go_on(2)


def _scale(instance: Instance, workers: int) -> None:
    assert instance.run("scale", str(workers)).returncode == 0
    rests(instance, workers)


_EVENTS = [_reloads, _crashes, _grows, _evens_out, _shrinks]
#: Style, history, what happens. All of it to all of them takes long.
_SHORT = [("event", 0, _EVENTS[:1]), ("task", _HISTORY, _EVENTS[1:])]
_LONG = [(style, history, _EVENTS * _ROUNDS) for style in STYLES for history in (0, _HISTORY)]


@pytest.mark.timeout(150 + 50 * _ROUNDS)
@pytest.mark.parametrize(("style", "history", "events"), _LONG if _ROUNDS else _SHORT)
def test_everybody_hears_everything(
    start: Start,
    style: str,
    history: int,
    events: list[Callable[[Instance, TopicsOracle], None]],
) -> None:
    """Many publish to topics that many hear, spread over four workers, through reloads,
    rebalancing, kill -9 of a worker, and changes of scale. Whose connection lives hears each
    message once, and in order of publisher and topic; with a history so does who was cut off and
    comes again. Nothing but the last messages published in a killed worker may be missing. In the
    end every worker knows the right numbers of subscribers, and who they are.
    """
    instance = start(
        STYLES[style],
        workers=_WORKERS,
        max_workers=8,
        settle=0.1,
        drain_timeout=_DRAIN,
        topics={"history": history},
    )
    instance.running()
    with TopicsOracle(instance.address(), _KINDS + (_RETURNING if history else [])) as people:
        # It takes a moment until the workers know of each other's subscribers.
        right(instance, people, _WORKERS)
        people.speak()
        people.go_on()
        workers = set(instance.workers().values())
        people.wait(lambda: set(people.pids) >= workers, "answers of all workers")
        for happens in events:
            happens(instance, people)
        _all_is_well(instance, people)


@pytest.mark.timeout(120 + 30 * _FAULTS)
@pytest.mark.parametrize("victim", ["sender", "receiver"][: None if _ROUNDS else 1])
def test_killed_amid_a_reload(start: Start, victim: str) -> None:
    """Kill -9 of a worker that hands its connections over, or of one that takes them: for whose
    connection lives, and for who comes again, nothing is missing but what the killed one published
    last.
    """
    instance = start(
        EVENT, workers=_WORKERS, settle=0.1, drain_timeout=_DRAIN, topics={"history": _HISTORY}
    )
    instance.running()
    quiet = 300 * [Kind("hears", hears=_ROOMS[2:], positions=True)]
    with TopicsOracle(instance.address(), _KINDS + _RETURNING + quiet) as people:
        right(instance, people, _WORKERS)
        people.speak()
        people.go_on()
        for _ in range(_FAULTS):
            with cut_off(people):
                pid = _amid(instance, victim)
                people.killed.add(pid)
                # A sender may have ended by itself meanwhile, and nobody is cut off.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
                rests(instance, _WORKERS)
                # Who is cut off knows it then.
                people.go_on(2)
        _all_is_well(instance, people)


def _amid(instance: Instance, victim: str) -> int:
    """Reload, until some connections of one worker have moved, but not all; that, or the next."""
    old = {row.slot: row for row in rows(instance)}
    instance.launch("reload", "--no-wait")
    found: list[int] = []

    def moves() -> bool:
        for row in rows(instance):
            before = old.get(row.slot)
            if before and row.serial > before.serial and row.counts.moved_in > 0:
                found[:] = [before.pid if victim == "sender" else row.pid]
        return bool(found)

    processes.until(moves, 60, "connections to move")
    return found[0]


def _all_is_well(instance: Instance, people: TopicsOracle) -> None:
    people.settle()
    right(instance, people, _WORKERS)
    people.end()
    found = counts(instance)
    assert found.handler_errors == 0
    done = found.topics
    assert done.bus_lost == done.bus_missed == done.dropped == done.not_recovered == 0
    # A killed worker may not have counted what it had said in its last turn.
    told = sum((client.recovered for client in people.clients), Counter[int]())
    assert done.recovered >= sum(told[pid] for pid in told if pid not in people.killed)
