"""Writing one block of counters and copying it while it is written.

A sequence lock (as in the kernel's Documentation/locking/seqlock.rst) with one writer and without
memory barriers, which Python does not have. On x86-64 stores become visible in program order and
none are needed; elsewhere the checksum tells a copy that mixes two states.
"""

from __future__ import annotations

from operator import mul
from typing import Final, Protocol, Self, overload

from wssup.scoreboard.layout import (
    ACCEPTED,
    ACCEPTING,
    ADMITS,
    BLOCK_CELLS,
    BUS_BYTES,
    BUS_LOST,
    BUS_MISSED,
    BUS_QUEUE_BYTES,
    BUS_RECEIVED,
    BUS_SENT,
    BYTES_IN,
    BYTES_OUT,
    CHECKSUM,
    CLOSED,
    CLOSES,
    DELIVERED,
    HANDLER_ERRORS,
    HANDLER_RUNS,
    HANDOFF_BYTES,
    HANDOFF_REFUSED,
    HANDSHAKE_FAILED,
    HEARTBEAT,
    HTTP_CLOSED,
    HTTP_ERRORS,
    HTTP_REQUESTS,
    LAG_LAST,
    LAG_MAX,
    LIFETIME_BUCKETS,
    LIFETIMES,
    LIFETIMES_SUM,
    MASK,
    MESSAGES_IN,
    MESSAGES_OUT,
    MOVED_IN,
    MOVED_OUT,
    NOT_RECOVERED,
    PAUSES,
    PAUSES_SUM,
    PING_TIMEOUTS,
    PINGS_SENT,
    PUBLISHED,
    RECOVERED,
    REFUSED,
    ROUND_TRIP_BUCKETS,
    ROUND_TRIPS,
    ROUND_TRIPS_SUM,
    SEND_QUEUE_BYTES,
    SEQUENCE,
    SUBSCRIPTIONS,
    TOPIC_DROPPED,
    TOPICS,
    UPGRADED,
    WEIGHTS,
    ClosedReason,
    HandoffRefusal,
    HandshakeFailure,
    RefusedReason,
    bucket,
    close_cell,
    pause_bucket,
)

# A worker writes for about a microsecond at a time; these tries outlast several transactions.
# A worker that is dead, stopped or without a processor is not waited for: sched_yield(2) on a busy
# machine costs the reader milliseconds each time, and the last good copy is at hand.
COPY_TRIES: Final = 64
#: RFC 9110 section 15.6: the server is at fault, from here on.
_SERVER_ERROR: Final = 500


class Cells(Protocol):
    """What is used of ``memoryview.cast("Q")``: aligned 64-bit cells."""

    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, part: slice, /) -> Self: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...
    def __len__(self) -> int: ...

    def tolist(self) -> list[int]:
        """A copy, taken cell by cell."""
        ...

    def release(self) -> None:
        """Let go of the memory."""


def checksum(block: list[int]) -> int:
    """The weighted sum of a block's gauges and counters, modulo 2**64."""
    total: int = sum(map(mul, block, WEIGHTS))
    return total & MASK


def _microseconds(seconds: float) -> int:
    """What a sum of durations grows by; a clock that went backwards adds nothing."""
    return max(0, int(seconds * 1e6))


def commit(block: Cells, *changes: tuple[int, int]) -> None:
    """Add to cells of a block in one transaction, in the order given.

    An odd sequence at the start means that an earlier transaction did not end (an exception came
    in between): the checksum is made anew, or readers would distrust the block for ever.

    :param changes: pairs of cell and difference; a difference may be negative (gauges).
    """
    sequence = block[SEQUENCE]
    if sequence & 1:
        total = checksum(block[:BLOCK_CELLS].tolist())
    else:
        total = block[CHECKSUM]
        sequence += 1
        block[SEQUENCE] = sequence
    for cell, difference in changes:
        block[cell] = (block[cell] + difference) & MASK
        total += difference * WEIGHTS[cell]
    block[CHECKSUM] = total & MASK
    block[SEQUENCE] = (sequence + 1) & MASK


def copy_committed(block: Cells) -> list[int] | None:
    """A copy of a block between two transactions.

    :returns: the cells, or ``None`` if no try gave a good copy: its writer died or was stopped in
        the middle of a transaction, or writes without pause. Takes well under a millisecond of
        processor time.
    """
    for _ in range(COPY_TRIES):
        before = block[SEQUENCE]
        if before & 1:
            continue
        copy = block[:BLOCK_CELLS].tolist()
        if block[SEQUENCE] == before and checksum(copy) == copy[CHECKSUM]:
            return copy
    return None


class RowWriter:
    """A worker's hand on its own row. Each call is one transaction, between about 0.5 and 2 µs.

    Calls must come from one thread, and not from a signal handler: a transaction inside another one
    would spoil the checksum.

    Every socket has one beginning here, :meth:`accepted` or :meth:`moved_in`, and exactly one end.
    One that was accepted ends in :meth:`refused`, :meth:`handshake_failed`, :meth:`http_closed`,
    :meth:`closed` or :meth:`moved_out`, with :meth:`upgraded` in between if, and only if, it ends
    in one of the last two. One that moved in is a WebSocket already and ends in :meth:`closed` or
    :meth:`moved_out`.
    """

    __slots__ = ("_block",)

    def __init__(self, block: Cells) -> None:
        self._block = block

    def accepted(self) -> None:
        """A socket came from ``accept()``: call this before anything is done with it."""
        commit(self._block, (ACCEPTED, 1))

    def upgraded(self) -> None:
        """An accepted socket became a WebSocket (RFC 6455 section 4.2.2)."""
        commit(self._block, (UPGRADED, 1))

    def closed(
        self, reason: ClosedReason, lifetime_s: float, code: int = 1006, *, by_client: bool = True
    ) -> None:
        """A WebSocket ended, ``lifetime_s`` seconds after it had been upgraded.

        :param code: the close code (RFC 6455 section 7.4), 1006 for a connection that broke.
        :param by_client: who began to close it.
        """
        lifetime = LIFETIMES + bucket(lifetime_s, LIFETIME_BUCKETS)
        cell = CLOSES + close_cell(code, by_client=by_client)
        commit(
            self._block,
            (CLOSED + reason, 1),
            (lifetime, 1),
            (cell, 1),
            (LIFETIMES_SUM, _microseconds(lifetime_s)),
        )

    def refused(self, reason: RefusedReason) -> None:
        """An accepted socket was turned away before its handshake."""
        commit(self._block, (REFUSED + reason, 1))

    def handshake_failed(self, reason: HandshakeFailure) -> None:
        """An accepted socket ended without becoming a WebSocket."""
        commit(self._block, (HANDSHAKE_FAILED + reason, 1))

    def http_closed(self) -> None:
        """An accepted socket ended that served HTTP, and never became a WebSocket."""
        commit(self._block, (HTTP_CLOSED, 1))

    def http_request(self, status: int) -> None:
        """An HTTP request was answered; 0: it could not be."""
        failed = int(status >= _SERVER_ERROR)
        commit(self._block, (HTTP_REQUESTS, 1), (HTTP_ERRORS, failed))

    def http_requests(self, answered: int, failed: int) -> None:
        """HTTP requests that were answered since the last call, by runs of the application of which
        some failed.
        """
        commit(
            self._block,
            (HTTP_REQUESTS, answered),
            (HTTP_ERRORS, failed),
            (HANDLER_RUNS, answered),
            (HANDLER_ERRORS, failed),
        )

    def moved_in(self, pause_s: float) -> None:
        """A WebSocket came from another worker.

        Call it right after the acknowledgement was sent, before anything is done with the socket:
        from then on it is this worker's.

        :param pause_s: how long nobody served it, in seconds.
        """
        commit(
            self._block,
            (MOVED_IN, 1),
            (PAUSES + pause_bucket(pause_s), 1),
            (PAUSES_SUM, _microseconds(pause_s)),
        )

    def moved_out(self, size: int) -> None:
        """A WebSocket went to another worker, and lives on there.

        Call it right after the acknowledgement was read.

        :param size: the bytes of its record.
        """
        commit(self._block, (MOVED_OUT, 1), (HANDOFF_BYTES, size))

    def not_moved(self, reason: HandoffRefusal) -> None:
        """A WebSocket that should have moved did not, or could not go on; no end by itself."""
        commit(self._block, (HANDOFF_REFUSED + reason, 1))

    def handler_run(self) -> None:
        """The application's handler was called."""
        commit(self._block, (HANDLER_RUNS, 1))

    def handler_error(self) -> None:
        """The application's handler raised."""
        commit(self._block, (HANDLER_ERRORS, 1))

    def traffic(self, messages_in: int, messages_out: int, bytes_in: int, bytes_out: int) -> None:
        """Messages and their payload bytes since the last call."""
        commit(
            self._block,
            (MESSAGES_IN, messages_in),
            (MESSAGES_OUT, messages_out),
            (BYTES_IN, bytes_in),
            (BYTES_OUT, bytes_out),
        )

    def topics(
        self,
        *,
        subscriptions: int,
        topics: int,
        queue_bytes: int,
        published: int = 0,
        delivered: int = 0,
        sent: int = 0,
        sent_bytes: int = 0,
        received: int = 0,
        lost: int = 0,
        missed: int = 0,
        dropped: int = 0,
        recovered: int = 0,
        not_recovered: int = 0,
    ) -> None:
        """What there is now of topics, and what was done since the last call.

        :param subscriptions: of all connections; ``topics``: how many different ones.
        :param queue_bytes: what waits for other nodes of the bus.
        :param published: messages published here.
        :param delivered: messages put into a subscriber's queue, for each subscriber.
        :param sent: messages, each as often as there were nodes to send it to; ``sent_bytes`` their
            bytes.
        :param received: messages of other nodes.
        :param lost: messages that a node's full queue had no room for; ``missed``: that other
            nodes say had none here.
        :param dropped: messages that a subscriber's full queue had no room for.
        :param recovered: subscriptions that got all they had missed; ``not_recovered``: that asked
            for it and did not.
        """
        block = self._block
        changes = (
            (SUBSCRIPTIONS, subscriptions - block[SUBSCRIPTIONS]),
            (TOPICS, topics - block[TOPICS]),
            (BUS_QUEUE_BYTES, queue_bytes - block[BUS_QUEUE_BYTES]),
            (PUBLISHED, published),
            (DELIVERED, delivered),
            (BUS_SENT, sent),
            (BUS_BYTES, sent_bytes),
            (BUS_RECEIVED, received),
            (BUS_LOST, lost),
            (BUS_MISSED, missed),
            (TOPIC_DROPPED, dropped),
            (RECOVERED, recovered),
            (NOT_RECOVERED, not_recovered),
        )
        # Most turns have nothing to do with topics.
        real = [change for change in changes if change[1]]
        if real:
            commit(block, *real)

    def ping_sent(self) -> None:
        """A keepalive ping was sent (RFC 6455 section 5.5.2)."""
        commit(self._block, (PINGS_SENT, 1))

    def ping_timeout(self) -> None:
        """A ping was not answered in time."""
        commit(self._block, (PING_TIMEOUTS, 1))

    def round_trip(self, seconds: float) -> None:
        """A ping was answered after ``seconds``."""
        taken = _microseconds(seconds)
        trip = ROUND_TRIPS + bucket(taken, ROUND_TRIP_BUCKETS)
        commit(self._block, (trip, 1), (ROUND_TRIPS_SUM, taken))

    def heartbeat(self, now_ns: int, lag_ns: int) -> None:
        """The event loop runs.

        :param now_ns: the time on CLOCK_MONOTONIC, in nanoseconds.
        :param lag_ns: how much later than asked for the loop called back, in nanoseconds.
        """
        block = self._block
        commit(
            block,
            (HEARTBEAT, now_ns - block[HEARTBEAT]),
            (LAG_LAST, lag_ns - block[LAG_LAST]),
            (LAG_MAX, max(lag_ns - block[LAG_MAX], 0)),
        )

    def send_queue(self, size: int) -> None:
        """The bytes that now wait in all send queues of this worker."""
        commit(self._block, (SEND_QUEUE_BYTES, size - self._block[SEND_QUEUE_BYTES]))

    def accepting(self, accepting: bool) -> None:  # noqa: FBT001 - the one value of a gauge
        """Whether the worker now takes new connections."""
        commit(self._block, (ACCEPTING, int(accepting) - self._block[ACCEPTING]))

    def admits(self, most: int | None) -> None:
        """How many connections its slot may have, which the worker now goes by."""
        commit(self._block, (ADMITS, (0 if most is None else most + 1) - self._block[ADMITS]))
