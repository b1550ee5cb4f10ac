"""The weights of slots, and the program that draws by them, read by an interpreter.
test_listeners.py asks the kernel.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import bpf
from wssup.supervisor.bpf import MOST_INSTRUCTIONS, program
from wssup.supervisor.steering import Load, equal, is_material, spacing, weights


def serving(*active: int) -> list[Load]:
    """Slots that serve, and have so many."""
    return [Load(True, count) for count in active]


def shares(found: tuple[int, ...]) -> list[float]:
    """What part of new connections each slot gets."""
    return [round(weight / sum(found), 3) for weight in found]


def test_equal_weights() -> None:
    """A slot that serves weighs one, another nothing."""
    assert equal([True, False, True]) == (1, 0, 1)
    assert equal([False, False]) == (0, 0)


def test_a_slot_that_lost_its_worker_gets_what_it_lacks() -> None:
    """An empty slot among three full ones gets all new connections while few are expected, and with
    many expected just enough to have as many as the others in the end.
    """
    crowded = serving(1000, 1000, 1000, 0)
    assert shares(weights(crowded)) == [0, 0, 0, 1]
    assert shares(weights(crowded, 2000)) == [0.125, 0.125, 0.125, 0.625]


def test_equal_enough_is_equal() -> None:
    """Slots within one connection, or one part in a hundred, of the mean are drawn alike; beyond
    that one that has more gets none.
    """
    assert shares(weights(serving(3, 2, 2, 2))) == [0.25] * 4
    assert shares(weights(serving(1005, 995, 1004, 996), 50)) == [0.25] * 4
    assert weights(serving(1050, 990, 980, 980))[0] == 0


def test_who_cannot_take_a_connection_gets_none() -> None:
    """A slot that does not serve, or is full, weighs nothing; when all are full those that serve
    are equal, and when none serves nobody has a weight.
    """
    assert shares(weights([Load(True, 5), Load(False, 0), Load(True, 5)])) == [0.5, 0, 0.5]
    assert shares(weights([Load(True, 5), Load(True, 0, 0), Load(True, 5)])) == [0.5, 0, 0.5]
    assert weights([Load(True, 5, 0), Load(False), Load(True, 9, 0)]) == (1, 0, 1)
    assert weights([Load(False), Load(False, 7)]) == (0, 0)


def test_room_bounds_a_weight() -> None:
    """A slot with room for 50 connections more is not given its 250 of the 1000 expected."""
    loads = [*serving(100, 100, 100), Load(True, 100, 50)]
    assert shares(weights(loads, 1000)) == [0.312, 0.312, 0.312, 0.062]


def test_a_fresh_slot_of_many_gets_four_parts() -> None:
    """Of 16 slots an empty one gets four sixteenths, and the others the rest evenly, although it
    lacks far more: reconnects do not all meet it.
    """
    found = shares(weights(serving(0, *[1000] * 15)))
    assert found[0] == 0.25
    assert set(found[1:]) == {0.05}


loads = st.lists(
    st.builds(Load, st.booleans(), st.integers(0, 20_000), st.integers(-5, 20_000)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(loads, st.integers(0, 100_000))
def test_any_loads(slots: list[Load], expected: int) -> None:
    """For any loads: who cannot take a connection weighs nothing unless nobody can; there is a
    weight if anybody serves; of those that can, who has more never gets more if they have the
    same room; and none gets more than four times its equal part.
    """
    found = weights(slots, expected)
    assert len(found) == len(slots)
    assert min(found) >= 0
    able = [i for i, slot in enumerate(slots) if slot.serves and slot.headroom > 0]
    assert any(found) is any(slot.serves for slot in slots)
    if not able:
        return
    assert all(weight == 0 for i, weight in enumerate(found) if i not in able)
    assert all(Fraction(found[i], sum(found)) * len(able) <= 4 + Fraction(1, 100) for i in able)
    for i in able:
        for j in able:
            if slots[i].active > slots[j].active and slots[i].headroom == slots[j].headroom:
                assert found[i] <= found[j] + 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=4), st.integers(1, 100_000))
def test_the_expected_come_out_even(active: list[int], expected: int) -> None:
    """If as many come as were expected, and no slot has more than its part of all beforehand, each
    is expected to have the same in the end, but for what counts as equal.
    """
    count, total = len(active), sum(active)
    if max(active) * count > total + expected:
        return
    found = weights(serving(*active), expected)
    for have, weight in zip(active, found, strict=True):
        ends = have + Fraction(expected * weight, sum(found))
        assert abs(ends - Fraction(total + expected, count)) <= max(1, Fraction(total, 100 * count))


def test_what_is_worth_another_program() -> None:
    """Another slot that gets some, or gets none, is; so is a share that moves by five hundredths of
    an equal one; less is not, whatever the numbers are scaled by.
    """
    assert is_material((1, 1, 0), (1, 1, 1))
    assert is_material((1, 1), (1, 1, 1))
    assert is_material((0, 0), (1, 1))
    assert not is_material((1, 1), (500, 500))
    assert not is_material((1, 1), (502, 498))
    assert is_material((1, 1), (530, 470))
    assert not is_material((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("release", "seconds"),
    [
        ("6.18.44-generic", 0.1),
        ("6.18.12-1-amd64", 1.0),
        ("6.1.0-18-amd64", 1.0),
        ("6.12.101+deb13", 0.1),
        ("6.17.99", 1.0),
        ("7.0.5", 1.0),
        ("7.1", 0.1),
        ("8.0.1-rc2", 0.1),
        ("strange", 1.0),
    ],
)
def test_kernels_whose_programs_are_replaced_seldom(release: str, seconds: float) -> None:
    """Where CVE-2026-52910 may not be fixed shares change once a second at most."""
    assert spacing(release) == seconds


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
