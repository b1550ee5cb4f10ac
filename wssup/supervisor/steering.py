"""Which slot the kernel gives a new connection to: weights, and the program that draws by them.

A SO_REUSEPORT group picks a listener by a hash of the addresses unless a program is attached; ours
is classic BPF (socket(7), SO_ATTACH_REUSEPORT_CBPF), needs no privilege, and returns the index of a
listener in its group. It draws a random number and compares it with cumulative thresholds. Pure
functions; address.py attaches the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Instruction", "folded", "program", "weights"]

# <linux/bpf_common.h>: class | size | mode, class | operation | source.
_LD_W_ABS = 0x20
_JGE_K = 0x35
_RET_K = 0x06
#: <linux/filter.h>: offsets from SKF_AD_OFF read ancillary data; this one is a random u32.
_SKF_AD_RANDOM = (-0x1000 + 56) & 0xFFFFFFFF
#: <linux/bpf_common.h> BPF_MAXINSNS.
MOST_INSTRUCTIONS = 4096


class Instruction(NamedTuple):
    """``struct sock_filter``: code, jump if true, jump if false, operand."""

    code: int
    jt: int
    jf: int
    k: int


def weights(serving: Sequence[bool]) -> tuple[int, ...]:
    """A weight per slot: equal among the slots that serve; all zero if none does."""
    return tuple(int(s) for s in serving)


def folded(shares: Sequence[int], listeners: int) -> tuple[int, ...]:
    """The shares of fewer listeners than slots, of which slot *i* has listener *i* modulo their
    number: a listener has what its slots have together.
    """
    return tuple(sum(shares[index::listeners]) for index in range(listeners))


def program(shares: Sequence[int]) -> tuple[Instruction, ...]:
    """The program that returns index *i* with probability ``shares[i] / sum(shares)``.

    All zero means equal: then some queue is as good as another, and none is refused. It never
    returns an index outside ``range(len(shares))``, for which the kernel would fall back to its
    hash.

    :raises ValueError: if there is no slot, a share is negative, or there are more slots than
        instructions.
    """
    if not shares or min(shares) < 0:
        raise ValueError(f"shares must be at least one number, none negative: {shares!r}")
    if not any(shares):
        shares = [1] * len(shares)
    chosen = [(index, share) for index, share in enumerate(shares) if share]
    total = sum(share for _, share in chosen)
    if 2 * len(chosen) > MOST_INSTRUCTIONS:
        raise ValueError(f"{len(chosen)} slots do not fit into {MOST_INSTRUCTIONS} instructions")
    code: list[Instruction] = []
    passed = 0
    if len(chosen) > 1:
        code.append(Instruction(_LD_W_ABS, 0, 0, _SKF_AD_RANDOM))
    for index, share in chosen[:-1]:
        passed += share
        threshold = (passed << 32) // total
        code.append(Instruction(_JGE_K, 1, 0, threshold))
        code.append(Instruction(_RET_K, 0, 0, index))
    code.append(Instruction(_RET_K, 0, 0, chosen[-1][0]))
    return tuple(code)
