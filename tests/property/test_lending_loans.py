"""For any slots in need: who lends them a worker."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.supervisor.lending import lend

slots = st.integers(0, 11)


@st.composite
def situations(draw: st.DrawFn) -> tuple[set[int], dict[int, int], dict[int, int]]:
    """Slots in need, those that are able with their connections, and loans from earlier."""
    able = draw(st.dictionaries(slots, st.integers(0, 1000), max_size=8))
    needy = draw(st.sets(slots, max_size=8)) - set(able)
    standing = draw(st.dictionaries(slots, slots, max_size=8))
    return needy, able, standing


@settings(max_examples=75, deadline=None)
@given(situations())
def test_who_needs_is_served_if_anybody_can(
    situation: tuple[set[int], dict[int, int], dict[int, int]],
) -> None:
    """Every slot in need, and no other, is lent, to a slot that is able; nobody is exactly when
    none is able.
    """
    needy, able, standing = situation
    loans = lend(needy, able, standing)
    assert set(loans) == (needy if able else set())
    assert set(loans.values()) <= set(able)


@settings(max_examples=75, deadline=None)
@given(situations())
def test_loans_stay_while_they_can(
    situation: tuple[set[int], dict[int, int], dict[int, int]],
) -> None:
    """A loan stays while its slot needs it and its borrower is able; asked again with what was
    answered, the answer is the same.
    """
    needy, able, standing = situation
    loans = lend(needy, able, standing)
    for slot in needy:
        if standing.get(slot) in able:
            assert loans[slot] == standing[slot]
    assert lend(needy, able, loans) == loans


@settings(max_examples=75, deadline=None)
@given(situations())
def test_the_burden_is_even(situation: tuple[set[int], dict[int, int], dict[int, int]]) -> None:
    """Without earlier loans no borrower has two more than another; who has one more has no more
    connections than who has one less.
    """
    needy, able, _ = situation
    burden = Counter(lend(needy, able, {}).values())
    for a in able:
        for b in able:
            assert burden[a] - burden[b] <= 1
            if burden[a] > burden[b]:
                assert able[a] <= able[b]
