"""The timer wheel: what comes up when, however it was entered."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wssup.server.wheel import Wheel

_DAY = 86_400.0
#: Moments as the monotonic clock gives them, also some that lie on a tick as nearly as floats can.
moments = st.one_of(
    st.floats(0, 400 * _DAY),
    st.floats(0, 10),
    st.integers(0, 10**9).map(lambda count: count * 0.05),
    st.integers(0, 10**9).map(lambda count: math.nextafter(count * 0.05, math.inf)),
    st.integers(1, 10**9).map(lambda count: math.nextafter(count * 0.05, 0)),
)
ticks = st.sampled_from([0.05, 0.0625, 0.1, 1.0, 1 / 3])


def entered(wheel: Wheel, fd: int, when: float) -> bool:
    return wheel.enter(fd, wheel.tick_of(when))


def test_an_empty_wheel() -> None:
    """With nothing entered nothing is due, at no time."""
    wheel = Wheel()
    assert wheel.due == math.inf
    assert wheel.take(1e9) == []


def test_who_must_set_the_timer() -> None:
    """Only an entry that makes a new first bucket says that the timer must be set."""
    wheel = Wheel(1.0)
    assert wheel.enter(1, 5)
    assert wheel.due == 5.0
    assert not wheel.enter(2, 5)
    assert not wheel.enter(3, 6)
    assert wheel.enter(4, 3)
    assert wheel.due == 3.0
    assert not wheel.enter(5, 4)
    assert not wheel.enter(6, 3)


def test_buckets_come_oldest_first() -> None:
    """What is due comes by tick, and within a tick as it was entered; what is not due stays."""
    wheel = Wheel(1.0)
    for fd, tick in enumerate((7, 3, 9, 3, 7, 1)):
        wheel.enter(fd, tick)
    assert wheel.take(0.99) == []
    assert wheel.take(7.0) == [(1, [5]), (3, [1, 3]), (7, [0, 4])]
    assert wheel.due == 9.0
    assert wheel.take(8.99) == []
    assert wheel.take(1e9) == [(9, [2])]
    assert wheel.due == math.inf


def test_a_bucket_can_come_again() -> None:
    """After a bucket was taken its tick, or an earlier one, can be entered again; a descriptor may
    stand in several buckets, and twice in one: its owner knows which entry counts.
    """
    wheel = Wheel(1.0)
    wheel.enter(1, 5)
    assert wheel.take(5.0) == [(5, [1])]
    assert wheel.enter(1, 5)
    assert wheel.enter(1, 2)
    assert not wheel.enter(1, 2)
    assert wheel.take(5.0) == [(2, [1, 1]), (5, [1])]
    assert wheel.take(5.0) == []


@pytest.mark.parametrize(("when", "tick"), [(0.0, 0), (0.01, 1), (1.0, 1), (1.01, 2), (99.5, 100)])
def test_the_tick_of_a_moment(when: float, tick: int) -> None:
    """A moment on a tick has that one, any other the next."""
    assert Wheel(1.0).tick_of(when) == tick


@settings(max_examples=300, deadline=None)
@given(moments, ticks)
@example(16248.000000000002, 0.05)
def test_never_early(when: float, tick: float) -> None:
    """A deadline is not met before it has come, not even by the last bit of a float: who is woken
    then finds that it has.
    """
    wheel = Wheel(tick)
    entered(wheel, 1, when)
    assert wheel.due >= when
    assert wheel.take(math.nextafter(when, -math.inf)) == []


@settings(max_examples=300, deadline=None)
@given(moments, ticks)
def test_late_by_a_tick_at_most(when: float, tick: float) -> None:
    """A deadline is met within a tick, but for what a float cannot tell."""
    wheel = Wheel(tick)
    entered(wheel, 1, when)
    latest = when + tick + 4 * math.ulp(when + tick)
    assert wheel.due <= latest
    assert wheel.take(latest) == [(wheel.tick_of(when), [1])]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.just("enter"), st.integers(0, 9), st.floats(0, 3))
        | st.tuples(st.just("take"), st.just(0), st.floats(0, 1)),
        max_size=60,
    ),
    ticks,
)
def test_like_a_sorted_list(steps: list[tuple[str, int, float]], tick: float) -> None:
    """Whatever is entered and taken while time goes on, a wheel does what a list would that is
    sorted by tick: nothing is lost, nothing comes twice, and `due` is its first.
    """
    wheel, now = Wheel(tick), 1000.0
    entries: list[tuple[int, int]] = []
    for step, fd, seconds in steps:
        if step == "enter":
            at = wheel.tick_of(now + seconds)
            first = all(at < other for other, _ in entries)
            assert wheel.enter(fd, at) is first
            entries.append((at, fd))
            # Sorting is stable: what was entered first stays first.
            entries.sort(key=lambda entry: entry[0])
        else:
            now += seconds
            found = [(at, fd) for at, bucket in wheel.take(now) for fd in bucket]
            count = len(found)
            assert found == entries[:count]
            assert all(at * tick > now for at, _ in entries[count:])
            assert all(at * tick <= now for at, _ in found)
            entries = entries[count:]
        assert wheel.due == (entries[0][0] * tick if entries else math.inf)
