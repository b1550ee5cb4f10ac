"""When a lost worker is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wssup.supervisor.backoff import Backoff


def boots(backoff: Backoff, *times: float) -> list[float | None]:
    """The answers to failures at boot at these times."""
    return [backoff.lost(now, at_boot=True, lived=0.1) for now in times]


def test_the_delay_doubles_up_to_the_longest() -> None:
    """Each loss doubles the delay, from the shortest, and it stays at the longest."""
    backoff = Backoff(shortest=0.5, longest=5, budget=100, window=60)
    assert boots(backoff, *range(6)) == [0.5, 1, 2, 4, 5, 5]


def test_the_budget_counts_failures_at_boot() -> None:
    """The fifth failure at boot within the window ends the tries."""
    backoff = Backoff(shortest=1, longest=8, budget=5, window=60)
    assert boots(backoff, 0, 1, 2, 3) == [1, 2, 4, 8]
    assert boots(backoff, 60) == [None]


def test_failures_older_than_the_window_do_not_count() -> None:
    """A failure that is longer ago than the window is forgotten; one as long ago is not."""
    backoff = Backoff(shortest=1, longest=1, budget=3, window=60)
    assert boots(backoff, 0, 30, 60.1, 91) == [1, 1, 1, 1]
    assert boots(backoff, 120.1) == [None]


def test_losses_after_boot_never_spend_the_budget() -> None:
    """A worker that clients can crash is tried again for ever."""
    backoff = Backoff(shortest=1, longest=4, budget=2, window=60)
    answers = [backoff.lost(now, at_boot=False, lived=1) for now in range(50)]
    assert answers == [1, 2] + [4] * 48
    assert boots(backoff, 50) == [4]


def test_a_long_life_resets_the_delay_but_only_after_boot() -> None:
    """A worker that served for the window starts the delays anew; one that took as long to fail at
    boot does not.
    """
    backoff = Backoff(shortest=1, longest=100, budget=9, window=60)
    boots(backoff, 0, 1, 2)
    assert backoff.lost(100, at_boot=True, lived=60) == 8
    assert backoff.lost(200, at_boot=False, lived=59.9) == 16
    assert backoff.lost(300, at_boot=False, lived=60) == 1


def test_reset_opens_all_tries() -> None:
    """New code starts with the shortest delay and the whole budget."""
    backoff = Backoff(shortest=1, longest=100, budget=2, window=60)
    assert boots(backoff, 0, 1) == [1, None]
    backoff.reset()
    assert boots(backoff, 2, 3) == [1, None]


@given(
    shortest=st.floats(0.01, 10),
    factor=st.floats(1, 1000),
    losses=st.lists(st.tuples(st.floats(0, 100), st.booleans(), st.floats(0, 200)), max_size=30),
)
def test_every_delay_is_within_its_bounds(
    shortest: float, factor: float, losses: list[tuple[float, bool, float]]
) -> None:
    """Whatever the losses, a delay is never shorter than the shortest nor longer than the longest,
    and "no more" is only ever said of a failure at boot.
    """
    longest = shortest * factor
    backoff = Backoff(shortest, longest, budget=3, window=60)
    now = 0.0
    for later, at_boot, lived in losses:
        now += later
        delay = backoff.lost(now, at_boot=at_boot, lived=lived)
        assert at_boot if delay is None else shortest <= delay <= longest
