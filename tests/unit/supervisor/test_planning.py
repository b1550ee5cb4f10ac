"""Which connections move where, decided from counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.supervisor.planning import UNLIMITED, Shift, budget, common, plan, spread

loads = st.dictionaries(st.integers(1, 99), st.integers(0, 10_000), max_size=12)
versions = st.tuples(st.integers(0, 5), st.integers(0, 5))


@pytest.mark.parametrize(
    ("a", "b", "version"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (2, 5), 3),
        ((2, 5), (1, 3), 3),
        ((1, 2), (3, 4), 0),
        ((0, 0), (1, 1), 0),
        ((0, 0), (0, 0), 0),
    ],
)
def test_the_common_version(a: tuple[int, int], b: tuple[int, int], version: int) -> None:
    """Two workers speak the highest version that both know; where there is none it is 0."""
    assert common(a, b) == version


@given(versions, versions)
def test_the_common_version_is_known_to_both(a: tuple[int, int], b: tuple[int, int]) -> None:
    """Whatever two workers know: the version is in both ranges and no higher one is; it is the same
    from either side.
    """
    version = common(a, b)
    both = set(range(a[0], a[1] + 1)) & set(range(b[0], b[1] + 1))
    assert version == max(both, default=0)
    assert version == common(b, a)


def test_the_budget_of_failures() -> None:
    """A share of the connections, rounded down; also where the float falls just short of it."""
    assert budget(0.01, 1000) == 10
    assert budget(0.01, 199) == 1
    assert budget(0.01, 99) == 0
    assert budget(0.29, 100) == 29
    assert budget(1, 7) == 7
    assert budget(0, 10**6) == 0


def test_even_loads_stay() -> None:
    """Nothing moves where nobody has two more than another one, nor without workers."""
    assert plan({}) == []
    assert plan({1: 7}) == []
    assert plan({1: 3, 2: 4, 3: 3}) == []


def test_a_new_worker_gets_its_share() -> None:
    """An empty worker gets as many from each as there are too many."""
    assert sorted(plan({1: 50, 2: 50, 3: 0})) == [Shift(1, 3, 16), Shift(2, 3, 17)]


@given(loads)
def test_a_plan_evens_out(before: dict[int, int]) -> None:
    """Whatever the loads: after the moves they differ by one at most and nobody has lost a
    connection; no worker both gives and takes, as few connections move as that needs, and there are
    fewer sessions than workers.
    """
    after = dict(before)
    shifts = plan(before)
    for sender, receiver, count in shifts:
        assert count > 0
        after[sender] -= count
        after[receiver] += count
    assert sum(after.values()) == sum(before.values())
    if after:
        assert max(after.values()) - min(after.values()) <= 1
        assert len(shifts) < len(before)
        floor, more = divmod(sum(before.values()), len(before))
        needed = sum(max(0, n - floor) for n in before.values())
        # Those that have more than the rest anyway keep what does not divide.
        kept = min(more, sum(n > floor for n in before.values()))
        assert sum(s.connections for s in shifts) == max(needed - kept, 0)
    assert not {s.sender for s in shifts} & {s.receiver for s in shifts}


@given(st.integers(0, 20_000), loads)
def test_a_spread_fills_the_emptiest(count: int, before: dict[int, int]) -> None:
    """All of a leaving worker's connections are given out, and none to a worker that has more than
    another one has afterwards.
    """
    shares = spread(count, before)
    if not before:
        assert shares == {}
        return
    assert sum(shares.values()) == count
    assert all(share > 0 for share in shares.values())
    after = {worker: n + shares.get(worker, 0) for worker, n in before.items()}
    for worker in shares:
        assert after[worker] <= min(after.values()) + 1
    assert list(shares) == sorted(shares, key=lambda w: (before[w], w))


def test_nobody_reaches_the_unlimited_budget() -> None:
    """More connections than a process can have descriptors."""
    assert UNLIMITED > 1_073_741_816  # the kernel's own limit of fs.nr_open
