"""When a lost worker is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wssup.supervisor.backoff import Backoff


def boots(backoff: Backoff, times: int, lived: float = 0.1) -> list[float | None]:
    """The answers to so many failures at boot."""
    return [backoff.lost(at_boot=True, lived=lived) for _ in range(times)]


def test_the_delay_doubles_up_to_the_longest() -> None:
    """Each loss doubles the delay, from the shortest, and it stays at the longest."""
    backoff = Backoff(shortest=0.5, longest=5, budget=100, window=60)
    assert boots(backoff, 6) == [0.5, 1, 2, 4, 5, 5]


def test_the_budget_counts_failures_at_boot() -> None:
    """The fifth failure at boot in a row ends the tries, however long each took."""
    for lived in (0.1, 1000):
        backoff = Backoff(shortest=1, longest=8, budget=5, window=60)
        assert boots(backoff, 5, lived) == [1, 2, 4, 8, None]


def test_losses_after_boot_never_spend_the_budget() -> None:
    """A worker that clients can crash is tried again for ever, and its losses count for nothing."""
    backoff = Backoff(shortest=1, longest=4, budget=2, window=60)
    answers = [backoff.lost(at_boot=False, lived=1) for _ in range(50)]
    assert answers == [1, 2] + [4] * 48
    assert boots(backoff, 1) == [4]


def test_a_long_life_resets_all_but_only_after_boot() -> None:
    """A worker that served for the window starts delays and budget anew; one that served for less,
    or took as long to fail at boot, does not.
    """
    backoff = Backoff(shortest=1, longest=100, budget=4, window=60)
    assert boots(backoff, 2, 60) == [1, 2]
    assert backoff.lost(at_boot=False, lived=59.9) == 4
    assert boots(backoff, 1) == [8]
    assert backoff.lost(at_boot=False, lived=60) == 1
    assert boots(backoff, 4) == [2, 4, 8, None]


def test_reset_opens_all_tries() -> None:
    """New code starts with the shortest delay and the whole budget."""
    backoff = Backoff(shortest=1, longest=100, budget=2, window=60)
    assert boots(backoff, 2) == [1, None]
    backoff.reset()
    assert boots(backoff, 2) == [1, None]


@given(
    shortest=st.floats(0.01, 10),
    factor=st.floats(1, 1000),
    losses=st.lists(st.tuples(st.booleans(), st.floats(0, 200)), max_size=30),
)
def test_every_delay_is_within_its_bounds(
    shortest: float, factor: float, losses: list[tuple[bool, float]]
) -> None:
    """Whatever the losses, a delay is never shorter than the shortest nor longer than the longest,
    and "no more" is said of the third failure at boot in a row and of no other loss.
    """
    longest = shortest * factor
    backoff = Backoff(shortest, longest, budget=3, window=60)
    boot_failures = 0
    for at_boot, lived in losses:
        boot_failures = 0 if not at_boot and lived >= 60 else boot_failures + at_boot
        delay = backoff.lost(at_boot=at_boot, lived=lived)
        if delay is None:
            assert at_boot
            assert boot_failures >= 3
        else:
            assert shortest <= delay <= longest
            assert not (at_boot and boot_failures >= 3)
