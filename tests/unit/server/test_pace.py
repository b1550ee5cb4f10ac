"""How many connections a session has on their way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wssup.server.handoff.link import BATCH
from wssup.server.handoff.pace import Pace

steps = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 4 * BATCH)))


@given(st.integers(0, 1 << 31), steps)
def test_its_bounds(failures: int, answers: list[tuple[float, float, int]]) -> None:
    """It never has more on their way than twice as many as may fail, but for a few, nor more than
    four batches, and never less than what a slow machine needs.
    """
    pace, now = Pace(failures), 1.0
    most = min(4 * BATCH, max(4, 2 * failures))
    for passed, took, count in answers:
        now += passed
        pace.answered(now - took, now, count)
        assert min(BATCH, most) <= pace.window <= most


def test_slow_answers_narrow_it_once() -> None:
    """Prompt answers widen it; those that were on their way together and are all late halve it
    once.
    """
    pace = Pace(1 << 31)
    assert pace.window == 2 * BATCH
    pace.answered(10.0, 10.01, 2 * BATCH)
    assert pace.window == 4 * BATCH
    for took in (0.5, 0.6, 0.7):
        pace.answered(11.0, 11.0 + took, BATCH)
        assert pace.window == 2 * BATCH
    pace.answered(12.0, 12.5, BATCH)
    assert pace.window == BATCH
