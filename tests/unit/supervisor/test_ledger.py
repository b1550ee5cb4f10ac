"""Who moved how many connections, when either end may die before it has counted or told."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.supervisor.ledger import Ledger


def test_both_tell() -> None:
    """Once both have told, nobody is waited for, and the numbers are kept for their later ends."""
    ledger = Ledger()
    ledger.opened(1, 10, 20)
    ledger.told(1, 10, 5)
    ledger.told(1, 20, 5)
    assert (ledger.moves(10), ledger.moves(20)) == ((0, 5), (5, 0))
    ledger.died(10, 0, 5)
    assert not ledger.awaits(10)
    ledger.closed(10)
    ledger.died(20, 5, 0)
    assert ledger.moves(20) == (5, 0)


def test_a_sender_that_died_before_it_counted() -> None:
    """The receiver's report stands for what the dead sender had not counted yet."""
    ledger = Ledger()
    ledger.opened(1, 10, 20)
    ledger.died(10, 0, 6)
    assert ledger.awaits(10)
    ledger.told(1, 20, 7)
    assert not ledger.awaits(10)
    assert ledger.moves(10) == (0, 7)


def test_a_receiver_that_died_before_it_counted() -> None:
    """The sender's report stands for what the dead receiver had not counted yet."""
    ledger = Ledger()
    ledger.opened(1, 10, 20)
    ledger.died(20, 6, 0)
    assert ledger.awaits(20)
    ledger.told(1, 10, 7)
    assert not ledger.awaits(20)
    assert ledger.moves(20) == (7, 0)


def test_both_dead() -> None:
    """When both die nobody is waited for, and both rows are closed with what either had counted."""
    ledger = Ledger()
    ledger.opened(1, 10, 20)
    ledger.died(10, 0, 6)
    ledger.died(20, 7, 0)
    assert not ledger.awaits(10)
    assert not ledger.awaits(20)
    assert (ledger.moves(10), ledger.moves(20)) == ((0, 7), (7, 0))


def test_last_words_are_enough() -> None:
    """A worker that told before it died is not asked about."""
    ledger = Ledger()
    ledger.opened(1, 10, 20)
    ledger.told(1, 10, 3)
    ledger.died(10, 0, 3)
    assert not ledger.awaits(10)


def test_strangers_are_not_heard() -> None:
    """Reports of sessions and workers that the ledger does not know change nothing."""
    ledger = Ledger()
    ledger.told(1, 10, 3)
    ledger.opened(2, 10, 20)
    ledger.told(2, 30, 3)
    assert ledger.moves(10) == ledger.moves(30) == (0, 0)
    assert not ledger.awaits(99)


@dataclass
class Truth:
    """What really happened, and what the workers could count and tell of it."""

    ledger: Ledger = field(default_factory=Ledger)
    alive: set[int] = field(default_factory=lambda: set(range(5)))
    moved_in: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(5), 0))
    moved_out: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(5), 0))
    #: session → sender, receiver, moved so far
    sessions: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    #: What each of the dead had counted itself.
    counts: dict[int, list[int]] = field(default_factory=dict)
    closed: dict[int, tuple[int, int]] = field(default_factory=dict)
    number: int = 0

    def begin(self, sender: int, receiver: int) -> None:
        busy = {w for s, r, _ in self.sessions.values() for w in (s, r)}
        if sender != receiver and {sender, receiver} <= self.alive and not busy & {sender}:
            self.number += 1
            self.sessions[self.number] = (sender, receiver, 0)
            self.ledger.opened(self.number, sender, receiver)

    def move(self, session: int, count: int) -> None:
        sender, receiver, moved = self.sessions[session]
        if {sender, receiver} <= self.alive:
            self.sessions[session] = (sender, receiver, moved + count)
            self.moved_out[sender] += count
            self.moved_in[receiver] += count

    def end(self, session: int) -> None:
        """Whoever lives tells; a session whose end is dead ends too."""
        sender, receiver, moved = self.sessions.pop(session)
        for worker in (sender, receiver):
            if worker in self.alive:
                self.ledger.told(session, worker, moved)

    def die(self, worker: int, *, uncounted: bool) -> None:
        """It dies; if in the middle of a move, one of its moves is not counted yet."""
        if worker not in self.alive:
            return
        self.alive.discard(worker)
        counted = [self.moved_in[worker], self.moved_out[worker]]
        mine = [x for x in self.sessions.values() if worker in x[:2] and x[2]]
        if uncounted and mine:
            counted[0 if mine[0][1] == worker else 1] -= 1
        self.ledger.died(worker, *counted)
        self.counts[worker] = counted
        self.waiting.append(worker)
        self.close()

    def close(self) -> None:
        """Close the rows of which nothing more will be known."""
        for dead in list(self.waiting):
            if not self.ledger.awaits(dead):
                self.waiting.remove(dead)
                known = self.ledger.moves(dead)
                own = self.counts[dead]
                self.closed[dead] = (max(own[0], known[0]), max(own[1], known[1]))
                self.ledger.closed(dead)


steps = st.one_of(
    st.tuples(st.just("begin"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("move"), st.integers(0, 9), st.integers(1, 5)),
    st.tuples(st.just("move"), st.integers(0, 9), st.integers(1, 5)),
    st.tuples(st.just("end"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("die"), st.integers(0, 4), st.integers(0, 1)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=40))
def test_one_death_in_a_session_costs_no_count(course: list[tuple[str, int, int]]) -> None:
    """Over any course of sessions and deaths of which no two meet in one session: every dead
    worker's row is closed with exactly the moves that really happened, whatever it had not counted
    itself; and once all sessions are over nobody is waited for and nothing is kept of the dead.
    """
    truth = Truth()
    for what, a, b in course:
        if what == "begin":
            truth.begin(a, b)
        elif what == "die":
            peers = {w for s, r, _ in truth.sessions.values() if a in (s, r) for w in (s, r)}
            if peers - {a} <= truth.alive:
                truth.die(a, uncounted=bool(b))
        elif truth.sessions:
            session = sorted(truth.sessions)[a % len(truth.sessions)]
            if what == "move":
                truth.move(session, b)
            else:
                truth.end(session)
                truth.close()
    for session in list(truth.sessions):
        truth.end(session)
    truth.close()
    assert truth.waiting == []
    for worker, known in truth.closed.items():
        assert known == (truth.moved_in[worker], truth.moved_out[worker])
    ledger = truth.ledger
    assert not ledger._entries
    assert not ledger._dead
    assert set(ledger._settled) <= truth.alive
