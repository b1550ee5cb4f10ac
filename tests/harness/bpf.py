"""A classic-BPF interpreter for the few instructions that wssup uses.

Source: the kernel's Documentation/networking/filter.rst. It refuses what the kernel's checker
refuses: an empty or too long program, a jump beyond the end, a last instruction that does not
return.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

RANDOM = (-0x1000 + 56) & 0xFFFFFFFF
_LD_W_ABS, _LD_B_ABS, _AND_K, _JEQ_K, _JGE_K, _RET_K = 0x20, 0x30, 0x54, 0x15, 0x35, 0x06
_LONGEST = 4096

Code = Sequence[tuple[int, int, int, int]]


def check(program: Code) -> None:
    """What bpf_check_classic() in net/core/filter.c checks."""
    assert 0 < len(program) <= _LONGEST
    assert program[-1][0] == _RET_K, "the last instruction must return"
    for at, (code, jt, jf, k) in enumerate(program):
        assert code in {_LD_W_ABS, _LD_B_ABS, _AND_K, _JEQ_K, _JGE_K, _RET_K}, f"code {code:#x}"
        assert 0 <= k < 1 << 32
        if code in {_JEQ_K, _JGE_K}:
            assert at + 1 + max(jt, jf) < len(program), "a jump beyond the end"


def run(program: Code, *, random: int = 0, packet: bytes = b"") -> int:
    """What the program returns for a random number, or for a packet."""
    check(program)
    at = accumulator = 0
    while True:
        code, jt, jf, k = program[at]
        at += 1
        match code:
            case 0x20:
                assert k == RANDOM, "only the random word is read"
                accumulator = random
            case 0x30:
                accumulator = packet[k]
            case 0x54:
                accumulator &= k
            case 0x15:
                at += jt if accumulator == k else jf
            case 0x35:
                at += jt if accumulator >= k else jf
            case _:
                return k


def outcomes(program: Code) -> Counter[int]:
    """For how many of the 2**32 random numbers each value is returned.

    Between two operands of comparisons nothing can change, so one number of each range is enough.
    """
    edges = sorted({0, *(k for code, _, _, k in program if code == _JGE_K), 1 << 32})
    counted: Counter[int] = Counter()
    for low, high in itertools.pairwise(edges):
        counted[run(program, random=low)] += high - low
    return counted
