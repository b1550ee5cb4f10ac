"""How many are let in: the token bucket, and the parts of slots, for any course of events."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.config.capacity import capacity, parts, worker_limits
from wssup.server.rate import TokenBucket

FEW = settings(max_examples=50, deadline=None)
SECONDS = st.floats(0, 5, allow_nan=False)


@FEW
@given(st.floats(0.1, 50), st.lists(st.tuples(SECONDS, st.integers(0, 60)), max_size=30))
def test_a_bucket_gives_no_more_than_its_rate(
    rate: float, arrivals: list[tuple[float, int]]
) -> None:
    """From any moment to any later one no more happen than a burst and what the rate allows."""
    now = 1000.0
    bucket = TokenBucket(rate, now)
    happened: list[float] = []
    for pause, comers in arrivals:
        now += pause
        for _ in range(comers):
            if not bucket.wait(now):
                bucket.take()
                happened.append(now)
    for first, begin in enumerate(happened):
        for last in range(first, len(happened)):
            allowed = bucket.burst + rate * (happened[last] - begin)
            assert last - first + 1 <= allowed + 1e-6


@FEW
@given(st.floats(0.1, 5000), st.integers(1, 40))
def test_who_waits_as_long_as_told_is_let_in(rate: float, comers: int) -> None:
    """After the seconds that a bucket names the next one may happen, so nobody spins; and not one
    is kept waiting longer than the rate asks for.
    """
    now = 12345.678
    bucket = TokenBucket(rate, now)
    began = now
    for _ in range(comers):
        wait = bucket.wait(now)
        if wait:
            now += wait * (1 + 1e-9)
            assert bucket.wait(now) < 1e-6
            now += bucket.wait(now)
        bucket.take()
    assert now - began <= max(0.0, comers - bucket.burst) / rate + 1e-3


@FEW
@given(st.floats(0.1, 50), st.floats(0.1, 50), st.integers(0, 100))
def test_another_rate_gives_no_second_burst(before: float, after: float, comers: int) -> None:
    """When limits change a bucket that was emptied stays empty; a clock that goes back adds
    nothing.
    """
    bucket = TokenBucket(before, 100.0)
    while not bucket.wait(100.0):
        bucket.take()
    bucket.change(after, 100.0)
    assert bucket.wait(100.0) > 0
    assert bucket.wait(50.0) > 0
    bucket.change(0, 100.0)
    for _ in range(comers):
        assert bucket.wait(100.0) == 0
        bucket.take()


@FEW
@given(st.integers(0, 20), st.integers(0, 500), st.integers(0, 100), st.integers(0, 3000))
def test_the_parts_are_the_whole(workers: int, descriptors: int, each: int, total: int) -> None:
    """Parts differ by one at most, none is more than any limit, and they add up to the capacity:
    to max_connections itself where there is room for it.
    """
    found = worker_limits(workers, descriptors=descriptors, per_worker=each, total=total)
    assert len(found) == workers
    if not found:
        assert capacity(0, descriptors=descriptors, per_worker=each, total=total) == 0
        return
    assert max(found) - min(found) <= 1
    most = min(descriptors, each or descriptors)
    assert max(found) <= most
    fits = capacity(workers, descriptors=descriptors, per_worker=each, total=total)
    assert sum(found) == fits
    assert fits == min(workers * most, total or workers * most) or fits <= total


@st.composite
def scenes(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, list[int], list[int]]]]:
    """A total, a limit of each, and steps: slots in service, what changes in each slot, and how
    many it turns away at the moment.
    """
    changes = st.lists(st.integers(-60, 60), min_size=5, max_size=5)
    refused = st.lists(st.integers(0, 16), min_size=5, max_size=5)
    step = st.tuples(st.integers(1, 5), changes, refused)
    return draw(st.integers(1, 200)), draw(st.integers(1, 100)), draw(st.lists(step, max_size=20))


@FEW
@given(scenes())
def test_scaling_never_lets_in_more_than_the_whole(
    scene: tuple[int, int, list[tuple[int, list[int], list[int]]]],
) -> None:
    """However slots come and go and clients with them, as long as no worker lets in more than it
    was told there are never more than the total. When nothing changes any more and nobody has more
    than its part, each is told its even part.
    """
    total, each, steps = scene
    taken: dict[int, int] = {}
    told: dict[int, int] = {}
    count = 1
    for count, changes, refused in steps:
        told = {slot: part for slot, part in told.items() if slot < count}
        sockets = {slot: taken.get(slot, 0) + refused[slot] for slot in range(5)}
        told = parts(range(count), each=each, total=total, taken=sockets, held=taken, told=told)
        assert all(part <= each for part in told.values())
        for slot, change in enumerate(changes):
            has = taken.get(slot, 0)
            room = max(has, told.get(slot, 0))
            taken[slot] = max(0, min(room, has + change))
        assert sum(taken.values()) <= total
        assert sum(max(taken.get(s, 0), told.get(s, 0)) for s in {*taken, *told}) <= total
    even = worker_limits(count, descriptors=each, total=total)
    taken = {slot: min(taken.get(slot, 0), even[slot]) for slot in range(count)}
    told = {slot: part for slot, part in told.items() if slot < count}
    for _ in range(2):
        told = parts(range(count), each=each, total=total, taken=taken, held=taken, told=told)
    assert told == dict(enumerate(even))
