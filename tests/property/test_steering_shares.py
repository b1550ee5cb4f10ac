"""For any weights: what the steering program returns, for each of the 2**32 random numbers; and for
any client address.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.harness import bpf
from wssup.supervisor.bpf import program, source_program

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


def v4(source: int, port: int = 1, *, options: bool = False) -> bytes:
    """A TCP packet's IPv4 header (RFC 791 section 3.1), and its ports."""
    words = 6 if options else 5
    head = bytes([0x40 | words, *range(1, 12)]) + source.to_bytes(4) + bytes([127, 0, 0, 1])
    return head.ljust(4 * words, b"\1") + port.to_bytes(2) + bytes(18)


def v6(source: int, port: int = 1) -> bytes:
    """The same of IPv6 (RFC 8200 section 3)."""
    return bytes([0x60, *range(1, 8)]) + source.to_bytes(16) + bytes(16) + port.to_bytes(2)


some = st.lists(st.integers(0, 3), min_size=1, max_size=40)
ports = st.integers(0, 65535)


@settings(max_examples=50, deadline=None)
@given(some, st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 128) - 1), ports, ports)
@example([0, 1] * 200, 5, 5, 1, 2)
def test_an_address_meets_one_slot(
    shares: list[int], four: int, six: int, one: int, other: int
) -> None:
    """The kernel would accept the program; it returns a slot with a share (any, if none has one),
    the same for another port of the same address, of either family; and it reads no more of the
    packet than there is.
    """
    code = source_program(shares)
    able = {slot for slot, share in enumerate(shares) if share} or set(range(len(shares)))
    for packet, again in (
        (v4(four, one), v4(four, other, options=True)),
        (v6(six, one), v6(six, other)),
    ):
        found = bpf.run(code, packet=packet)
        assert found in able
        assert bpf.run(code, packet=again) == found


def test_addresses_in_a_row_are_spread() -> None:
    """Whatever addresses have in common, slots get about their parts of them: neighbours, every
    256th, every 65536th, and those that differ in one word of IPv6. A slot's part of 800 is 200;
    eight standard deviations of chance are 98.
    """
    code = source_program([1] * 4)
    for step in (1, 256, 65536):
        came = Counter(bpf.run(code, packet=v4(0x0A000001 + step * n)) for n in range(800))
        assert all(102 <= came[slot] <= 298 for slot in range(4)), (step, came)
    network = int(ipaddress.ip_address("2001:db8::"))
    for word in range(4):
        packets = [v6(network + (n << 32 * word)) for n in range(800)]
        came = Counter(bpf.run(code, packet=packet) for packet in packets)
        assert all(102 <= came[slot] <= 298 for slot in range(4)), (word, came)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.data())
def test_only_addresses_of_a_parked_slot_move(slots: int, data: st.DataObject) -> None:
    """When the share of one slot becomes zero, addresses of the others stay where they are."""
    parked = data.draw(st.integers(0, slots - 1))
    before = source_program([1] * slots)
    after = source_program([int(slot != parked) for slot in range(slots)])
    for address in range(0, 1 << 32, 1 << 26):
        packet = v4(address)
        was, now = bpf.run(before, packet=packet), bpf.run(after, packet=packet)
        assert now == was if was != parked else now != parked
