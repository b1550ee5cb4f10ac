"""A handoff in small: sender, receiver, the kernel between them and the master that counts.

Three connections move in batches of one and two. Each move is one step that a process or the kernel
can take. Either party may be killed at any point, and the sender told to end the session. The
parties keep their books with the very classes of protocol.py and the master with that of ledger.py;
the kernel behaves as test_handoff_kernel.py finds it to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from functools import cache
from typing import Any, TypeAlias

from wssup.server.handoff import protocol
from wssup.server.handoff.answers import Answer, AnswerKind, Answers, pack_answer
from wssup.server.handoff.protocol import (
    AtReceiver,
    AtSender,
    ReceiverLink,
    Receiving,
    SenderEvent,
    SenderLink,
    Sending,
)
from wssup.supervisor.ledger import Ledger

COUNT = 3
_ALL = range(COUNT)
_TAKEN, _NO_ROOM, _STOP = AnswerKind
#: The master's numbers for the session and the two workers.
_SESSION, _SENDER, _RECEIVER = range(3)

Ids: TypeAlias = tuple[int, ...]
Move: TypeAlias = tuple[Callable[..., None], *tuple[Any, ...]]


class Violation(AssertionError):  # noqa: N818 - what the exploration looks for
    """Something that must never be."""


class World:
    """One situation. All values but the books are immutable, so that a copy is cheap.

    :param broken: a rule that is broken on purpose.
    """

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        # The kernel. Records: the first bytes of a batch, with descriptors, and the rest of it.
        self.records: tuple[tuple[str, Ids], ...] = ()
        self.answers: tuple[bytes, ...] = ()
        self.shut = False
        self.s_end = self.r_end = True
        self.s_reset = self.r_reset = False
        # The sender. A connection that was never held has no state.
        self.s_alive = True
        self.sending: Sending[int] = Sending()
        self.s_at: tuple[AtSender | None, ...] = (None,) * COUNT
        self.s_fds = frozenset(_ALL)
        self.s_rest: Ids = ()
        self.s_moved = self.moved_out = 0
        self.s_report: int | None = None
        # The receiver.
        self.r_alive = True
        self.receiving: Receiving[int] = Receiving()
        self.r_at: tuple[AtReceiver | None, ...] = (None,) * COUNT
        self.r_fds: frozenset[int] = frozenset()
        self.r_part: Ids = ()
        self.r_taken = self.moved_in = self.r_closed = 0
        self.r_ended: frozenset[int] = frozenset()
        self.r_report: int | None = None
        # The master: what it has heard, and how many it counted as worker_died.
        self.heard: tuple[Move, ...] = ((Ledger.opened, _SESSION, _SENDER, _RECEIVER),)
        self.s_died: int | None = None
        self.r_died: int | None = None

    def twin(self) -> World:
        """A copy that may be changed."""
        new = World.__new__(World)
        new.__dict__.update(self.__dict__)
        new.sending = copy(self.sending)
        new.sending._out = self.sending._out.copy()
        new.receiving = copy(self.receiving)
        new.receiving._waiting = self.receiving._waiting.copy()
        return new

    def key(self) -> tuple[Any, ...]:
        """What tells this situation from others."""
        fields = self.__dict__.copy()
        sending, receiving = fields.pop("sending"), fields.pop("receiving")
        sent = (sending.link, sending.stopped, *sending._out)
        return (sent, receiving.link, *receiving._waiting, *fields.values())

    def moves(self) -> Iterator[Move]:
        """What can happen next, but for a kill."""
        if self.s_alive and self.s_report is None:
            yield from self._of_sender()
        if self.r_alive:
            yield from self._of_receiver()
        yield from self._of_master()

    def kills(self) -> list[Move]:
        """Who can be killed."""
        return [(World.kill_sender,)] * self.s_alive + [(World.kill_receiver,)] * self.r_alive

    # The sender.

    def _of_sender(self) -> Iterator[Move]:
        book = self.sending
        if self.s_moved > self.moved_out:
            yield (World.count_out,)
            return
        if book.link is SenderLink.OVER:
            yield (World.sender_ends,)
            return
        if self.answers or self.s_reset or self.shut or not self.r_end:
            yield (World.hear,)
        if book.link is SenderLink.OPEN:
            yield (World.shut_link,)
            if self.s_rest:
                yield (World.send_rest,)
            elif AtSender.HELD in self.s_at:
                yield (World.send,)
            elif not book.stopped:
                left = self.s_at.count(None)
                yield from ((World.hold, size) for size in (1, 2) if size <= left)

    def _put(self, ids: Iterator[int] | Ids | list[int], state: AtSender) -> None:
        self.s_at = tuple(state if i in ids else self.s_at[i] for i in _ALL)

    def hold(self, size: int) -> None:
        """Take some off the pump."""
        self._put([i for i in _ALL if self.s_at[i] is None][:size], AtSender.HELD)

    def send(self) -> None:
        """Send the first bytes of a batch."""
        ids = tuple(i for i in _ALL if self.s_at[i] is AtSender.HELD)
        self.sending.send(ids)
        self._put(ids, protocol.AT_SENDER.after(AtSender.HELD, SenderEvent.SEND))
        self.s_rest = ids
        self._deliver("first", ids)

    def send_rest(self) -> None:
        """Send the rest of a batch."""
        ids, self.s_rest = self.s_rest, ()
        self._deliver("rest", ids)

    def _deliver(self, what: str, ids: Ids) -> None:
        """The kernel takes it, or the receiver is gone."""
        if self.r_end:
            self.records += ((what, ids),)
        elif self.broken == "a failed send is the end":
            self._put(self.sending.over(), AtSender.KEPT)
        else:
            self.shut_link()

    def shut_link(self) -> None:
        """The session ends: all is moved, or the master recalls, or the receiver stops."""
        self.sending.shut()
        self.s_rest = ()
        if self.broken == "taken back at the shutdown":
            self._put(self.sending.over(), AtSender.KEPT)
        if self.broken == "taken back when no answer is there":
            if not self.answers:
                self._put(self.sending.over(), AtSender.KEPT)
            return
        self.shut = True

    def hear(self) -> None:
        """Read one answer, or an error, or end of file."""
        if self.answers:
            (answer,) = Answers().feed(self.answers[0])
            self.answers = self.answers[1:]
            gone, kept = self.sending.answered(answer)
            self._put(gone, AtSender.GONE)
            self._put(kept, AtSender.KEPT)
            if self.broken != "what is gone is not closed":
                self.s_fds -= frozenset(gone)
            self.s_moved += len(gone)
        elif self.s_reset:
            self.s_reset = False
        else:
            self._put(self.sending.over(), AtSender.KEPT)

    def count_out(self) -> None:
        self.moved_out += 1

    def sender_ends(self) -> None:
        """What was not sent is its own again; it closes the link and reports."""
        held = [i for i in _ALL if self.s_at[i] is AtSender.HELD]
        self._put(held, protocol.AT_SENDER.after(AtSender.HELD, SenderEvent.OVER))
        self._close_sender()
        self.s_report = self.s_moved
        self._note(Ledger.told, _SESSION, _SENDER, self.s_moved)

    def _close_sender(self) -> None:
        """The kernel: what was not read is gone, and the receiver hears of it as an error."""
        if self.s_end:
            self.s_end, self.r_reset = False, bool(self.answers)
            self.answers = ()

    def kill_sender(self) -> None:
        self.s_alive, self.s_fds, self.s_rest = False, frozenset(), ()
        self._close_sender()
        # Its memory is gone; only its row stays.
        self.sending, self.s_at, self.s_reset = Sending(), (None,) * COUNT, False
        self.s_moved = self.moved_out
        self._note(Ledger.died, _SENDER, 0, self.moved_out)

    # The receiver.

    def _of_receiver(self) -> Iterator[Move]:
        book = self.receiving
        if self.r_taken > self.moved_in:
            yield (World.count_in,)
            return
        if self.r_report is None:
            yield from ((World.resume_fails, i) for i in _ALL if self.r_at[i] is AtReceiver.OWNED)
            if book.link is ReceiverLink.OVER:
                yield (World.receiver_ends,)
                return
            if self.records and self.records[0][0] == "first":
                yield from ((World.receive, room) for room in range(len(self.records[0][1]) + 1))
            elif self.records or self.r_reset or self.shut or not self.s_end:
                yield (World.receive, 0)
            yield (World.fail,)
            for kind in (_STOP,) if self.r_ended else (_TAKEN, _NO_ROOM):
                for count in range(1, book.waiting + 1):
                    if kind is not _TAKEN or self.r_fds.issuperset([*book._waiting][:count]):
                        yield (World.answer, kind, count)

    def _become(self, ids: list[int] | Ids, state: AtReceiver) -> None:
        self.r_at = tuple(state if i in ids else self.r_at[i] for i in _ALL)

    def _drop(self, ids: list[int]) -> None:
        self._become(ids, AtReceiver.DROPPED)
        self.r_fds -= frozenset(ids)

    def receive(self, room: int) -> None:
        """Read a part of a batch, with descriptors as there is room; or an error, or the end."""
        if self.records:
            (what, ids), self.records = self.records[0], self.records[1:]
            if what == "first":
                self.r_fds |= frozenset(ids[:room])
                self.r_part = ids
            else:
                self.r_part = ()
                self.receiving.arrived(ids)
                self._become(ids, AtReceiver.ARRIVED)
        elif self.r_reset:
            self.r_reset = False
        else:
            self.fail()

    def answer(self, kind: AnswerKind, count: int) -> None:
        """Answer the oldest ones; the kernel takes the answer, or the sender has shut the link."""
        if self.s_end and not self.shut:
            self.answers += (pack_answer(Answer(kind, count)),)
        elif self.broken != "a failed acknowledgement counts":
            self.fail()
            return
        if kind is _TAKEN:
            owned = self.receiving.acknowledged(count)
            self._become(owned, AtReceiver.OWNED)
            self.r_taken += len(owned)
        else:
            self._drop(self.receiving.declined(count))

    def fail(self) -> None:
        """An answer cannot be queued, the buffer being full or the link shut; or it gives up, or
        reads the end.
        """
        self._drop([*self.receiving.failed(), *self.r_part])
        self.r_part = ()
        self._close_receiver()

    def _close_receiver(self) -> None:
        """The kernel closes what is in the queue; an error waits behind the answers."""
        if self.r_end:
            self.r_end, self.s_reset = False, bool(self.records) and self.s_alive
            self.records = ()

    def count_in(self) -> None:
        self.moved_in += 1

    def resume_fails(self, i: int) -> None:
        """The application cannot go on with a connection; it is closed and counted."""
        self.r_at = tuple(None if j == i else self.r_at[j] for j in _ALL)
        self.r_fds -= {i}
        self.r_ended |= {i}
        self.r_closed += 1

    def receiver_ends(self) -> None:
        self.r_report = self.r_taken
        self._note(Ledger.told, _SESSION, _RECEIVER, self.r_taken)

    def kill_receiver(self) -> None:
        self.r_alive, self.r_fds, self.r_part = False, frozenset(), ()
        self._close_receiver()
        self.receiving, self.r_at, self.r_reset = Receiving(), (None,) * COUNT, False
        self.r_taken = self.moved_in
        self._note(Ledger.died, _RECEIVER, self.moved_in, 0)

    # The master.

    def _of_master(self) -> Iterator[Move]:
        """A dead worker's row is folded when its peer has told, or is dead too."""
        if not self.s_alive and self.s_died is None and not _ledger(self.heard).awaits(_SENDER):
            yield (World.fold_sender,)
        if not self.r_alive and self.r_died is None and not _ledger(self.heard).awaits(_RECEIVER):
            yield (World.fold_receiver,)

    def _note(self, what: Callable[..., None], *facts: int) -> None:
        if what is Ledger.died and self.broken == "what the dead had counted is not asked":
            facts = (facts[0], 0, 0)
        self.heard += ((what, *facts),)

    def fold_sender(self) -> None:
        self.s_died = COUNT - max(self.moved_out, self._told(_SENDER)[1])
        self._note(Ledger.closed, _SENDER)

    def fold_receiver(self) -> None:
        self.r_died = max(self.moved_in, self._told(_RECEIVER)[0]) - self.r_closed
        self._note(Ledger.closed, _RECEIVER)

    def _told(self, worker: int) -> tuple[int, int]:
        if self.broken == "rows are folded as they are":
            return 0, 0
        return _ledger(self.heard).moves(worker)

    def readers(self, i: int) -> tuple[bool, bool]:
        """Whether the sender may read a connection, and whether the receiver may."""
        owned = {AtReceiver.OWNED}
        if self.broken == "the receiver reads what arrives" and i in self.r_fds:
            owned.add(AtReceiver.ARRIVED)
        sender = self.s_alive and self.s_at[i] in {None, AtSender.KEPT}
        return sender, self.r_alive and self.r_at[i] in owned

    def check(self) -> None:
        """What holds in every situation."""
        flying = {i for what, ids in self.records if what == "first" for i in ids}
        for i in _ALL:
            sender, receiver = self.readers(i)
            _hold(not (sender and receiver), f"two readers of connection {i}")
            _hold(not sender or i in self.s_fds, f"the sender has no descriptor of {i}")
            _hold(not receiver or i in self.r_fds, f"the receiver has no descriptor of {i}")
            if self.s_alive and self.r_alive and i not in self.r_ended:
                _hold(i in self.s_fds | self.r_fds | flying, f"{i} is closed and nobody died")
        died = (self.s_died or 0, self.r_died or 0)
        _hold(min(died) >= 0, f"{died} died")
        _hold(self.moved_out <= COUNT and self.moved_in >= self.r_closed, "a row below zero")
        closed = self.r_closed + sum(died)
        _hold(closed <= COUNT - self.owned(), f"{closed} are counted as closed")

    def owned(self) -> int:
        """How many connections have an owner who lives."""
        return sum(any(self.readers(i)) for i in _ALL)

    def check_end(self) -> None:
        """What holds when nothing can happen any more."""
        _hold(not self.s_alive or self.s_report is not None, "the sender is stuck")
        _hold(not self.r_alive or self.r_report is not None, "the receiver is stuck")
        _hold(not self.records, "something is in flight")
        both = self.s_alive and self.r_alive
        for i in _ALL:
            sender, receiver = self.readers(i)
            _hold(sender == (i in self.s_fds), f"the sender's descriptor of {i} is left open")
            _hold(receiver == (i in self.r_fds), f"the receiver's descriptor of {i} is left open")
            lost = both and i not in self.r_ended and not (sender or receiver)
            _hold(not lost, f"nobody owns {i} and nobody died")
        closed = self.r_closed + (self.s_died or 0) + (self.r_died or 0)
        _hold(closed == COUNT - self.owned(), f"{closed} closed, {self.owned()} owned")
        left = self.s_alive and COUNT - self.moved_out
        _hold(left == sum(self.readers(i)[0] for i in _ALL), "the sender's row is wrong")
        left = self.r_alive and self.moved_in - self.r_closed
        _hold(left == sum(self.readers(i)[1] for i in _ALL), "the receiver's row is wrong")
        if both:
            told = {self.s_report, self.r_report, self.moved_out, self.moved_in}
            _hold(len(told) == 1, "rows or reports differ")


def _hold(what: bool, otherwise: str) -> None:  # noqa: FBT001 - an assertion
    if not what:
        raise Violation(otherwise)


@cache
def _ledger(heard: tuple[Move, ...]) -> Ledger:
    """The master's book after all that it has heard; only to be asked."""
    ledger = Ledger()
    for what, *facts in heard:
        what(ledger, *facts)
    return ledger
