"""The scoreboard: one shared-memory segment that counts every connection of an instance.

A header, the bridge's cells, the retired totals, and a pool of rows, one row per living worker. All
cells are native unsigned 64-bit integers, and every cell has one writer: a worker writes the
counters and gauges of its own row, the bridge its own cells, the master writes everything else.
Readers need nobody's help.

**Why the count is true.** A socket is accepted once and ends exactly once: in ``closed`` (it had
been upgraded to a WebSocket), in ``refused`` or in ``handshake_failed``. In between a WebSocket may
move from worker to worker; in each row a move is a beginning (``moved_in``) or an end
(``moved_out``). How many are open is no cell but a difference, so it cannot drift from what it
counts::

    open   = accepted + moved_in - moved_out - closed - refused - handshake_failed      sockets
    active = upgraded + moved_in - moved_out - closed                                   WebSockets

Each of those events is one aligned 8-byte store. A worker that is killed at any instant has made
that store or has not; it never leaves a connection counted by half. When the master has reaped it,
:meth:`Scoreboard.fold` adds its row to the retired totals, with what was open as ``worker_died``.

**Why a move is never seen by half.** It is two cells in two rows, which cannot change at once. Over
all workers both count the same moves, so in :attr:`Snapshot.total` both are the greater number, and
``active`` is ``upgraded - closed`` at every moment. A worker that dies between a move and its store
has a peer that knows of the move: :meth:`Scoreboard.fold` takes the peer's number.

**Why a reader is never misled and never hangs.** A row carries a sequence number that is odd while
its worker writes, and a checksum. A copy is good if the number was even and the same before and
after, and the checksum fits. If it does not come out good after a bounded number of tries (the
worker was killed or stopped while it wrote), the reader returns the last good copy, marked stale.

The files: ``layout`` says what stands where, ``row`` writes and copies one row, ``bridge`` the
bridge's cells, ``counts`` gives the numbers their names, ``segment`` makes and removes the shared
memory, ``header`` describes it, and ``board`` is the whole.
"""

from __future__ import annotations

from wssup.scoreboard.board import Scoreboard
from wssup.scoreboard.bridge import BridgeView, BridgeWriter
from wssup.scoreboard.counts import Counts, RowView, Snapshot, TopicCounts
from wssup.scoreboard.glance import Glance
from wssup.scoreboard.layout import (
    LIFETIME_BOUNDS_S,
    PAUSE_BOUNDS_US,
    ROUND_TRIP_BOUNDS_US,
    BridgeFault,
    BridgeState,
    ClosedReason,
    HandoffRefusal,
    HandshakeFailure,
    HttpEnd,
    InstanceState,
    Label,
    RefusedReason,
    WorkerState,
)
from wssup.scoreboard.row import RowWriter

__all__ = [
    "LIFETIME_BOUNDS_S",
    "PAUSE_BOUNDS_US",
    "ROUND_TRIP_BOUNDS_US",
    "BridgeFault",
    "BridgeState",
    "BridgeView",
    "BridgeWriter",
    "ClosedReason",
    "Counts",
    "Glance",
    "HandoffRefusal",
    "HandshakeFailure",
    "HttpEnd",
    "InstanceState",
    "Label",
    "RefusedReason",
    "RowView",
    "RowWriter",
    "Scoreboard",
    "Snapshot",
    "TopicCounts",
    "WorkerState",
]
