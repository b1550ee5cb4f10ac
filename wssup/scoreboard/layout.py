"""What stands in which cell of the segment. Tables only; nothing here touches memory.

::

    header          16 cells   written by the master
    bridge          16 cells   written by the bridge, a cell at a time
    retired totals 200 cells   a worker block, written by the master
    row 0            8 cells   identity: written by the master
                   200 cells   worker block: written by the worker
    row 1 …

Every part is a multiple of 64 bytes, the cache line of x86-64 and of nearly every arm64, so that no
two writers share a line. A block of zeros is a valid one: nothing counted, not being written, and
its checksum fits.

Whoever changes a table here raises :data:`LAYOUT_VERSION`.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum
from typing import Final

LAYOUT_VERSION: Final = 7
MAGIC: Final = int.from_bytes(b"wssup-sb", "little")

CELL: Final = 8  # bytes
LINE: Final = 8  # cells in a cache line of 64 bytes
MASK: Final = (1 << 64) - 1


class Label(IntEnum):
    """A small number in a cell that has a name in JSON, metrics and logs."""

    @property
    def label(self) -> str:
        """The name in lower_snake_case."""
        return self.name.lower()


class ClosedReason(Label):
    """Why a WebSocket ended. The value is the offset of its counter.

    One that moves to another worker does not end.
    """

    CLIENT = 0  # the client closed it
    SERVER = 1  # the application closed it
    DRAIN = 2  # its worker was drained (1012)
    STOP = 3  # the instance stopped (1001)
    ERROR = 4  # the application raised (1011)
    PROTOCOL = 5  # the client broke RFC 6455 (1002, 1003, 1007)
    TOO_BIG = 6  # a message over the limit (1009)
    LOST = 7  # the connection broke without a closing handshake (1006)
    TIMEOUT = 8  # no answer to a ping
    SLOW_CLIENT = 9  # its send queue was full for too long
    DEADLINE = 10  # still open when the drain's deadline came
    WORKER_DIED = 11  # its worker ended without closing it; counted by the master
    OPERATOR = 12  # somebody used wssup close


class RefusedReason(Label):
    """Why an accepted socket was turned away before its handshake. The value is an offset."""

    DRAINING = 0
    LIMIT = 1
    RATE = 2
    ADDRESS = 3
    ORIGIN = 4
    DESCRIPTORS = 5


class HandshakeFailure(Label):
    """Why an accepted socket never became a WebSocket. The value is an offset."""

    BAD_REQUEST = 0
    TIMEOUT = 1
    DISCONNECTED = 2
    REJECTED = 3  # by the application
    ERROR = 4  # the application raised before it accepted
    DRAINING = 5
    WORKER_DIED = 6  # its worker ended meanwhile; counted by the master
    PLAIN_HTTP = 7  # no WebSocket was asked for: a health check, a browser gone astray


class HttpEnd(Label):
    """How an accepted socket ends that served HTTP, and never became a WebSocket: there is one way,
    and one counter.
    """

    CLOSED = 0


class HandoffRefusal(Label):
    """Why a WebSocket did not move to another worker. The value is an offset."""

    NOT_RESUMABLE = 0  # its application does not say that it can go on elsewhere
    STATE = 1  # ws.state cannot be encoded, or is too large
    SUSPEND_FAILED = 2  # on_suspend raised
    RESUME_FAILED = 3  # it moved, but the new code raised; closed with 1012
    BUSY = 4  # did not become quiet before the deadline
    CLOSING = 5  # it was in its closing handshake
    NO_ROOM = 6  # the receiver is at its limit of descriptors
    LOST = 7  # the link broke before the acknowledgement; it was taken back
    VERSION = 8  # no version of the records that both know


class WorkerState(Label):
    """What a worker is doing."""

    STARTING = 0
    READY = 1
    HOLDING = 2  # accepts no more, keeps its connections
    DRAINING = 3
    STOPPING = 4


class BridgeState(Label):
    """Whether the bridge has its server. A bridge that is dead or stands says nothing of it: its
    heartbeat tells.
    """

    NONE = 0  # there was no bridge yet
    CONNECTING = 1
    CONNECTED = 2
    STOPPED = 3


class BridgeFault(Label):
    """Why a bridge has no connection, or lost the last one."""

    NONE = 0
    NAME = 1  # the server's name is not known
    REFUSED = 2  # nobody listens there, or there is no way
    TIMEOUT = 3
    TLS = 4
    AUTH = 5  # user or password are not accepted
    LOST = 6  # the server closed the connection, or it broke
    BUSY = 7  # the server loads its data, or is read-only
    OTHER = 8  # the log says it


class InstanceState(Label):
    """What the instance as a whole is doing."""

    STARTING = 0
    RUNNING = 1
    RELOADING = 2
    DRAINING = 3
    STOPPING = 4


# The close codes that are counted one by one (RFC 6455 section 7.4.1 and its registry); then come
# registered ones (3000 to 3999), private ones (4000 to 4999), and whatever else.
CLOSE_CODES: Final = (
    *(1000, 1001, 1002, 1003, 1005, 1006, 1007),
    *(1008, 1009, 1010, 1011, 1012, 1013, 1014),
)
CLOSE_LABELS: Final = (*(str(code) for code in CLOSE_CODES), "3xxx", "4xxx", "other")
_CODE_CELLS: Final = {code: index for index, code in enumerate(CLOSE_CODES)}


def close_cell(code: int, *, by_client: bool) -> int:
    """The offset of a close code's counter: the server's codes first, then the clients'."""
    index = _CODE_CELLS.get(code, len(CLOSE_CODES) + {3: 0, 4: 1}.get(code // 1000, 2))
    return index + (len(CLOSE_LABELS) if by_client else 0)


# The upper bounds (exclusive) of the histograms' buckets. One more bucket takes what lies above.
LIFETIME_BOUNDS_S: Final = tuple(1 << n for n in range(18))  # 1 s … 131 072 s, a day and a half
ROUND_TRIP_BOUNDS_US: Final = tuple(1 << n for n in range(24))  # 1 µs … 8.4 s
PAUSE_BOUNDS_US: Final = tuple(round(100 * 2 ** (n / 2)) for n in range(34))  # 0.1 ms … 9.3 s
LIFETIME_BUCKETS: Final = len(LIFETIME_BOUNDS_S) + 1
ROUND_TRIP_BUCKETS: Final = len(ROUND_TRIP_BOUNDS_US) + 1
PAUSE_BUCKETS: Final = len(PAUSE_BOUNDS_US) + 1


def bucket(value: float, buckets: int) -> int:
    """The bucket of ``value``: 0 below 1, then one for each power of two; the last has no end."""
    return min(int(max(value, 0)).bit_length(), buckets - 1)


def pause_bucket(seconds: float) -> int:
    """The bucket of a pause: two for each power of two, as a move's pause is judged closely."""
    return bisect_right(PAUSE_BOUNDS_US, seconds * 1e6)


# The header.
H_MAGIC: Final = 0
H_LAYOUT: Final = 1
H_HEADER_CELLS: Final = 2
H_ROW_CELLS: Final = 3
H_ROWS: Final = 4
H_SLOTS: Final = 5
H_MASTER_PID: Final = 6
H_STARTED_AT: Final = 7  # ns since the epoch
H_GENERATION: Final = 8
H_STATE: Final = 9
H_FOLD_SEQUENCE: Final = 10  # odd while a row moves into the retired totals
H_FOLDING: Final = 11  # the serial of that row, or of the last one
HEADER_CELLS: Final = 2 * LINE

# The bridge. Its counters go on when another process takes its place.
B_SERIAL: Final = 0  # its number among the nodes of the bus; 0: there was none yet
B_STATE: Final = 1
B_FAULT: Final = 2
B_HEARTBEAT: Final = 3  # ns, CLOCK_MONOTONIC
B_SINCE: Final = 4  # ns, CLOCK_MONOTONIC: of the connection
B_CONNECTS: Final = 5
B_SENT: Final = 6
B_RECEIVED: Final = 7
B_LOST: Final = 8
B_MISSED: Final = 9
B_QUEUE_BYTES: Final = 10
B_BUS_SENT: Final = 11
B_BUS_RECEIVED: Final = 12
B_BUS_LOST: Final = 13
B_BUS_MISSED: Final = 14
BRIDGE_CELLS: Final = 2 * LINE

# The identity of a row: whose it is.
SERIAL: Final = 0  # the worker's number, never used twice; 0: the row is free
PID: Final = 1
SLOT: Final = 2
GENERATION: Final = 3
STATE: Final = 4
STARTED: Final = 5  # ns, CLOCK_MONOTONIC
IDENTITY_CELLS: Final = LINE

# A worker block: sequence and checksum, gauges, then counters.
SEQUENCE: Final = 0
CHECKSUM: Final = 1
HEARTBEAT: Final = 2  # ns, CLOCK_MONOTONIC
LAG_LAST: Final = 3  # ns
LAG_MAX: Final = 4  # ns
SEND_QUEUE_BYTES: Final = 5
ACCEPTING: Final = 6  # 0 or 1
SUBSCRIPTIONS: Final = 7  # of connections to topics
TOPICS: Final = 8  # that have any
BUS_QUEUE_BYTES: Final = 9  # for all other nodes together
ADMITS: Final = 10  # connections that its slot may have as far as it knows, plus one; 0: any
COUNTERS: Final = 2 * LINE  # the first counter
ACCEPTED: Final = COUNTERS
UPGRADED: Final = ACCEPTED + 1
CLOSED: Final = UPGRADED + 1
REFUSED: Final = CLOSED + len(ClosedReason)
HANDSHAKE_FAILED: Final = REFUSED + len(RefusedReason)
HTTP_CLOSED: Final = HANDSHAKE_FAILED + len(HandshakeFailure)  # served HTTP, and no WebSocket
MOVED_OUT: Final = HTTP_CLOSED + 1
MOVED_IN: Final = MOVED_OUT + 1  # after every kind of end: counts.plausible() relies on it
MESSAGES_IN: Final = MOVED_IN + 1
MESSAGES_OUT: Final = MESSAGES_IN + 1
BYTES_IN: Final = MESSAGES_OUT + 1
BYTES_OUT: Final = BYTES_IN + 1
PINGS_SENT: Final = BYTES_OUT + 1
PING_TIMEOUTS: Final = PINGS_SENT + 1
HANDLER_RUNS: Final = PING_TIMEOUTS + 1
HANDLER_ERRORS: Final = HANDLER_RUNS + 1
HANDOFF_BYTES: Final = HANDLER_ERRORS + 1
HANDOFF_REFUSED: Final = HANDOFF_BYTES + 1
CLOSES: Final = HANDOFF_REFUSED + len(HandoffRefusal)
LIFETIMES: Final = CLOSES + 2 * len(CLOSE_LABELS)
ROUND_TRIPS: Final = LIFETIMES + LIFETIME_BUCKETS
PAUSES: Final = ROUND_TRIPS + ROUND_TRIP_BUCKETS
PUBLISHED: Final = PAUSES + PAUSE_BUCKETS
DELIVERED: Final = PUBLISHED + 1  # a message to five subscribers counts five times
BUS_SENT: Final = DELIVERED + 1  # a message to three nodes counts three times
BUS_BYTES: Final = BUS_SENT + 1
BUS_RECEIVED: Final = BUS_BYTES + 1
BUS_LOST: Final = BUS_RECEIVED + 1  # dropped: the queue of a slow node was full
BUS_MISSED: Final = BUS_LOST + 1  # dropped elsewhere: their sender said so
TOPIC_DROPPED: Final = BUS_MISSED + 1  # not delivered: a subscriber's queue was full
RECOVERED: Final = TOPIC_DROPPED + 1  # subscriptions that got all they had missed
NOT_RECOVERED: Final = RECOVERED + 1
LIFETIMES_SUM: Final = NOT_RECOVERED + 1  # µs, of all that LIFETIMES counts
ROUND_TRIPS_SUM: Final = LIFETIMES_SUM + 1  # µs
PAUSES_SUM: Final = ROUND_TRIPS_SUM + 1  # µs
HTTP_REQUESTS: Final = PAUSES_SUM + 1
HTTP_ERRORS: Final = HTTP_REQUESTS + 1  # answered with a status of 500 or more
COUNTERS_END: Final = HTTP_ERRORS + 1
BLOCK_CELLS: Final = -(-COUNTERS_END // LINE) * LINE

ROW_CELLS: Final = IDENTITY_CELLS + BLOCK_CELLS
BRIDGE: Final = HEADER_CELLS  # where the bridge's cells begin
RETIRED: Final = BRIDGE + BRIDGE_CELLS  # where the retired totals begin
POOL: Final = RETIRED + BLOCK_CELLS  # where the rows begin

# The checksum's weights, one for each cell of a block: powers of an odd number modulo 2**64. They
# are odd, so a change of one cell always shows, and look random, so several do not cancel out.
WEIGHTS: Final = tuple(
    0 if cell in (SEQUENCE, CHECKSUM) else pow(0x9E3779B97F4A7C15, cell, 1 << 64)
    for cell in range(BLOCK_CELLS)
)


def segment_size(rows: int) -> int:
    """The bytes that a segment with ``rows`` rows takes."""
    return (POOL + rows * ROW_CELLS) * CELL
