"""What the bridge to a Redis server says of itself: cells of its own, which it alone writes."""

from __future__ import annotations

import msgspec

from wssup.scoreboard.layout import (
    B_BUS_LOST,
    B_BUS_MISSED,
    B_BUS_RECEIVED,
    B_BUS_SENT,
    B_CONNECTS,
    B_FAULT,
    B_HEARTBEAT,
    B_LOST,
    B_MISSED,
    B_QUEUE_BYTES,
    B_RECEIVED,
    B_SENT,
    B_SERIAL,
    B_SINCE,
    B_STATE,
    MASK,
    BridgeFault,
    BridgeState,
)
from wssup.scoreboard.row import Cells

__all__ = ["BridgeView", "BridgeWriter"]


class BridgeView(msgspec.Struct, frozen=True):
    """The bridge as its cells showed it. Each cell is right; they are not of one moment.

    Counters are of all bridges that the instance has had.

    :ivar serial: the number of the newest among the nodes of the bus.
    :ivar heartbeat_ns: when its loop last ran, in ns of CLOCK_MONOTONIC.
    :ivar since_ns: when it got its connection, in ns of CLOCK_MONOTONIC; 0: it has none.
    :ivar connects: connections made.
    :ivar sent: messages that the server took; ``received``: that came from it.
    :ivar lost: messages that were dropped on their way to the server.
    :ivar missed: messages of the server that never came, as far as is known.
    :ivar queue_bytes: what waits for the server.
    :ivar bus_sent: messages to the workers, each as often as there were workers to send it to.
    :ivar bus_received: messages of the workers.
    :ivar bus_lost: messages to workers that their full queues had no room for.
    :ivar bus_missed: messages that the workers say had no room in the bridge's queue.
    """

    serial: int
    state: BridgeState
    fault: BridgeFault
    heartbeat_ns: int
    since_ns: int
    connects: int
    sent: int
    received: int
    lost: int
    missed: int
    queue_bytes: int
    bus_sent: int
    bus_received: int
    bus_lost: int
    bus_missed: int

    @classmethod
    def of(cls, cells: list[int]) -> BridgeView:
        """The cells under their names."""
        return cls(
            cells[B_SERIAL],
            BridgeState(cells[B_STATE]),
            BridgeFault(cells[B_FAULT]),
            *cells[B_HEARTBEAT : B_BUS_MISSED + 1],
        )

    @property
    def reconnects(self) -> int:
        """Connections made after the first one."""
        return max(0, self.connects - 1)


class BridgeWriter:
    """The bridge's hand on its cells. Each is stored at once; together they make no transaction."""

    __slots__ = ("_cells",)

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def begin(self, serial: int) -> None:
        """A bridge starts; it goes on counting where the one before it was."""
        cells = self._cells
        cells[B_STATE] = BridgeState.CONNECTING
        cells[B_FAULT] = BridgeFault.NONE
        cells[B_HEARTBEAT] = cells[B_SINCE] = cells[B_QUEUE_BYTES] = 0
        cells[B_SERIAL] = serial

    def heartbeat(self, now_ns: int) -> None:
        """The loop runs; ``now_ns`` of CLOCK_MONOTONIC."""
        self._cells[B_HEARTBEAT] = now_ns

    def connected(self, now_ns: int) -> None:
        """There is a connection; ``now_ns`` of CLOCK_MONOTONIC."""
        cells = self._cells
        cells[B_SINCE] = now_ns
        cells[B_FAULT] = BridgeFault.NONE
        cells[B_CONNECTS] += 1
        cells[B_STATE] = BridgeState.CONNECTED

    def disconnected(self, fault: BridgeFault) -> None:
        """There is no connection, and why: it was lost, or could not be made."""
        cells = self._cells
        cells[B_STATE] = BridgeState.CONNECTING
        cells[B_FAULT] = fault
        cells[B_SINCE] = 0

    def stopped(self) -> None:
        """The bridge ends as it was told to."""
        self._cells[B_STATE] = BridgeState.STOPPED
        self._cells[B_SINCE] = 0

    def server(self, *, sent: int = 0, received: int = 0, lost: int = 0, missed: int = 0) -> None:
        """Messages since the last call; see :class:`BridgeView`."""
        self._add((B_SENT, sent), (B_RECEIVED, received), (B_LOST, lost), (B_MISSED, missed))

    def bus(self, *, sent: int = 0, received: int = 0, lost: int = 0, missed: int = 0) -> None:
        """Messages since the last call; see :class:`BridgeView`."""
        self._add(
            (B_BUS_SENT, sent),
            (B_BUS_RECEIVED, received),
            (B_BUS_LOST, lost),
            (B_BUS_MISSED, missed),
        )

    def queue(self, size: int) -> None:
        """The bytes that now wait for the server."""
        self._cells[B_QUEUE_BYTES] = size

    def _add(self, *changes: tuple[int, int]) -> None:
        cells = self._cells
        for cell, difference in changes:
            if difference:
                cells[cell] = (cells[cell] + difference) & MASK
