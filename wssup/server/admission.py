"""Whether the next connection is let in, turned away, or left in the kernel's queue. Pure."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from wssup.scoreboard import RefusedReason
from wssup.server.rate import TokenBucket

__all__ = ["ADMIT", "EXHAUSTED", "Admission", "Verdict", "retry_after"]

#: Of the descriptors that are for things other than connections, the part that sockets may take
#: which are being turned away; and how many there are at least.
_REFUSALS: Final = 4
_FEWEST_REFUSALS: Final = 4
#: Seconds after which clients may come again that a limit has turned away: not all at once.
_LONGEST_RETRY: Final = 10


class Verdict(NamedTuple):
    """What is to be done with the next connection.

    :ivar reason: what is against it; ``None``: nothing.
    :ivar wait: seconds to leave it in the queue; infinite: until a socket is closed. 0 with a
        reason: take it and turn it away.
    :ivar limit: of connections, or of handshakes a second.
    :ivar set_by: the setting that the limit comes from.
    """

    reason: RefusedReason | None = None
    wait: float = 0.0
    limit: float = 0.0
    set_by: str = ""


ADMIT: Final = Verdict()
#: The process has no descriptor left, whatever was planned.
EXHAUSTED: Final = Verdict(RefusedReason.DESCRIPTORS, set_by="RLIMIT_NOFILE")


class Admission:
    """The limits of a worker.

    :param descriptors: how many sockets RLIMIT_NOFILE leaves room for, the reserve deducted.
    :param reserve: descriptors for other things.
    :param refuses: whether clients beyond a limit are turned away; else they wait.
    :param per_worker: ``worker_connections``; 0: no limit.
    :param part: as of `change`.
    """

    def __init__(
        self,
        descriptors: int,
        *,
        reserve: int = 0,
        refuses: bool = False,
        per_worker: int = 0,
        part: int | None = None,
        rate: float = 0.0,
        now: float = 0.0,
    ) -> None:
        self._most = self._descriptors = max(1, descriptors)
        self._per_worker = per_worker
        self._refuses = refuses
        self._refusals = max(_FEWEST_REFUSALS, reserve // _REFUSALS)
        self._bucket = TokenBucket(rate, now)
        self._part = part
        self.change(part, rate, now)

    @property
    def descriptors(self) -> int:
        """How many sockets may be open here, wherever they come from."""
        return self._descriptors

    @property
    def is_shared(self) -> bool:
        """Whether the limit is one for all workers of the slot."""
        return self._part is not None

    @property
    def refuses(self) -> bool:
        """Whether clients beyond a limit are turned away."""
        return self._refuses

    def change(self, part: int | None, rate: float, now: float) -> None:
        """Go on with other limits.

        :param part: how many connections all workers of the slot together may let in; ``None``: as
            many as descriptors allow in each.
        :param rate: handshakes per second; 0: no limit.
        """
        if part is None and self._per_worker:
            part = self._per_worker
        self._part = part
        self._bucket.change(rate, now)

    def leave(self, count: int) -> None:
        """Leave so many descriptors to others."""
        self._descriptors = max(1, self._most - count)

    def judge(self, held: int, elsewhere: int, refusing: int, now: float) -> Verdict:
        """What to do with the next connection.

        :param held: sockets that are open here and not being turned away.
        :param elsewhere: those of the other workers of the slot.
        :param refusing: sockets that are being turned away.
        :param now: as of `TokenBucket`.
        """
        part = self._part
        if part is not None and held + elsewhere >= part:
            named = self._per_worker and part >= self._per_worker
            set_by = "worker_connections" if named else "max_connections"
            return self._against(RefusedReason.LIMIT, math.inf, refusing, part, set_by)
        if held >= self._descriptors:
            limit = self._descriptors
            return self._against(
                RefusedReason.DESCRIPTORS, math.inf, refusing, limit, "RLIMIT_NOFILE"
            )
        wait = self._bucket.wait(now)
        if wait:
            rate = self._bucket.rate
            return self._against(
                RefusedReason.RATE, wait, refusing, rate, "max_handshakes_per_second"
            )
        return ADMIT

    def admitted(self) -> None:
        """A connection was let in, as `judge` has just allowed."""
        self._bucket.take()

    def _against(
        self, reason: RefusedReason, wait: float, refusing: int, limit: float, set_by: str
    ) -> Verdict:
        if self._refuses:
            # One that is turned away holds a descriptor until it has read why.
            wait = 0.0 if refusing < self._refusals else math.inf
        return Verdict(reason, wait, limit, set_by)


def retry_after(reason: RefusedReason, chance: float) -> int:
    """Seconds after which a client that was turned away may come again (RFC 9110 section 10.2.3).

    :param chance: 0 to 1, so that not all come at once.
    """
    if reason is RefusedReason.RATE:
        return 1
    return 1 + min(_LONGEST_RETRY - 1, int(chance * _LONGEST_RETRY))
