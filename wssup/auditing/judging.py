"""What is wrong: only what no order of events can explain.

A live instance moves while one looks at it. Each look is taken between two readings of the
counters, and connections that came or went between these may or may not have been seen. A leak
stays: it is in every look. What a look shows by chance (a connection that is closed but not yet
counted so) is not in the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from wssup.auditing.holding import Held

__all__ = [
    "UNKNOWN_AGE",
    "Counted",
    "Finding",
    "Leak",
    "Look",
    "Pile",
    "ages",
    "findings",
    "leak",
    "pile",
    "stayed",
]

UNKNOWN_AGE: Final = 0.5
"""Seconds: where the kernel does not tell how old a CLOSE_WAIT is, one that is still there then."""


class Counted(NamedTuple):
    """What the scoreboard says of a worker at one moment.

    :ivar open: its sockets.
    :ivar came: all it has had: accepted, and moved to it.
    """

    open: int
    came: int


class Look(NamedTuple):
    """A process at one moment.

    :ivar at: seconds, of any clock that does not go back.
    :ivar before: the counters just before, ``after`` just after; ``None``: nobody counts for it.
    :ivar former: whether it may have connections that came to places that are not known any more.
    """

    at: float
    held: Held
    before: Counted | None = None
    after: Counted | None = None
    former: bool = False

    @property
    def explained(self) -> int:
        """How many counted connections may be there though they are not seen at the places."""
        # One that was reset is counted until the worker has noticed.
        dead = len(self.held.dead) + len(self.held.dead_elsewhere)
        return dead + (self.held.elsewhere if self.former else 0)


class Leak(NamedTuple):
    """How a worker's counters and its descriptors differ.

    :ivar uncounted: descriptors of connections that are open beyond those that are counted.
    :ivar gone: connections that are counted and that the worker does not have.
    :ivar dead: descriptors of the places' TCP sockets without a connection that no count explains.
    :ivar unsure: connections that came or went during the quietest look: a leak of so few may have
        been missed.
    """

    uncounted: int
    gone: int
    dead: int
    unsure: int


class Pile(NamedTuple):
    """Connections in CLOSE_WAIT that are older than they ought to be, and the oldest one's age."""

    number: int
    oldest: float | None


class Finding(NamedTuple):
    """Something that is wrong.

    :ivar kind: ``uncounted``, ``gone``, ``dead``, ``close_wait``, or ``stray``: a process that is
        no worker has connections that no worker has.
    :ivar pid: where; ``slot`` of a worker.
    :ivar oldest: seconds, of a pile.
    """

    kind: str
    pid: int
    slot: int | None
    number: int
    oldest: float | None = None


def leak(looks: Sequence[Look]) -> Leak:
    """What all looks at a process agree on."""
    each = [_leak(look) for look in looks]
    stayed = frozenset.intersection(*(look.held.dead for look in looks))
    return Leak(
        uncounted=min(one.uncounted for one in each),
        gone=min(one.gone for one in each),
        dead=min(len(stayed), *(one.dead for one in each)),
        unsure=min(one.unsure for one in each),
    )


def _leak(look: Look) -> Leak:
    if look.before is None or look.after is None:
        return Leak(0, 0, len(look.held.dead), 0)
    came = max(0, look.after.came - look.before.came)
    left = max(0, look.before.open + came - look.after.open)
    # However they came and went, there were so many at least, and so many at most.
    least, most = look.before.open - left, look.before.open + came
    have, dead = look.held.connections, len(look.held.dead)
    return Leak(
        uncounted=max(0, have - most),
        gone=max(0, least - have - look.explained),
        dead=max(0, have + dead - max(most, have)),
        unsure=came + left,
    )


def ages(looks: Sequence[Look], *, outgoing: bool = False) -> dict[int, float]:
    """How long the connections of the last look are in CLOSE_WAIT at least: seconds, by inode."""
    first: dict[int, float] = {}
    found: dict[int, float] = {}
    for look in looks:
        there = look.held.outgoing_close_wait if outgoing else look.held.close_wait
        first = {inode: first.get(inode, look.at) for inode in there}
        found = {
            inode: look.at - first[inode] if heard is None else heard
            for inode, heard in there.items()
        }
    return found


def pile(looks: Sequence[Look], older_than: float, *, known: bool = True) -> Pile:
    """The CLOSE_WAIT connections that a process keeps for longer than `older_than` seconds.

    :param known: whether the kernel told their ages.
    """
    bound = older_than if known else min(older_than, UNKNOWN_AGE)
    old = [age for age in ages(looks).values() if age >= bound]
    return Pile(len(old), max(old, default=None))


def findings(
    pid: int, slot: int | None, differs: Leak, kept: Pile, *, most_kept: int = 0
) -> list[Finding]:
    """What is wrong with a process.

    :param most_kept: a pile of so many is none yet.
    """
    found = [
        Finding(kind, pid, slot, number)
        for kind, number in (
            ("uncounted", differs.uncounted),
            ("gone", differs.gone),
            ("dead", differs.dead),
        )
        if number
    ]
    if kept.number > most_kept:
        found.append(Finding("close_wait", pid, slot, kept.number, kept.oldest))
    return found


def stayed(looks: Sequence[Mapping[int, frozenset[int]]]) -> list[Finding]:
    """The strays that are in every look, by the process that has them."""
    pids = set(looks[0]).intersection(*looks)
    each = {pid: frozenset.intersection(*(look[pid] for look in looks)) for pid in sorted(pids)}
    return [Finding("stray", pid, None, len(inodes)) for pid, inodes in each.items() if inodes]
