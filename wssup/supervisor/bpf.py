"""The programs that pick a listener of a SO_REUSEPORT group, in classic BPF.

Such a group picks by a hash of both ends' addresses and ports unless a program is attached
(socket(7), SO_ATTACH_REUSEPORT_CBPF), which needs no privilege and returns the index of a listener.
Ours never return an index outside of the group, for which the kernel would fall back to its hash.
Pure functions; address.py attaches the result. Source of the instructions: the kernel's
Documentation/networking/filter.rst and <linux/bpf_common.h>.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["MOST_INSTRUCTIONS", "Instruction", "program", "source_program"]

# class | size | mode, or class | operation | source.
_LD_W_ABS = 0x20
_LD_B_ABS = 0x30
_LD_MEM = 0x60
_ST = 0x02
_LDX_MEM = 0x61
_TAX = 0x07
_MUL_K = 0x24
_DIV_K = 0x34
_AND_K = 0x54
_RSH_K = 0x74
_MOD_K = 0x94
_XOR_X = 0xAC
_JA = 0x05
_JEQ_K = 0x15
_JGE_K = 0x35
_RET_K = 0x06
_RET_A = 0x16
#: <linux/filter.h>: offsets from SKF_AD_OFF read ancillary data; this one is a random u32. Those
#: from SKF_NET_OFF read the packet from its IP header on.
_SKF_AD_RANDOM = (-0x1000 + 56) & 0xFFFFFFFF
_SKF_NET_OFF = -0x100000 & 0xFFFFFFFF
#: Where the client's address stands in the IP header (RFC 791 section 3.1, RFC 8200 section 3).
_SOURCE_V4 = 12
_SOURCE_V6 = (8, 12, 16, 20)
#: An odd number with well mixed bits: the golden ratio, times 2**32.
_MIX = 0x9E3779B1
#: BPF_MAXINSNS.
MOST_INSTRUCTIONS = 4096


class Instruction(NamedTuple):
    """``struct sock_filter``: code, jump if true, jump if false, operand."""

    code: int
    jt: int
    jf: int
    k: int


def program(shares: Sequence[int]) -> tuple[Instruction, ...]:
    """The program that returns index *i* with probability ``shares[i] / sum(shares)``: it compares
    a random number with cumulative thresholds.

    All zero means equal: then some queue is as good as another, and none is refused.

    :raises ValueError: if there is no slot, a share is negative, or there are more slots than
        instructions.
    """
    chosen = _chosen(shares)
    total = sum(share for _, share in chosen)
    code: list[Instruction] = []
    passed = 0
    if len(chosen) > 1:
        code.append(_do(_LD_W_ABS, _SKF_AD_RANDOM))
    for index, share in chosen[:-1]:
        passed += share
        code.append(Instruction(_JGE_K, 1, 0, (passed << 32) // total))
        code.append(_do(_RET_K, index))
    code.append(_do(_RET_K, chosen[-1][0]))
    return _fitting(code, len(chosen))


def source_program(shares: Sequence[int]) -> tuple[Instruction, ...]:
    """The program that returns the same index for the same client address, whatever its port, and
    spreads addresses evenly over the indices with a share.

    An address is hashed onto all indices; only those that fall on one without a share are spread
    over the others, so that of a slot that is scaled away none but its own addresses move.

    :param shares: as of :func:`program`; how great one is does not matter.
    :raises ValueError: as :func:`program`.
    """
    chosen = _chosen(shares)
    alive = [index for index, _ in chosen]
    if len(alive) == 1:
        return (_do(_RET_K, alive[0]),)
    code = _hashed_source()
    code += [_do(_ST, 0), _do(_MOD_K, len(shares))]
    idle = sorted(set(range(len(shares))) - set(alive))
    # A conditional jump spans 255 instructions at most; JA any number.
    for place, index in enumerate(idle):
        code += [Instruction(_JEQ_K, 0, 1, index), _do(_JA, 2 * (len(idle) - place) - 1)]
    code.append(_do(_RET_A))
    if idle:
        code += [_do(_LD_MEM, 0), _do(_DIV_K, len(shares)), _do(_MOD_K, len(alive))]
        for rank, index in enumerate(alive[:-1]):
            code += [Instruction(_JEQ_K, 0, 1, rank), _do(_RET_K, index)]
        code.append(_do(_RET_K, alive[-1]))
    return _fitting(code, len(shares))


def _hashed_source() -> list[Instruction]:
    """Leaves a hash of the client's address in the accumulator. A socket of both families gets
    packets of both: the version stands in the first four bits.
    """
    v6 = [_do(_LD_W_ABS, _net(_SOURCE_V6[0])), *_mixed()]
    for offset in _SOURCE_V6[1:]:
        v6 += [_do(_TAX), _do(_LD_W_ABS, _net(offset)), _do(_XOR_X), *_mixed()]
    v4 = [_do(_LD_W_ABS, _net(_SOURCE_V4)), *_mixed()]
    return [
        _do(_LD_B_ABS, _net(0)),
        _do(_RSH_K, 4),
        Instruction(_JEQ_K, 0, len(v6) + 1, 6),
        *v6,
        _do(_JA, len(v4)),
        *v4,
        # The highest bits are the best mixed, and a remainder is of the lowest.
        *_folded_bits(),
    ]


def _mixed() -> list[Instruction]:
    """A = (A ^ A >> 16) * _MIX."""
    return [*_folded_bits(), _do(_MUL_K, _MIX)]


def _folded_bits() -> list[Instruction]:
    """A = A ^ A >> 16, by way of the scratch memory."""
    return [_do(_ST, 0), _do(_RSH_K, 16), _do(_LDX_MEM, 0), _do(_XOR_X)]


def _chosen(shares: Sequence[int]) -> list[tuple[int, int]]:
    """The indices with a share, and their shares; all if none has one."""
    if not shares or min(shares) < 0:
        raise ValueError(f"shares must be at least one number, none negative: {shares!r}")
    if not any(shares):
        shares = [1] * len(shares)
    return [(index, share) for index, share in enumerate(shares) if share]


def _fitting(code: list[Instruction], slots: int) -> tuple[Instruction, ...]:
    if len(code) > MOST_INSTRUCTIONS:
        raise ValueError(f"{slots} slots do not fit into {MOST_INSTRUCTIONS} instructions")
    return tuple(code)


def _do(code: int, operand: int = 0) -> Instruction:
    return Instruction(code, 0, 0, operand)


def _net(offset: int) -> int:
    return _SKF_NET_OFF + offset
