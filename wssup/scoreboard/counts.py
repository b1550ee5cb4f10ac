"""The numbers of a block under their names. Pure functions and frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from wssup.scoreboard.histogram import Histogram
from wssup.scoreboard.layout import (
    ACCEPTED,
    BYTES_IN,
    BYTES_OUT,
    CLOSE_LABELS,
    CLOSED,
    CLOSES,
    COUNTERS,
    COUNTERS_END,
    HANDLER_ERRORS,
    HANDLER_RUNS,
    HANDOFF_BYTES,
    HANDOFF_REFUSED,
    HANDSHAKE_FAILED,
    HTTP_CLOSED,
    HTTP_ERRORS,
    HTTP_REQUESTS,
    LIFETIME_BOUNDS_S,
    LIFETIME_BUCKETS,
    LIFETIMES,
    LIFETIMES_SUM,
    MESSAGES_IN,
    MESSAGES_OUT,
    MOVED_IN,
    MOVED_OUT,
    NOT_RECOVERED,
    PAUSE_BOUNDS_US,
    PAUSE_BUCKETS,
    PAUSES,
    PAUSES_SUM,
    PING_TIMEOUTS,
    PINGS_SENT,
    PUBLISHED,
    REFUSED,
    ROUND_TRIP_BOUNDS_US,
    ROUND_TRIP_BUCKETS,
    ROUND_TRIPS,
    ROUND_TRIPS_SUM,
    UPGRADED,
    ClosedReason,
    HandoffRefusal,
    HandshakeFailure,
    InstanceState,
    Label,
    RefusedReason,
    WorkerState,
)

_LIFETIME_BOUNDS = tuple(float(bound) for bound in LIFETIME_BOUNDS_S)
_ROUND_TRIP_BOUNDS = tuple(bound / 1e6 for bound in ROUND_TRIP_BOUNDS_US)
_PAUSE_BOUNDS = tuple(bound / 1e6 for bound in PAUSE_BOUNDS_US)
_CLOSED = slice(CLOSED, CLOSED + len(ClosedReason))
_REFUSED = slice(REFUSED, REFUSED + len(RefusedReason))
_HANDSHAKE_FAILED = slice(HANDSHAKE_FAILED, HANDSHAKE_FAILED + len(HandshakeFailure))


def plausible(block: list[int]) -> list[int]:
    """A copy of a block, taken while it was written, without its contradictions.

    Cells copied at different moments may show an end whose beginning was copied too early. Each end
    seen proves its beginning, so the beginnings are raised to what the ends prove. The result is
    never above what the worker has really counted, hence a later good copy never goes backwards.
    """
    mended = list(block)
    # An end proves an upgrade here or a move to here; those moves that were seen are not upgrades.
    # Never too high: MOVED_IN is copied after all ends, and when it is, there are at least as many
    # ends as were copied, and as many upgrades and moves to here together. (On a processor that
    # reorders loads it can be too high by what began meanwhile, and only in a copy that is stale.)
    ends = sum(block[_CLOSED]) + block[MOVED_OUT]
    mended[UPGRADED] = max(block[UPGRADED], ends - block[MOVED_IN])
    # Only a socket accepted here is upgraded, refused, fails or serves HTTP here; one that moved in
    # does not.
    before_upgrade = sum(block[_REFUSED]) + sum(block[_HANDSHAKE_FAILED]) + block[HTTP_CLOSED]
    mended[ACCEPTED] = max(block[ACCEPTED], mended[UPGRADED] + before_upgrade)
    return mended


def ended(
    block: list[int], *, moved_in: int | None = None, moved_out: int | None = None
) -> list[int]:
    """What a block counts once its worker is gone: what was open has ended as ``worker_died``.

    :param moved_in: how many connections its peers say they gave it, if they are known; the same
        of ``moved_out`` and what they took. A move counts if either side has counted it.
    """
    told = list(block)
    told[MOVED_IN] = max(block[MOVED_IN], moved_in or 0)
    told[MOVED_OUT] = max(block[MOVED_OUT], moved_out or 0)
    final = plausible(told)
    counts = Counts.of(final)
    final[CLOSED + ClosedReason.WORKER_DIED] += counts.active
    final[HANDSHAKE_FAILED + HandshakeFailure.WORKER_DIED] += counts.open - counts.active
    return final


def _by_label(labels: type[Label], numbers: tuple[int, ...]) -> dict[str, int]:
    return {member.label: numbers[member] for member in labels}


class TopicCounts(NamedTuple):
    """What was counted of topics, in the order of the layout.

    :ivar published: messages published here.
    :ivar delivered: messages put into a subscriber's queue, for each subscriber.
    :ivar bus_sent: messages sent to other nodes of the bus, for each node; ``bus_bytes`` theirs.
    :ivar bus_received: messages of other nodes.
    :ivar bus_lost: messages that the full queue of a slow node had no room for.
    :ivar bus_missed: messages that other nodes dropped so.
    :ivar dropped: messages that the full queue of a subscriber had no room for.
    :ivar recovered: subscriptions that got all they had missed; ``not_recovered``: that did not.
    """

    published: int
    delivered: int
    bus_sent: int
    bus_bytes: int
    bus_received: int
    bus_lost: int
    bus_missed: int
    dropped: int
    recovered: int
    not_recovered: int


class Counts(msgspec.Struct, frozen=True):
    """What was counted: by one worker, by all that are gone, or altogether.

    :ivar cells: the counters in the order of the layout.
    """

    cells: tuple[int, ...]

    @classmethod
    def of(cls, block: list[int]) -> Counts:
        """The counters of a copied block."""
        return cls(tuple(block[COUNTERS:COUNTERS_END]))

    def __add__(self, other: Counts) -> Counts:
        return Counts(tuple(a + b for a, b in zip(self.cells, other.cells, strict=True)))

    def _part(self, start: int, length: int) -> tuple[int, ...]:
        return self.cells[start - COUNTERS : start - COUNTERS + length]

    @property
    def open(self) -> int:
        """Sockets accepted or moved to here, and neither ended nor moved away."""
        begun = self.accepted + self.moved_in
        over = self.moved_out + self.closed + self.refused + self.handshake_failures
        return begun - over - self.http_closed

    @property
    def active(self) -> int:
        """WebSockets upgraded or moved to here, and neither ended nor moved away."""
        return self.upgraded + self.moved_in - self.moved_out - self.closed

    @property
    def accepted(self) -> int:
        """Sockets accepted."""
        return self.cells[ACCEPTED - COUNTERS]

    @property
    def upgraded(self) -> int:
        """Sockets that became WebSockets."""
        return self.cells[UPGRADED - COUNTERS]

    @property
    def closed(self) -> int:
        """WebSockets ended, for whatever reason."""
        return sum(self._part(CLOSED, len(ClosedReason)))

    @property
    def refused(self) -> int:
        """Sockets turned away before their handshake, for whatever reason."""
        return sum(self._part(REFUSED, len(RefusedReason)))

    @property
    def handshake_failures(self) -> int:
        """Sockets that ended without becoming a WebSocket, for whatever reason."""
        return sum(self._part(HANDSHAKE_FAILED, len(HandshakeFailure)))

    @property
    def http_closed(self) -> int:
        """Sockets that ended after they had served HTTP, and no WebSocket."""
        return self.cells[HTTP_CLOSED - COUNTERS]

    @property
    def http_requests(self) -> int:
        """HTTP requests that were answered by the application."""
        return self.cells[HTTP_REQUESTS - COUNTERS]

    @property
    def http_errors(self) -> int:
        """HTTP requests that were answered with a status of 500 or more."""
        return self.cells[HTTP_ERRORS - COUNTERS]

    @property
    def moved_in(self) -> int:
        """WebSockets that came from another worker."""
        return self.cells[MOVED_IN - COUNTERS]

    @property
    def moved_out(self) -> int:
        """WebSockets that went to another worker."""
        return self.cells[MOVED_OUT - COUNTERS]

    @property
    def closed_by_reason(self) -> dict[str, int]:
        """:attr:`closed`, divided by the labels of :class:`ClosedReason`."""
        return _by_label(ClosedReason, self._part(CLOSED, len(ClosedReason)))

    @property
    def refused_by_reason(self) -> dict[str, int]:
        """:attr:`refused`, divided by the labels of :class:`RefusedReason`."""
        return _by_label(RefusedReason, self._part(REFUSED, len(RefusedReason)))

    @property
    def handshake_failures_by_reason(self) -> dict[str, int]:
        """:attr:`handshake_failures`, divided by the labels of :class:`HandshakeFailure`."""
        return _by_label(HandshakeFailure, self._part(HANDSHAKE_FAILED, len(HandshakeFailure)))

    @property
    def handoff_refused_by_reason(self) -> dict[str, int]:
        """WebSockets that should have moved and did not, by the labels of HandoffRefusal."""
        return _by_label(HandoffRefusal, self._part(HANDOFF_REFUSED, len(HandoffRefusal)))

    @property
    def closes_by_code(self) -> dict[str, dict[str, int]]:
        """:attr:`closed`, without what the master counted itself, divided by who began to close
        (``server``, ``client``) and by close code; codes that did not occur are left out.
        """
        half = len(CLOSE_LABELS)
        counted = self._part(CLOSES, 2 * half)
        return {
            who: {label: count for label, count in zip(CLOSE_LABELS, part, strict=True) if count}
            for who, part in (("server", counted[:half]), ("client", counted[half:]))
        }

    @property
    def messages_in(self) -> int:
        """Messages received."""
        return self.cells[MESSAGES_IN - COUNTERS]

    @property
    def messages_out(self) -> int:
        """Messages sent."""
        return self.cells[MESSAGES_OUT - COUNTERS]

    @property
    def bytes_in(self) -> int:
        """Payload bytes received."""
        return self.cells[BYTES_IN - COUNTERS]

    @property
    def bytes_out(self) -> int:
        """Payload bytes sent."""
        return self.cells[BYTES_OUT - COUNTERS]

    @property
    def pings_sent(self) -> int:
        """Keepalive pings sent."""
        return self.cells[PINGS_SENT - COUNTERS]

    @property
    def ping_timeouts(self) -> int:
        """Keepalive pings not answered in time."""
        return self.cells[PING_TIMEOUTS - COUNTERS]

    @property
    def handler_runs(self) -> int:
        """Calls of the application's handler."""
        return self.cells[HANDLER_RUNS - COUNTERS]

    @property
    def handler_errors(self) -> int:
        """Calls of the application's handler that raised."""
        return self.cells[HANDLER_ERRORS - COUNTERS]

    @property
    def handoff_bytes(self) -> int:
        """Bytes of the records of :attr:`moved_out`."""
        return self.cells[HANDOFF_BYTES - COUNTERS]

    @property
    def topics(self) -> TopicCounts:
        """What was done with topics."""
        return TopicCounts(*self._part(PUBLISHED, NOT_RECOVERED + 1 - PUBLISHED))

    @property
    def lifetimes(self) -> tuple[int, ...]:
        """Ended WebSockets by age: a bucket for each of LIFETIME_BOUNDS_S and one above."""
        return self._part(LIFETIMES, LIFETIME_BUCKETS)

    @property
    def round_trips(self) -> tuple[int, ...]:
        """Answered pings by time: a bucket for each of ROUND_TRIP_BOUNDS_US and one above."""
        return self._part(ROUND_TRIPS, ROUND_TRIP_BUCKETS)

    @property
    def pauses(self) -> tuple[int, ...]:
        """:attr:`moved_in` by pause: a bucket for each of PAUSE_BOUNDS_US and one above."""
        return self._part(PAUSES, PAUSE_BUCKETS)

    @property
    def lifetime(self) -> Histogram:
        """:attr:`lifetimes` in seconds, with their sum."""
        return Histogram(_LIFETIME_BOUNDS, self.lifetimes, self._seconds(LIFETIMES_SUM))

    @property
    def round_trip(self) -> Histogram:
        """:attr:`round_trips` in seconds, with their sum."""
        return Histogram(_ROUND_TRIP_BOUNDS, self.round_trips, self._seconds(ROUND_TRIPS_SUM))

    @property
    def pause(self) -> Histogram:
        """:attr:`pauses` in seconds, with their sum."""
        return Histogram(_PAUSE_BOUNDS, self.pauses, self._seconds(PAUSES_SUM))

    def _seconds(self, cell: int) -> float:
        return self.cells[cell - COUNTERS] / 1e6


def altogether(parts: Iterable[Counts]) -> Counts:
    """The sum over all workers there are and were, without the contradictions between them.

    A move is counted in two rows, at two moments; over all workers the greater number is true. Rows
    are not copied at one moment either, and a stale one is old: a WebSocket that one row shows as
    closed may have begun after the copy of another row. So its beginning is raised to its end here
    as well. Sums and maxima of numbers that only grow, so none of these goes backwards.
    """
    columns = zip(*(part.cells for part in parts), strict=True)
    block = [0] * COUNTERS + [sum(column) for column in columns]
    block[MOVED_IN] = block[MOVED_OUT] = max(block[MOVED_IN], block[MOVED_OUT])
    return Counts.of(plausible(block))


class RowView(msgspec.Struct, frozen=True):
    """One worker as its row showed it.

    :ivar row: the row's index in the pool.
    :ivar serial: the worker's number, never used twice in one instance.
    :ivar pid: 0 until the master knows it.
    :ivar started_ns: when the row was allocated, in ns of CLOCK_MONOTONIC.
    :ivar heartbeat_ns: when the event loop last ran, in ns of CLOCK_MONOTONIC; 0: not yet.
    :ivar lag_last_ns: the last lag of the event loop, in ns; ``lag_max_ns`` the greatest.
    :ivar send_queue_bytes: what waits to be sent to clients.
    :ivar subscriptions: of its connections to topics; ``topics``: how many different ones.
    :ivar bus_queue_bytes: what waits to be sent to other nodes of the bus.
    :ivar stale: no good copy could be taken; gauges and counts are older, or from within a write.
    :ivar admits: how many connections its slot may have as far as it knows; ``None``: any.
    """

    row: int
    serial: int
    pid: int
    slot: int
    generation: int
    state: WorkerState
    started_ns: int
    heartbeat_ns: int
    lag_last_ns: int
    lag_max_ns: int
    accepting: bool
    send_queue_bytes: int
    subscriptions: int
    topics: int
    bus_queue_bytes: int
    counts: Counts
    stale: bool
    admits: int | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """All rows and the retired totals at one moment.

    :ivar state: of the instance: if it ends, and its workers accept no more, it says so.
    :ivar rows: the living workers, in the order of the pool.
    :ivar retired: what workers counted that are gone.
    :ivar total: ``retired`` and all rows together; no counter in it ever goes backwards. Its
        ``moved_in`` and ``moved_out`` are the same: the moves that either side has counted.
    :ivar stale: the retired totals could not be read consistently with the rows, because the master
        died or is stopped while it folds a row.
    """

    state: InstanceState
    rows: tuple[RowView, ...]
    retired: Counts
    total: Counts
    stale: bool
