"""For any weights: what the steering program returns, for each of the 2**32 random numbers."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.harness import bpf
from wssup.supervisor.steering import program

shares = st.lists(
    st.one_of(st.just(0), st.integers(0, 10), st.integers(0, 1 << 40)), min_size=1, max_size=80
)


@settings(max_examples=100, deadline=None)
@given(shares)
@example([0])
@example([0, 0, 0])
@example([1 << 40, 1, 1 << 40])
def test_each_slot_gets_its_share(weights: list[int]) -> None:
    """The kernel would accept the program; no number leads outside the slots or to one of weight
    zero (unless all are); and each probability is the slot's share, less or more than 2**-32.
    """
    found = bpf.outcomes(program(weights))
    assert found.total() == 1 << 32
    assert set(found) <= set(range(len(weights)))
    if not any(weights):
        weights = [1] * len(weights)
    for slot, weight in enumerate(weights):
        if weight == 0:
            assert found[slot] == 0
        exact = Fraction(weight, sum(weights))
        assert abs(Fraction(found[slot], 1 << 32) - exact) < Fraction(1, 1 << 32)
