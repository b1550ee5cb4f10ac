"""Who accepts for a slot without a worker; the general case is in tests/property."""

from __future__ import annotations

from wssup.supervisor.lending import lend


def test_the_idlest_borrows() -> None:
    """A slot in need is lent to the slot with the fewest connections, the first among equals."""
    assert lend([0], {1: 9, 2: 3, 3: 3}, {}) == {0: 2}


def test_nobody_is_able() -> None:
    """Without anybody able there are no loans, also none of those that stood."""
    assert lend([0, 1], {}, {0: 2}) == {}


def test_a_loan_stays_where_it_is() -> None:
    """A borrower keeps what it has although another one is idler: each change costs messages."""
    assert lend([0], {1: 500, 2: 0}, {0: 1}) == {0: 1}


def test_a_loan_moves_when_its_borrower_cannot() -> None:
    """What a lost slot had borrowed goes to another one, as does the lost slot itself."""
    assert lend([0, 1], {2: 5, 3: 6}, {0: 1}) == {0: 2, 1: 3}


def test_a_loan_ends_with_the_need() -> None:
    """A slot that serves itself again is lent no more."""
    assert lend([], {0: 1, 1: 1}, {0: 1}) == {}


def test_standing_loans_count_as_burden() -> None:
    """New loans go to those who have borrowed less so far."""
    assert lend([0, 1], {2: 0, 3: 100}, {0: 2}) == {0: 2, 1: 3}
