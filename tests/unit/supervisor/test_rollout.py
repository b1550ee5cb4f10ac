"""The rollout's decisions in plain courses; random ones are in tests/property."""

from __future__ import annotations

import pytest

from wssup.supervisor.rollout import (
    Commit,
    ErrorRate,
    Move,
    Phase,
    Replace,
    RollBack,
    Rollout,
    Settle,
)

QUIET = ErrorRate(0, 0)


def settling(old: ErrorRate, new: ErrorRate) -> list[object]:
    """What one look in the middle of settling decides."""
    rollout = Rollout([0], surge=1, settle=5)
    rollout.begin(0)
    assert rollout.ready(0, 0) == [Settle(5)]
    return list(rollout.tick(1, old, new))


def test_a_good_rollout() -> None:
    """All slots are replaced, settle from when the last is ready, and are committed after that."""
    rollout = Rollout([2, 0, 1], surge=3, settle=5)
    assert rollout.begin(100) == [Replace(0), Replace(1), Replace(2)]
    assert rollout.ready(1, 101) == []
    assert rollout.ready(0, 102) == []
    assert rollout.tick(500, QUIET, QUIET) == []
    assert rollout.phase is Phase.STARTING
    assert rollout.ready(2, 600) == [Settle(605)]
    assert rollout.phase is Phase.SETTLING
    assert rollout.tick(604.9, QUIET, QUIET) == []
    assert rollout.tick(605, QUIET, QUIET) == [Commit()]
    assert rollout.phase is Phase.COMMITTED
    assert rollout.tick(606, QUIET, ErrorRate(1, 1)) == []
    assert rollout.lost(0, "died") == []
    assert rollout.phase is Phase.COMMITTED


def test_surge_bounds_how_many_boot() -> None:
    """With a surge of 2 the third slot waits until one of the first two is ready."""
    rollout = Rollout(range(4), surge=2, settle=0)
    assert rollout.begin(0) == [Replace(0), Replace(1)]
    assert rollout.ready(1, 1) == [Replace(2)]
    assert rollout.ready(0, 2) == [Replace(3)]
    assert rollout.ready(3, 3) == []
    assert rollout.ready(2, 4) == [Settle(4)]


def test_a_surge_of_none_is_one() -> None:
    """A rollout always makes progress, whatever the surge."""
    assert Rollout([0, 1], surge=0, settle=0).begin(0) == [Replace(0)]


def test_nothing_to_replace_settles_at_once() -> None:
    """Without slots there is nobody to wait for."""
    assert Rollout([], surge=1, settle=3).begin(4) == [Settle(7)]


@pytest.mark.parametrize("when", ["booting", "ready", "settling"])
def test_a_lost_successor_rolls_back(when: str) -> None:
    """A successor that is lost before the commit, booting or ready, rolls everything back; the
    reason names its slot; what is heard later changes nothing.
    """
    rollout = Rollout([0, 1], surge=2, settle=5)
    rollout.begin(0)
    if when != "booting":
        rollout.ready(1, 1)
    if when == "settling":
        rollout.ready(0, 1)
    assert rollout.lost(1, "killed by SIGKILL") == [RollBack("slot 1: killed by SIGKILL")]
    assert rollout.phase is Phase.ROLLED_BACK
    assert rollout.lost(0, "killed, too") == []
    assert rollout.ready(0, 2) == []
    assert rollout.tick(99, QUIET, QUIET) == []
    assert rollout.phase is Phase.ROLLED_BACK


def test_strangers_are_not_heard() -> None:
    """A slot that is not being replaced neither advances the rollout nor ends it."""
    rollout = Rollout([0, 1], surge=1, settle=5)
    rollout.begin(0)
    for stranger in (1, 7):
        assert rollout.ready(stranger, 1) == []
        assert rollout.lost(stranger, "died") == []
    assert rollout.phase is Phase.STARTING


@pytest.mark.parametrize(
    ("old", "new", "tolerated"),
    [
        (ErrorRate(0, 0), ErrorRate(1000, 0), True),
        (ErrorRate(0, 0), ErrorRate(1, 1), False),
        (ErrorRate(1_000_000, 0), ErrorRate(1_000_000, 1), False),
        # One in a hundred: of 10 000 runs 100 are expected, 30 more are chance, more are not.
        (ErrorRate(1000, 10), ErrorRate(10_000, 100), True),
        (ErrorRate(1000, 10), ErrorRate(10_000, 130), True),
        (ErrorRate(1000, 10), ErrorRate(10_000, 131), False),
        (ErrorRate(10, 10), ErrorRate(500, 500), True),
    ],
)
def test_errors_of_handlers(old: ErrorRate, new: ErrorRate, *, tolerated: bool) -> None:
    """While it settles, new code may raise as often as the old did and by chance a little more;
    an old generation that never raised tolerates nothing.
    """
    decisions = settling(old, new)
    if tolerated:
        assert decisions == []
    else:
        assert len(decisions) == 1
        assert isinstance(decisions[0], RollBack)
        assert f"raised {new.errors} times in {new.runs} runs" in decisions[0].reason


def test_errors_at_the_last_moment_count() -> None:
    """The look that would commit rolls back if there are errors in it."""
    rollout = Rollout([0], surge=1, settle=5)
    rollout.begin(0)
    rollout.ready(0, 0)
    (decision,) = rollout.tick(5, QUIET, ErrorRate(3, 1))
    assert isinstance(decision, RollBack)


def moving(slots: int = 2) -> Rollout:
    """A rollout that settled at 5 and may move until 35."""
    rollout = Rollout(range(slots), surge=slots, settle=5, moving=30)
    rollout.begin(0)
    for slot in range(slots):
        rollout.ready(slot, 0)
    assert rollout.tick(5, QUIET, QUIET) == [Move(tuple(range(slots)), 35)]
    assert rollout.phase is Phase.MOVING
    return rollout


def test_connections_move_before_the_commit() -> None:
    """With handoff, settling is followed by moving, and the commit by the last slot's sweep; a
    slot that sweeps twice counts once.
    """
    rollout = moving()
    assert rollout.swept(1) == []
    assert rollout.swept(1) == []
    assert rollout.swept(7) == []
    assert rollout.tick(34.9, QUIET, QUIET) == []
    assert rollout.swept(0) == [Commit()]
    assert rollout.phase is Phase.COMMITTED
    assert rollout.swept(0) == []
    assert rollout.unresumable(0, "too late") == []


def test_moving_has_a_deadline() -> None:
    """When it passes the rollout commits, whoever has not been looked at."""
    rollout = moving()
    assert rollout.tick(35, QUIET, QUIET) == [Commit()]


def test_each_connection_that_moves_puts_the_deadline_off() -> None:
    """Only a standstill ends the moving: as long as connections move it goes on, however many had
    moved before.
    """
    rollout = Rollout([0], surge=1, settle=5, moving=30)
    rollout.begin(0)
    rollout.ready(0, 0)
    assert rollout.tick(5, QUIET, QUIET, 1000) == [Move((0,), 35)]
    assert rollout.tick(34, QUIET, QUIET, 1001) == []
    assert rollout.tick(63.9, QUIET, QUIET, 1001) == []
    assert rollout.tick(64, QUIET, QUIET, 1002) == []
    assert rollout.tick(93.9, QUIET, QUIET, 1002) == []
    assert rollout.tick(94, QUIET, QUIET, 1002) == [Commit()]


def test_nothing_moves_where_nobody_was_replaced() -> None:
    """Without slots there is no old worker to move from."""
    rollout = Rollout([], surge=1, settle=0, moving=30)
    rollout.begin(0)
    assert rollout.tick(0, QUIET, QUIET) == [Commit()]


@pytest.mark.parametrize("what", ["lost", "unresumable"])
def test_failures_while_connections_move_roll_back(what: str) -> None:
    """A successor that is lost, or in which too many connections cannot resume, rolls back also
    when other slots are swept already.
    """
    rollout = moving()
    rollout.swept(1)
    assert getattr(rollout, what)(1, "it broke") == [RollBack("slot 1: it broke")]
    assert rollout.phase is Phase.ROLLED_BACK
    assert rollout.swept(0) == []
    assert rollout.tick(99, QUIET, QUIET) == []


def test_resumes_fail_only_while_connections_move() -> None:
    """What is said of resumes at another time is about another rollout's connections."""
    rollout = Rollout([0], surge=1, settle=5, moving=30)
    rollout.begin(0)
    assert rollout.unresumable(0, "early") == []
    rollout.ready(0, 0)
    assert rollout.unresumable(0, "early") == []
    assert rollout.phase is Phase.SETTLING


def test_errors_are_judged_in_settling_alone() -> None:
    """Handlers that raise for connections that have just moved are no reason: failed resumes have a
    limit of their own.
    """
    assert moving().tick(6, QUIET, ErrorRate(100, 100)) == []


def test_a_rollout_can_be_cancelled_until_it_has_committed() -> None:
    """Cancelling rolls back from every open phase, and does nothing after the end."""
    starting = Rollout([0], surge=1, settle=5)
    starting.begin(0)
    for rollout in (starting, moving()):
        assert rollout.cancel("no more") == [RollBack("no more")]
        assert rollout.cancel("no more") == []
    done = moving(1)
    assert done.swept(0) == [Commit()]
    assert done.cancel("no more") == []
