"""The master's handles of slots and workers. Bookkeeping only; fleet.py acts."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import TYPE_CHECKING

import trio

from wssup.channel import Channel
from wssup.messages import Message
from wssup.scoreboard import WorkerState
from wssup.supervisor.backoff import Backoff
from wssup.supervisor.process import Exit
from wssup.supervisor.slots import BY_SUCCESSOR, SERVED, State

if TYPE_CHECKING:
    from wssup.supervisor.generation import Generation

__all__ = ["CAUSES", "Role", "Slot", "Worker"]

#: Why workers end that were not told to: before they were ready, killed by the master because their
#: loop did not turn or they did not read its messages, as they said themselves, by a signal, or by
#: an exit.
CAUSES = ("not_ready", "hung", "failed", "signal", "exit")


class Role(StrEnum):
    """What a worker is to its slot (slots.py)."""

    CURRENT = auto()
    SUCCESSOR = auto()
    RETIRED = auto()


@dataclass(eq=False, slots=True)
class Worker:
    """A worker as the master sees it.

    :ivar serial: counts all workers of this master from 1.
    :ivar row: its row of the scoreboard.
    :ivar pid: ``None`` until its zygote, or it itself, has said.
    :ivar spawned_at: seconds, monotonic.
    :ivar ready_ns: when it said that it is ready, in ns of CLOCK_MONOTONIC.
    :ivar asked_for: its zygote was asked to fork it.
    :ivar outbox: messages, with descriptors of their own, that wait for room in the channel.
    :ivar named: its pid is known, or that it has none.
    :ivar leaving: it was told to end, or said that it will.
    :ivar stalled: its loop has not turned for ``stall_after``.
    :ivar stalled_ns: when it turned last, before it stalled; as ``ready_ns``.
    :ivar failure: why it will end, when that is known before it does.
    :ivar ended: how its process ended, once it has.
    :ivar resumable: its application's connections can move to another worker.
    :ivar moves: its connections are to move to other workers, all of them.
    :ivar returns: they go back to where they came from: a rollout was taken back.
    :ivar left: the serial numbers of workers that have not taken all, and are not asked again.
    :ivar records: the lowest and the highest version of their records that it knows.
    """

    serial: int
    slot: int
    generation: Generation
    row: int
    channel: Channel
    role: Role
    spawned_at: float
    pid: int | None = None
    ready: bool = False
    ready_ns: int = 0
    leaving: bool = False
    stalled: bool = False
    stalled_ns: int = 0
    aborted: bool = False
    failure: str = ""
    traceback: str = ""
    ended: Exit | None = None
    resumable: bool = False
    moves: bool = False
    returns: bool = False
    left: set[int] = field(default_factory=set)
    records: tuple[int, int] = (0, 0)
    asked_for: bool = False
    boot: trio.CancelScope = field(default_factory=trio.CancelScope)
    outbox: deque[tuple[Message, list[int]]] = field(default_factory=deque)
    named: trio.Event = field(default_factory=trio.Event)
    booted: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)
    state: WorkerState = WorkerState.STARTING

    @property
    def noun(self) -> dict[str, object]:
        """The fields by which log lines name it."""
        return {"slot": self.slot, "gen": self.generation.number, "pid": self.pid}

    @property
    def able(self) -> bool:
        """Whether it serves its connections, and will for as long as it is wanted."""
        return self.ready and not self.leaving and not self.gone.is_set()

    @property
    def cause(self) -> str:
        """Why it ended, if it was not told to: one of :data:`CAUSES`."""
        if not self.ready:
            return "not_ready"
        if self.aborted:
            return "hung"
        if self.failure:
            return "failed"
        return "signal" if self.ended is not None and self.ended.signal is not None else "exit"

    def __str__(self) -> str:
        return f"slot={self.slot} gen={self.generation.number} pid={self.pid}"


@dataclass(eq=False, slots=True)
class Slot:
    """A slot: its state (slots.py decides) and its workers.

    :ivar error: why it is in backoff or failed, in words; empty when it serves.
    :ivar delay: seconds until the next try; ``None`` when there is none.
    :ivar borrower: who accepts from its listeners while nobody of its own does.
    """

    index: int
    backoff: Backoff
    state: State = State.EMPTY
    current: Worker | None = None
    successor: Worker | None = None
    retired: set[Worker] = field(default_factory=set)
    error: str = ""
    delay: float | None = None
    retry: trio.CancelScope | None = None
    borrower: Worker | None = None

    @property
    def acceptor(self) -> Worker | None:
        """Its own worker that accepts and turns."""
        if self.state not in SERVED:
            return None
        worker = self.successor if self.state in BY_SUCCESSOR else self.current
        return None if worker is None or worker.stalled else worker

    @property
    def workers(self) -> list[Worker]:
        """All its workers, the one to look at first, first."""
        found = [w for w in (self.current, self.successor) if w is not None]
        return found + sorted(self.retired, key=lambda w: w.serial)

    @property
    def in_service(self) -> bool:
        """Whether it should have a worker."""
        return self.state not in (State.EMPTY, State.PARKED)
