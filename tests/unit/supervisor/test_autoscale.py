"""How many workers a load asks for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.config.scaling import Autoscale
from wssup.supervisor.autoscale import Patience, each, wanted


@st.composite
def ranges(draw: st.DrawFn) -> Autoscale:
    least, more = draw(st.integers(1, 50)), draw(st.integers(0, 50))
    return Autoscale(least, least + more, draw(st.integers(1, 10**6)))


loads = st.integers(0, 10**8)


@pytest.mark.parametrize(
    ("connections", "workers", "expected"),
    [
        (0, 1, 1),
        (8, 1, 1),
        (9, 1, 2),
        (16, 1, 2),
        (17, 1, 3),
        (10**6, 1, 4),
        (24, 4, 4),
        (18, 4, 3),
        (19, 4, 4),
        (0, 4, 3),
        (6, 2, 1),
        (7, 2, 2),
        (0, 9, 8),
        (100, 9, 8),
    ],
)
def test_the_steps(connections: int, workers: int, expected: int) -> None:
    """With ten each, more than eight on average ask for as many workers as it takes; one goes if
    the others would have six at most; beyond the bounds there is one fewer, too.
    """
    assert wanted(connections, workers, Autoscale(1, 4, 10), 10) == expected


def test_what_a_worker_carries() -> None:
    """A worker is never to carry more than it may have, and always something."""
    bounds = Autoscale(1, 2, 5000)
    assert [each(bounds, room) for room in (10**6, 900, 0)] == [5000, 900, 1]


@settings(max_examples=50)
@given(loads, ranges(), st.data())
def test_never_beyond_the_bounds(load: int, bounds: Autoscale, data: st.DataObject) -> None:
    """From within the bounds it stays within; growth comes at once, and one at most goes."""
    workers = data.draw(st.integers(bounds.min, bounds.max))
    found = wanted(load, workers, bounds, bounds.connections_per_worker)
    assert bounds.min <= found <= bounds.max
    assert found >= workers - 1
    if found < bounds.max:
        # Nobody is beyond its share at what there will be.
        assert load <= found * bounds.connections_per_worker


@settings(max_examples=50)
@given(loads, loads, ranges(), st.data())
def test_more_load_never_asks_for_fewer(
    one: int, other: int, bounds: Autoscale, data: st.DataObject
) -> None:
    """The number that is wanted grows with the load."""
    workers = data.draw(st.integers(bounds.min, bounds.max))
    low, high = sorted((one, other))
    carries = bounds.connections_per_worker
    assert wanted(low, workers, bounds, carries) <= wanted(high, workers, bounds, carries)


@settings(max_examples=50)
@given(loads, ranges(), st.data())
def test_a_constant_load_never_flaps(load: int, bounds: Autoscale, data: st.DataObject) -> None:
    """With a load that stays, the number only grows or only shrinks, and then stays, too."""
    workers = [data.draw(st.integers(1, 120))]
    while (found := wanted(load, workers[-1], bounds, bounds.connections_per_worker)) != workers[
        -1
    ]:
        workers.append(found)
        assert len(workers) < 130
    inside = [w for w in workers if bounds.min <= w <= bounds.max]
    assert inside in (sorted(inside), sorted(inside, reverse=True))
    assert bounds.min <= workers[-1] <= bounds.max


def test_patience() -> None:
    """It is over when it was so at each look for the whole time; anything else begins it anew."""
    patience = Patience()
    looks = [(0, True), (59, True), (60, True), (61, False), (62, True), (121, True), (122, True)]
    found = [patience.over(now, 60, so=so) for now, so in looks]
    assert found == [False, False, True, False, False, False, True]
    patience.anew()
    assert not patience.over(123, 60, so=True)
    assert Patience().over(5, 0, so=True)
