"""A classic-BPF interpreter for the few instructions that wssup uses.

Source: the kernel's Documentation/networking/filter.rst. It refuses what the kernel's checker
refuses: an empty or too long program, a jump beyond the end, a last instruction that does not
return, a division by zero, memory that is read before it was written.
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Callable, Sequence

RANDOM = (-0x1000 + 56) & 0xFFFFFFFF
#: From here on the packet is read from its IP header.
NETWORK = -0x100000 & 0xFFFFFFFF
_LD_W_ABS, _LD_B_ABS, _LD_MEM, _LDX_MEM, _ST, _TAX = 0x20, 0x30, 0x60, 0x61, 0x02, 0x07
_MUL_K, _DIV_K, _AND_K, _RSH_K, _MOD_K, _XOR_X = 0x24, 0x34, 0x54, 0x74, 0x94, 0xAC
_JA, _JEQ_K, _JGE_K = 0x05, 0x15, 0x35
_RET_K, _RET_A = 0x06, 0x16
_KNOWN = {
    *(_LD_W_ABS, _LD_B_ABS, _LD_MEM, _LDX_MEM, _ST, _TAX, _XOR_X),
    *(_MUL_K, _DIV_K, _AND_K, _RSH_K, _MOD_K),
    *(_JA, _JEQ_K, _JGE_K, _RET_K, _RET_A),
}
_LONGEST = 4096
_COMPUTED: dict[int, Callable[[int, int], int]] = {
    _MUL_K: operator.mul,
    _DIV_K: operator.floordiv,
    _AND_K: operator.and_,
    _RSH_K: operator.rshift,
    _MOD_K: operator.mod,
}
_JUMPS: dict[int, Callable[[int, int, int, int], int]] = {
    _JA: lambda _a, _jt, _jf, k: k,
    _JEQ_K: lambda a, jt, jf, k: jt if a == k else jf,
    _JGE_K: lambda a, jt, jf, k: jt if a >= k else jf,
}
#: BPF_MEMWORDS.
_WORDS = 16

Code = Sequence[tuple[int, int, int, int]]


def check(program: Code) -> None:
    """What bpf_check_classic() in net/core/filter.c checks."""
    assert 0 < len(program) <= _LONGEST
    assert program[-1][0] in {_RET_K, _RET_A}, "the last instruction must return"
    for at, (code, jt, jf, k) in enumerate(program):
        assert code in _KNOWN, f"code {code:#x}"
        assert 0 <= k < 1 << 32
        assert 0 <= jt < 1 << 8
        assert 0 <= jf < 1 << 8
        if code in {_JEQ_K, _JGE_K}:
            assert at + 1 + max(jt, jf) < len(program), "a jump beyond the end"
        if code == _JA:
            assert at + 1 + k < len(program), "a jump beyond the end"
        if code in {_DIV_K, _MOD_K}:
            assert k, "a division by zero"
        if code == _RSH_K:
            assert k < 32
        if code in {_LD_MEM, _LDX_MEM, _ST}:
            assert k < _WORDS


def run(program: Code, *, random: int = 0, packet: bytes = b"") -> int:
    """What the program returns for a random number, or for a packet.

    :param packet: from the IP header on; a program that reads from the transport header on reads
        from its beginning, too.
    """
    check(program)
    at = accumulator = index = 0
    memory: dict[int, int] = {}
    while True:
        code, jt, jf, k = program[at]
        at += 1
        if code in _COMPUTED:
            accumulator = _COMPUTED[code](accumulator, k) & 0xFFFFFFFF
        elif code in _JUMPS:
            at += _JUMPS[code](accumulator, jt, jf, k)
        elif code in {_RET_K, _RET_A}:
            return accumulator if code == _RET_A else k
        elif code in {_LD_W_ABS, _LD_B_ABS}:
            accumulator = random if k == RANDOM else _loaded(packet, k, 4 if code == 0x20 else 1)
        elif code == _LD_MEM:
            accumulator = memory[k]
        elif code == _ST:
            memory[k] = accumulator
        elif code == _XOR_X:
            accumulator ^= index
        else:
            index = memory[k] if code == _LDX_MEM else accumulator


def _loaded(packet: bytes, k: int, size: int) -> int:
    """What a load reads; numbers are in network order."""
    start = k - NETWORK if k >= NETWORK else k
    assert 0 <= start <= len(packet) - size, "a load beyond the packet"
    return int.from_bytes(packet[start : start + size], "big")


def outcomes(program: Code) -> Counter[int]:
    """For how many of the 2**32 random numbers each value is returned.

    Between two operands of comparisons nothing can change, so one number of each range is enough.
    """
    edges = sorted({0, *(k for code, _, _, k in program if code == _JGE_K), 1 << 32})
    counted: Counter[int] = Counter()
    for low, high in itertools.pairwise(edges):
        counted[run(program, random=low)] += high - low
    return counted
