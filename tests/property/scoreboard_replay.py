"""Memory in which each load and store can be seen, recorded, and put between those of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from wssup.scoreboard import (
    ClosedReason,
    Counts,
    HandoffRefusal,
    HandshakeFailure,
    RefusedReason,
    RowWriter,
    Scoreboard,
)
from wssup.scoreboard.header import write_header
from wssup.scoreboard.layout import BLOCK_CELLS, CHECKSUM, segment_size

ROWS = 4


def nothing() -> None:
    """Happens before a load or store that nobody wants to disturb."""


def nothing_stored(cell: int, value: int) -> None:
    """Follows a store that nobody records."""


class Killed(BaseException):
    """The writer is gone: it makes no further store."""


@dataclass
class Cells:
    """A stand-in for ``memoryview.cast("Q")`` in which each load and store can be seen or preceded.

    A store is told to ``on_store`` before it happens; a load calls ``on_load`` before it happens.
    """

    memory: list[int]
    on_load: Callable[[], None] = nothing
    on_store: Callable[[int, int], None] = nothing_stored
    part: range = field(default_factory=lambda: range(0))

    def __post_init__(self) -> None:
        self.part = self.part or range(len(self.memory))

    def __getitem__(self, key: int | slice) -> int | Cells:
        if isinstance(key, slice):
            return Cells(self.memory, self.on_load, self.on_store, self.part[key])
        self.on_load()
        return self.memory[self.part[key]]

    def __setitem__(self, index: int, value: int) -> None:
        assert 0 <= value < 1 << 64
        self.on_store(self.part[index], value)
        self.memory[self.part[index]] = value

    def __len__(self) -> int:
        return len(self.part)

    def tolist(self) -> list[int]:
        if self.on_load is nothing:
            return self.memory[self.part.start : self.part.stop : self.part.step]
        return [self[index] for index in range(len(self.part))]  # type: ignore[misc]

    def release(self) -> None:
        """Views of a list need no release."""


@dataclass
class Heap:
    """Memory of this process in the place of a segment."""

    cells: Cells
    name: str = "heap"
    size: int = segment_size(ROWS)

    def close(self) -> None:
        """Nothing is mapped."""

    def unlink(self) -> None:
        """Nothing has a name."""


def empty_memory() -> list[int]:
    """The cells of a scoreboard in which nothing has happened."""
    memory = [0] * (segment_size(ROWS) // 8)
    write_header(Cells(memory), rows=ROWS, slots=ROWS)  # type: ignore[arg-type]
    return memory


def board_on(cells: Cells) -> Scoreboard:
    return Scoreboard(Heap(cells))  # type: ignore[arg-type]


def writer_on(cells: Cells) -> RowWriter:
    return RowWriter(cells)  # type: ignore[arg-type]


# Everything a worker can do, in an order that a real connection could take.
OPERATIONS: tuple[Callable[[RowWriter], None], ...] = (
    lambda w: w.accepted(),
    lambda w: w.upgraded(),
    lambda w: w.handler_run(),
    lambda w: w.traffic(1, 2, 300, 4000),
    lambda w: w.heartbeat(10**15, 7),
    lambda w: w.topics(subscriptions=9, topics=4, queue_bytes=0, published=1, delivered=12),
    lambda w: w.send_queue(77),
    lambda w: w.ping_sent(),
    lambda w: w.round_trip(0.012),
    lambda w: w.heartbeat(10**15 + 1, 3),
    lambda w: w.send_queue(5),
    lambda w: w.ping_timeout(),
    lambda w: w.handler_error(),
    lambda w: w.closed(ClosedReason.TIMEOUT, 90.0),
    lambda w: w.accepted(),
    lambda w: w.refused(RefusedReason.RATE),
    lambda w: w.accepted(),
    lambda w: w.handshake_failed(HandshakeFailure.BAD_REQUEST),
    lambda w: w.accepted(),
    lambda w: w.http_request(200),
    lambda w: w.http_request(502),
    lambda w: w.http_closed(),
    lambda w: w.moved_in(0.003),
    lambda w: w.not_moved(HandoffRefusal.BUSY),
    lambda w: w.moved_out(512),
    lambda w: w.moved_in(60.0),
    lambda w: w.accepted(),
    lambda w: w.upgraded(),
    lambda w: w.moved_out(70_000),
    lambda w: w.closed(ClosedReason.SERVER, 7.0),
    lambda w: w.accepting(accepting=True),
    lambda w: w.topics(subscriptions=8, topics=4, queue_bytes=70, sent=2, sent_bytes=90, lost=1),
    lambda w: w.accepted(),
    lambda w: w.accepted(),
    lambda w: w.upgraded(),
)


def pass_on(giver: RowWriter, taker: RowWriter) -> None:
    """A WebSocket begins at one worker and ends at another."""
    giver.accepted()
    giver.upgraded()
    giver.moved_out(100)
    taker.moved_in(0.001)
    taker.closed(ClosedReason.CLIENT, 1.0)


Store = tuple[int, int]
operations = st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=12)


def record(work: Callable[[Cells], object], memory: list[int]) -> list[Store]:
    """Do ``work`` on the memory; returns each store it made."""
    stores: list[Store] = []
    work(Cells(memory, on_store=lambda cell, value: stores.append((cell, value))))
    return stores


class Replay:
    """Makes recorded stores between the loads of a reader.

    :param gaps: how many loads pass before each store; the stores beyond its end come at once.
    """

    def __init__(self, memory: list[int], stores: list[Store], gaps: list[int]) -> None:
        self.memory = memory
        self.stores = iter(stores)
        self.gaps = iter(gaps)
        self.wait = next(self.gaps, 0)
        self.done = False

    def step(self) -> None:
        while not self.done and self.wait == 0:
            store = next(self.stores, None)
            if store is None:
                self.done = True
                return
            self.memory[store[0]] = store[1]
            self.wait = next(self.gaps, 0)
        self.wait -= 1


gaps = st.lists(st.integers(0, 120), max_size=80)


def record_states(
    work: list[Callable[[RowWriter], None]],
) -> tuple[list[Store], list[list[int]]]:
    """The stores of a writer, and the gauges and counters after each of its transactions."""
    memory = [0] * BLOCK_CELLS
    stores: list[Store] = []
    states = [memory[CHECKSUM + 1 :]]
    for operation in work:
        stores += record(lambda cells, run=operation: run(writer_on(cells)), memory)  # type: ignore[misc]
        states.append(memory[CHECKSUM + 1 :])
    return stores, states


def delayed(stores: list[Store], delays: list[int]) -> list[Store]:
    """The stores as another processor may see them: late, but each cell's own in their order."""
    due: list[tuple[int, int]] = []
    last: dict[int, int] = {}
    for position, (cell, _) in enumerate(stores):
        delay = delays[position % len(delays)]
        last[cell] = max(position + delay, last.get(cell, 0))
        due.append((last[cell], position))
    return [stores[position] for _, position in sorted(due)]


def never_less(now: Counts, before: Counts) -> bool:
    return all(a >= b for a, b in zip(now.cells, before.cells, strict=True))
