"""New code that cannot go on with the old connections: they go back, and hardly any is closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.harness.clients import SERVICE_RESTART
from tests.harness.instance import Instance
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import ASYNC, EVENT, TASK
from tests.harness.oracle_client import QUIET, mixed
from tests.harness.oracle_run import ended, exact, journal, nothing_left, reload, same
from tests.harness.oracle_sockets import accounts, counts, family, holders, inodes

Start = Callable[..., Instance]

_QUIET = 300
_RAISES = '        raise LookupError("a key that the old code does not write")\n'
#: The new code of each style: it cannot resume anything.
_BROKEN = {
    "event": (EVENT, '        note("resume", ws)\n', _RAISES),
    "async": (ASYNC, '        note("resume", ws)\n', _RAISES),
    "task": (TASK, '    if not ws.resumed:\n        ws.state["answers"] = 0\n', ""),
}
_BROKEN["task"] = (*_BROKEN["task"][:2], _BROKEN["task"][1] + "    else:\n" + _RAISES)


@pytest.mark.parametrize("style", _BROKEN)
def test_new_code_that_resumes_nothing(start: Start, style: str) -> None:
    """The reload is rolled back; at most the limit's share of the connections was closed, with
    1012; all others go on in their old workers as if nothing had been. The error is told once, with
    the application's own traceback.
    """
    application, old, new = _BROKEN[style]
    limit = 0.05
    instance = start(application, settle=0.1, resume_failure_limit=limit)
    instance.running()
    workers, before = instance.workers(), accounts(instance)
    kinds = [QUIET] * _QUIET + mixed(30)
    with Oracle(instance.address(), kinds, may_end=True) as people:
        people.go_on()
        sockets = inodes(people.server_port, people.ports)
        instance.edit(old, new)
        told = reload(instance, "rolled_back")
        assert "resume" in told
        people.go_on()
        found = exact(instance, people)
        closed = len(kinds) - len(people.living)
        # Of each worker at least one may fail, however few it has.
        assert 1 <= closed <= limit * len(kinds) + len(workers)
        assert people.codes == {SERVICE_RESTART: closed}
        assert found.handoff_refused_by_reason["resume_failed"] == closed
        _assert_at_home(instance, people, workers, sockets)
        people.finish()
    nothing_left(instance, before)
    failures = [e for e in instance.entries() if "LookupError" in str(e.get("exception"))]
    assert 1 <= len({entry["pid"] for entry in failures}) == len(failures) <= 2
    assert "a key that the old code" in failures[0]["exception"]
    assert "/wssup/server/" not in failures[0]["exception"]


def _assert_at_home(
    instance: Instance, people: Oracle, workers: dict[int, int], sockets: dict[int, str]
) -> None:
    """All that live are in their old workers, and only there."""
    assert instance.workers() == workers
    pids = set(workers.values())
    assert {client.generation for client in people.living} == {1}
    assert {client.pid for client in people.living} <= pids
    same(people, sockets)
    held = holders(family(instance), [sockets[port] for port in people.ports])
    assert all(len(found) == 1 and found <= pids for found in held.values())


#: New code that cannot resume those that have had three answers.
_PICKY = (
    '        note("resume", ws)\n',
    '        if ws.state["answers"] == 3:\n    ' + _RAISES + '        note("resume", ws)\n',
)


def _with_some_picked(instance: Instance, people: Oracle) -> list[int]:
    """Every tenth client has had three answers, the others two; the ids of the former's."""
    people.go_on()
    picked = people.clients[::10]
    for client in picked:
        client.wanted += 1
    people.wait(lambda: all(client.answered == 3 for client in picked), "a third answer")
    instance.edit(*_PICKY)
    return [client.number for client in picked]


def test_what_has_moved_comes_back(start: Start) -> None:
    """When one connection in ten cannot be resumed, the others that have moved meanwhile are handed
    back: suspended by the new code and resumed by the old, with what the new one wrote into their
    state.
    """
    instance = start(EVENT, settle=0.1, resume_failure_limit=0.02)
    instance.running()
    workers, before = instance.workers(), accounts(instance)
    with Oracle(instance.address(), [QUIET] * _QUIET, may_end=True) as people:
        picked = _with_some_picked(instance, people)
        sockets = inodes(people.server_port, people.ports)
        reload(instance, "rolled_back")
        people.go_on()
        closed = [client.number for client in people.clients if client.ended]
        assert set(closed) <= set(picked)
        assert 1 <= len(closed) <= 0.02 * _QUIET
        _assert_at_home(instance, people, workers, sockets)
        found = exact(instance, people)
        back = _assert_told(instance)
        assert back >= 1
        assert found.moved_in == found.moved_out == 2 * back + len(closed)
        people.finish()
    nothing_left(instance, before)


def _assert_told(instance: Instance) -> int:
    """Who was away was suspended and resumed twice; who was not, once at most. How many were."""
    back = 0
    for notes in journal(instance).values():
        told = [(note.what, note.generation) for note in notes]
        there = ("connect", 1), ("suspend", 1)
        if ("resume", 2) in told:
            back += 1
            assert told == [*there, ("resume", 2), ("suspend", 2), ("resume", 1)]
            assert notes[0].pid == notes[-1].pid
        else:
            # It may have been on its way when the decision came; or its resume has raised.
            assert told in ([there[0]], [*there, ("resume", 1)], [*there, ("disconnect", 2)])
    return back


def test_some_may_fail(start: Start) -> None:
    """Fewer failures than resume_failure_limit: the reload is done, those alone are closed, with
    1012, and counted.
    """
    instance = start(EVENT, settle=0.1, resume_failure_limit=0.2)
    instance.running()
    with Oracle(instance.address(), [QUIET] * _QUIET, may_end=True) as people:
        picked = _with_some_picked(instance, people)
        reload(instance)
        people.go_on()
        assert [client.number for client in people.clients if client.ended] == picked
        assert people.codes == {SERVICE_RESTART: len(picked)}
        assert Counter(client.generation for client in people.living) == {2: _QUIET - len(picked)}
        found = exact(instance, people)
        assert found.handoff_refused_by_reason["resume_failed"] == len(picked)
        people.finish()
    _assert_gone(instance, len(picked))


def _assert_gone(instance: Instance, closed: int) -> None:
    """Each of those that failed is one close, and none counts as the application's."""
    found = ended(counts(instance))
    assert found.pop("not: resume_failed") == closed
    assert found.pop("client") == _QUIET - closed
    assert sum(found.values()) == closed
