"""The timetable of a drain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.messages import Drain
from wssup.server.draining import Timetable, farewell, timetable

seconds = st.floats(0, 1e5)


@given(seconds, seconds, seconds)
def test_the_order_of_its_moments(now: float, window: float, timeout: float) -> None:
    """However window and timeout are chosen: who is subscribed has time to move before it goes
    without the others' word, sessions have time after that, and the last close is begun before the
    deadline if the window begins when it should.
    """
    found = timetable(Drain(1012, "", window, timeout), now)
    rounding = 1e-9 * (now + timeout + 1)
    assert now <= found.fences <= found.sweep <= found.deadline + rounding
    assert now - rounding <= found.last <= found.sweep
    assert found.last + found.window <= found.deadline + rounding
    assert found.fences - now >= timeout / 4 - rounding
    assert found.window <= window


@given(seconds, seconds, seconds)
def test_what_was_published_last(now: float, timeout: float, later: float) -> None:
    """Others have half of the timeout at most to read it, and never so long that the worker would
    be killed as it waits for them.
    """
    order = Drain(1012, "", 0.0, timeout)
    found = farewell(order, now, now + later)
    assert 0 <= found <= timeout / 2
    assert found == 0 or later + found < order.patience
    assert order.patience <= timeout + 5
    if later <= timeout / 2:
        assert found == pytest.approx(timeout / 2, abs=1e-9 * (now + timeout + 1))


@pytest.mark.parametrize(
    ("window", "timeout", "expected"),
    [
        # The defaults.
        (10, 30, Timetable(108.5, 117, 117, 130, 10)),
        # A window that is as long as the timeout.
        (10, 10, Timetable(102.5, 105, 100, 110, 9)),
        (0, 0, Timetable(100, 100, 100, 100, 0)),
    ],
)
def test_some(window: float, timeout: float, expected: Timetable) -> None:
    """What orders mean that come at 100."""
    assert timetable(Drain(1012, "", window, timeout), 100.0) == pytest.approx(expected)
