"""The program that picks a slot, read by an interpreter. test_listeners.py asks the kernel."""

from __future__ import annotations

import pytest

from tests.harness import bpf
from wssup.supervisor.steering import MOST_INSTRUCTIONS, program, weights


def test_weights_are_equal_among_those_that_serve() -> None:
    """A slot that serves weighs one, another nothing."""
    assert weights([True, False, True]) == (1, 0, 1)
    assert weights([False, False]) == (0, 0)


def test_the_interpreter_knows_the_random_number_where_the_kernel_has_it() -> None:
    """The program reads the word at SKF_AD_OFF + SKF_AD_RANDOM (<linux/filter.h>), and no other."""
    assert [i.k for i in program([1, 1]) if i.code == 0x20] == [0xFFFFF038]
    assert bpf.RANDOM == 0xFFFFF038


def test_one_slot_needs_no_random_number() -> None:
    """With one candidate the program is a single return."""
    assert program([0, 0, 5]) == ((0x06, 0, 0, 2),)


def test_halves_are_exact() -> None:
    """Two equal shares split the numbers at 2**31."""
    code = program([1, 1])
    assert [bpf.run(code, random=n) for n in (0, 2**31 - 1, 2**31, 2**32 - 1)] == [0, 0, 1, 1]


def test_nobody_means_everybody() -> None:
    """All weights zero are all weights equal: none is refused."""
    assert program([0, 0, 0]) == program([1, 1, 1])


@pytest.mark.parametrize("shares", [[], [-1], [1, 2, -1]])
def test_shares_that_are_none(shares: list[int]) -> None:
    """No share at all, or a negative one, is an error that shows them."""
    with pytest.raises(ValueError, match=r"shares must be") as caught:
        program(shares)
    assert repr(shares) in str(caught.value)


def test_the_longest_program() -> None:
    """2048 slots fit into the kernel's 4096 instructions; one more is an error that says so."""
    most = MOST_INSTRUCTIONS // 2
    code = program([1] * most)
    bpf.check(code)
    assert len(code) == MOST_INSTRUCTIONS
    with pytest.raises(ValueError, match=f"{most + 1} slots do not fit"):
        program([1] * (most + 1))
