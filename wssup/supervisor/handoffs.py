"""Has connections move from one worker to another: sessions, and what is heard of them.

A session is a pair of stream sockets of which each worker gets one end; what they say on it is
theirs. The master keeps no end, so that each sees the other's death as the end of the file. Which
connections go where is decided elsewhere (slots.py, planning.py).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

import trio

from wssup import logs
from wssup.messages import HandedOver, HandOver, Message, Recall, Swept, TakeOver, TookOver
from wssup.scoreboard import Counts, HandoffRefusal, Scoreboard
from wssup.supervisor.children import Worker
from wssup.supervisor.ledger import Ledger
from wssup.supervisor.planning import common

__all__ = ["REPORT_GRACE", "RESUME_FAILURES", "Handoffs", "Obstacle", "Session", "obstacle"]

#: What a sender says (HandedOver.error) when too many connections could not resume over there.
RESUME_FAILURES = "resume_failures"
#: Seconds that others get to say how many connections moved: the peers of a dead worker, and who
#: takes connections once all were given.
REPORT_GRACE = 5.0

Post = Callable[..., None]


class Session:
    """Connections on their way from one worker to another.

    :ivar number: never used twice.
    :ivar quota: connections at most; 0: all.
    :ivar total: the connections that the sender had, or the quota, when it began.
    :ivar before: what the sender had moved before.
    :ivar swept: what the sender said when it had looked at each connection once.
    :ivar moved: how many moved, once it is over.
    :ivar error: why it ended, if not of itself: the sender's words, or ``sender_lost``.
    :ivar failed: how many could not resume; known once the receiver has ``told``.
    :ivar over: the sender has nothing to do with it any more.
    :ivar settled: it is over, and the receiver has counted what it took, or is gone.
    :ivar on_change: told when the session was swept, or is over.
    """

    def __init__(
        self, number: int, sender: Worker, receiver: Worker, quota: int, counts: Counts | None
    ) -> None:
        active = counts.active if counts is not None else 0
        self.number = number
        self.sender = sender
        self.receiver = receiver
        self.quota = quota
        self.total = min(quota, active) if quota else active
        self.before = counts.moved_out if counts is not None else 0
        self.swept: Swept | None = None
        self.moved = 0
        self.error = ""
        self.failed = 0
        self.told = False
        self.recalled = False
        self.over = trio.Event()
        self.settled = trio.Event()
        self.on_change: Callable[[Session], None] | None = None

    def tell(self) -> None:
        """Something about it has changed."""
        if self.on_change is not None:
            self.on_change(self)


class Obstacle(NamedTuple):
    """Why connections cannot move: the label of a HandoffRefusal, and words for people."""

    label: str
    words: str


def obstacle(sender: Worker, receiver: Worker) -> Obstacle | None:
    """Why connections cannot move between two workers, if they cannot."""
    for worker in (sender, receiver):
        if not worker.resumable:
            return Obstacle(
                HandoffRefusal.NOT_RESUMABLE.label,
                f"the application of generation {worker.generation.number} is not resumable",
            )
    if common(sender.records, receiver.records):
        return None
    written, read = ("{}–{}".format(*worker.records) for worker in (sender, receiver))
    return Obstacle(
        HandoffRefusal.VERSION.label, f"records of versions {written} are written, {read} are read"
    )


class Handoffs:
    """All sessions there are.

    :param post: sends a message with descriptors to a worker.
    :ivar on_ended: told of a session that is over for its sender.
    """

    def __init__(self, nursery: trio.Nursery, scoreboard: Scoreboard, *, post: Post) -> None:
        self.on_ended: Callable[[Session], None] | None = None
        self._nursery = nursery
        self._scoreboard = scoreboard
        self._post = post
        self._ledger = Ledger()
        self._sessions: dict[int, Session] = {}
        self._number = 0
        self._heard = trio.Event()

    def open(
        self,
        sender: Worker,
        receiver: Worker,
        *,
        quota: int,
        failures: int,
        timeout: float | None = None,
    ) -> Session | None:
        """Have connections move; ``None`` if they cannot.

        :param quota: connections at most; 0: all, and those that become quiet later.
        :param failures: how many may fail to resume.
        :param timeout: seconds after which what has not moved stays.
        """
        if obstacle(sender, receiver) or sender.gone.is_set() or receiver.gone.is_set():
            return None
        try:
            # Closed on exec, as all sockets of Python.
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            logs.get(**sender.noun).error("handoff_impossible", reason=error.strerror)
            return None
        self._number += 1
        session = Session(self._number, sender, receiver, quota, self._counts(sender))
        self._sessions[session.number] = session
        self._ledger.opened(session.number, sender.serial, receiver.serial)
        version = common(sender.records, receiver.records)
        with ours, theirs:
            take = TakeOver(session.number, version, failures, sender.serial)
            give = HandOver(session.number, version, quota, failures, receiver.serial)
            self._post(receiver, take, [theirs.fileno()])
            self._post(sender, give, [ours.fileno()])
        logs.get(**sender.noun).debug(
            "handoff_started", session=session.number, to=receiver.pid, version=version, quota=quota
        )
        if timeout is not None:
            self._nursery.start_soon(self._limit, session, timeout)
        return session

    def of(self, sender: Worker) -> list[Session]:
        """The sessions in which a worker hands connections over."""
        return [s for s in self.under_way() if s.sender is sender]

    def under_way(self) -> Iterator[Session]:
        """The sessions that are not over for their senders."""
        return (s for s in self._sessions.values() if not s.over.is_set())

    def moved(self, *sessions: Session) -> int:
        """How many connections have moved so far in sessions of one sender.

        0 while other sessions of it are under way: of those that move at once it cannot be told
        whose they are.
        """
        if all(session.over.is_set() for session in sessions):
            return sum(session.moved for session in sessions)
        sender = sessions[0].sender
        counts = self._counts(sender)
        if counts is None or not set(self.of(sender)) <= set(sessions):
            return 0
        return counts.moved_out - min(session.before for session in sessions)

    def recall(self, session: Session) -> None:
        """End a session: what the receiver has not acknowledged stays with the sender."""
        if not session.recalled and not session.over.is_set():
            session.recalled = True
            self._post(session.sender, Recall(session.number))

    def hear(self, worker: Worker, message: Message) -> bool:
        """A worker's message; whether it was about a session."""
        match message:
            case Swept():
                session = self._from(worker, message.session, sender=True)
                if session is not None:
                    session.swept = message
                    session.tell()
            case HandedOver():
                session = self._from(worker, message.session, sender=True)
                if session is not None:
                    self._ledger.told(session.number, worker.serial, message.moved)
                    self._ended(session, message.moved, message.error)
            case TookOver():
                session = self._from(worker, message.session, sender=False)
                if session is not None:
                    self._ledger.told(session.number, worker.serial, message.taken)
                    self._taken(session, message)
            case _:
                return False
        self._wake()
        return True

    def close(self, worker: Worker, folded: Callable[[Counts], None]) -> None:
        """Close the row of a worker that is gone, once its peers have said what moved.

        :param folded: told what it counted in all, when that is certain.
        """
        own = self._scoreboard.counted(worker.row)
        self._ledger.died(worker.serial, own.moved_in, own.moved_out)
        self._wake()
        if self._ledger.awaits(worker.serial):
            self._nursery.start_soon(self._fold_later, worker, folded)
        else:
            self._fold(worker, folded)

    def gone(self, worker: Worker) -> None:
        """A worker is gone, and its slot knows: its sessions are over."""
        for session in list(self._sessions.values()):
            if session.sender is worker and not session.over.is_set():
                self._ended(session, session.moved, "sender_lost")
            elif session.receiver is worker:
                self._forget(session)

    def _counts(self, worker: Worker) -> Counts | None:
        view = None if worker.gone.is_set() else self._scoreboard.read(worker.row)
        return view.counts if view is not None else None

    def _from(self, worker: Worker, number: int, *, sender: bool) -> Session | None:
        session = self._sessions.get(number)
        if session is not None and (session.sender if sender else session.receiver) is worker:
            return session
        logs.get(**worker.noun).error("unexpected_message", kind="a report", session=number)
        return None

    def _ended(self, session: Session, moved: int, error: str) -> None:
        session.moved, session.error = moved, error
        session.over.set()
        swept = session.swept
        busy, kept = (swept.busy, swept.kept) if swept is not None else (None, None)
        log = logs.get(**session.sender.noun)
        # One who had nothing to give has nothing to tell.
        tell = log.info if moved or busy or kept or error else log.debug
        if error and not session.recalled:
            tell = log.warning
        tell(
            "handed_over",
            session=session.number,
            to_slot=session.receiver.slot,
            to_pid=session.receiver.pid,
            moved=moved,
            busy=busy,
            kept=kept,
            error=error or None,
        )
        self._forget(session)
        # First: who is told may decide on it.
        if self.on_ended is not None:
            self.on_ended(session)
        session.tell()

    def _taken(self, session: Session, message: TookOver) -> None:
        session.failed = message.failed
        session.told = True
        self._forget(session)
        if message.failed:
            logs.get(**session.receiver.noun).warning(
                "resumes_failed",
                session=session.number,
                failed=message.failed,
                taken=message.taken,
            )
        session.tell()

    def _forget(self, session: Session) -> None:
        """Once nothing more is heard of a session."""
        if session.over.is_set() and (session.told or session.receiver.gone.is_set()):
            del self._sessions[session.number]
            session.settled.set()

    def _wake(self) -> None:
        self._heard.set()
        self._heard = trio.Event()

    async def _limit(self, session: Session, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await session.over.wait()
        self.recall(session)

    async def _fold_later(self, worker: Worker, folded: Callable[[Counts], None]) -> None:
        with trio.move_on_after(REPORT_GRACE):
            while self._ledger.awaits(worker.serial):
                await self._heard.wait()
        self._fold(worker, folded)

    def _fold(self, worker: Worker, folded: Callable[[Counts], None]) -> None:
        moved_in, moved_out = self._ledger.moves(worker.serial)
        final = self._scoreboard.fold(worker.row, moved_in=moved_in, moved_out=moved_out)
        self._ledger.closed(worker.serial)
        folded(final)
