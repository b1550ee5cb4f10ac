"""Which worker is to be ended because its loop stands still."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wssup.supervisor.watch import hung


def ask(*ages: float) -> int | None:
    return hung(dict(enumerate(ages)), stall_after=2, hang_after=30)


def test_nobody_hangs() -> None:
    """Without workers, and with workers that turn or merely stall, nobody is ended."""
    assert ask() is None
    assert ask(0, 1) is None
    assert ask(0, 0, 3) is None
    assert ask(0, 0, 30) is None


def test_the_only_worker_may_be_ended() -> None:
    """One stalled worker is not the machine's fault, also when it is the only one."""
    assert ask(31) == 0


def test_one_at_a_time() -> None:
    """Of two that hang the one that hangs longest is ended first."""
    assert ask(0, 40, 0, 50, 0) == 3


def test_when_half_of_them_stall_the_machine_is_the_problem() -> None:
    """While several workers, at least half of all, stall, none is ended."""
    assert ask(40, 3) is None
    assert ask(40, 3, 0, 0) is None
    assert ask(40, 3, 0, 0, 0) == 0


@given(st.dictionaries(st.integers(1, 99), st.floats(0, 100), max_size=12))
def test_who_is_ended_hangs(ages: dict[int, float]) -> None:
    """Whoever is chosen has not turned for longer than hang_after, nobody for longer, and fewer
    than half of the workers stall (or it is the only one that does); a lone one is always chosen.
    """
    victim = hung(ages, stall_after=2, hang_after=30)
    stalled = [age for age in ages.values() if age > 2]
    if victim is not None:
        assert ages[victim] == max(ages.values()) > 30
        assert len(stalled) == 1 or 2 * len(stalled) < len(ages)
    elif ages and max(ages.values()) > 30:
        assert len(stalled) > 1
