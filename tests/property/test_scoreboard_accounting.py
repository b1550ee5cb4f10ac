"""The scoreboard against a model: no connection is lost or invented, in any order of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.property.scoreboard_replay import (
    ROWS,
    Cells,
    Killed,
    board_on,
    empty_memory,
    never_less,
)
from wssup.scoreboard import (
    ClosedReason,
    Counts,
    HandoffRefusal,
    HandshakeFailure,
    RefusedReason,
    RowWriter,
)


@dataclass(eq=False)
class ModelWorker:
    """What is true of one worker's connections."""

    row: int
    serial: int
    opening: int = 0
    active: int = 0
    dead: bool = False


@dataclass(eq=False)
class ModelSession:
    """A handoff session between two workers: what was acknowledged, and what they have to count.

    :ivar moved: what the master holds true once the session is over.
    """

    sender: ModelWorker
    receiver: ModelWorker
    acknowledged: int = 0
    uncounted_in: int = 0
    uncounted_out: int = 0
    moved: int | None = None

    @property
    def alive(self) -> bool:
        """Whether connections can still move."""
        return self.moved is None and not self.sender.dead and not self.receiver.dead


class Accounting(RuleBasedStateMachine):
    """Workers accept, upgrade, close, refuse, move to one another, crash at any store, and are
    reaped, in any order.
    """

    @initialize()
    def begin(self) -> None:
        self.memory = empty_memory()
        self.master = board_on(Cells(self.memory))
        self.observer = board_on(Cells(self.memory))
        self.serial = 0
        self.workers: dict[int, ModelWorker] = {}
        self.sessions: list[ModelSession] = []
        self.certain: Counter[str] = Counter()  # events that were counted for sure
        self.unsure: Counter[str] = Counter()  # events in whose midst the worker was killed
        self.seen: dict[str, Counts] = {}
        for _ in range(2):
            self.spawn()
        for worker in self.workers.values():
            self.connect(worker, 2)

    def do(
        self, worker: ModelWorker, kill: int, event: str, act: Callable[[RowWriter], None]
    ) -> bool:
        """Let a worker act and kill it after ``kill`` stores; returns whether it survived."""
        left = kill

        def on_store(cell: int, value: int) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        try:
            act(board_on(Cells(self.memory, on_store=on_store)).writer(worker.row))
        except Killed:
            worker.dead = True
            self.unsure[event] += 1
            return False
        self.certain[event] += 1
        return True

    def pick(self, data: st.DataObject, ready: Callable[[ModelWorker], bool]) -> ModelWorker | None:
        able = [worker for worker in self.workers.values() if not worker.dead and ready(worker)]
        return data.draw(st.sampled_from(able)) if able else None

    # Most events are survived; a kill comes before one of the first stores.
    kills = st.one_of(st.just(1000), st.just(1000), st.just(1000), st.integers(0, 7))

    @precondition(lambda self: len(self.workers) < ROWS)
    @rule()
    def spawn(self) -> None:
        self.serial += 1
        row = self.master.allocate(self.serial, slot=0, generation=1)
        self.workers[row] = ModelWorker(row, self.serial)

    @rule(data=st.data(), kill=kills)
    def accept(self, data: st.DataObject, kill: int) -> None:
        worker = self.pick(data, lambda _: True)
        if worker and self.do(worker, kill, "accepted", lambda w: w.accepted()):
            worker.opening += 1

    @rule(data=st.data(), kill=kills)
    def upgrade(self, data: st.DataObject, kill: int) -> None:
        worker = self.pick(data, lambda w: w.opening > 0)
        if worker and self.do(worker, kill, "upgraded", lambda w: w.upgraded()):
            worker.opening -= 1
            worker.active += 1

    def connect(self, worker: ModelWorker, times: int) -> None:
        """What most sockets do, in one step: moves need WebSockets."""
        for _ in range(times):
            self.do(worker, 1000, "accepted", lambda w: w.accepted())
            self.do(worker, 1000, "upgraded", lambda w: w.upgraded())
            worker.active += 1

    @rule(data=st.data(), times=st.integers(1, 3))
    def connect_some(self, data: st.DataObject, times: int) -> None:
        worker = self.pick(data, lambda _: True)
        if worker:
            self.connect(worker, times)

    @rule(data=st.data(), kill=kills, reason=st.sampled_from(ClosedReason), age=st.floats(0, 1e6))
    def close(self, data: st.DataObject, kill: int, reason: ClosedReason, age: float) -> None:
        worker = self.pick(data, lambda w: w.active > 0)
        if worker and self.do(worker, kill, "closed", lambda w: w.closed(reason, age)):
            worker.active -= 1

    @rule(data=st.data(), kill=kills, reason=st.sampled_from(RefusedReason))
    def refuse(self, data: st.DataObject, kill: int, reason: RefusedReason) -> None:
        worker = self.pick(data, lambda w: w.opening > 0)
        if worker and self.do(worker, kill, "refused", lambda w: w.refused(reason)):
            worker.opening -= 1

    @rule(data=st.data(), kill=kills, reason=st.sampled_from(HandshakeFailure))
    def fail(self, data: st.DataObject, kill: int, reason: HandshakeFailure) -> None:
        worker = self.pick(data, lambda w: w.opening > 0)
        if worker and self.do(worker, kill, "failed", lambda w: w.handshake_failed(reason)):
            worker.opening -= 1

    @rule(data=st.data(), kill=kills, status=st.sampled_from((200, 404, 500, 503)))
    def answer(self, data: st.DataObject, kill: int, status: int) -> None:
        worker = self.pick(data, lambda w: w.opening > 0)
        if worker:
            self.do(worker, kill, "answered", lambda w: w.http_request(status))

    @rule(data=st.data(), kill=kills)
    def hang_up(self, data: st.DataObject, kill: int) -> None:
        worker = self.pick(data, lambda w: w.opening > 0)
        if worker and self.do(worker, kill, "hung_up", lambda w: w.http_closed()):
            worker.opening -= 1

    # A move is made by its acknowledgement. Both ends count it later, in any order, or die first.

    # Which ends die before they count what was just acknowledged.
    deaths = st.one_of(
        st.just(frozenset[str]()), st.frozensets(st.sampled_from(["sender", "receiver"]))
    )

    def pick_session(
        self, data: st.DataObject, ready: Callable[[ModelSession], bool]
    ) -> ModelSession | None:
        able = [session for session in self.sessions if ready(session)]
        return data.draw(st.sampled_from(able)) if able else None

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data(), wanted=st.integers(1, 3), dies=deaths)
    def acknowledge(self, data: st.DataObject, wanted: int, dies: frozenset[str]) -> None:
        """A worker sends to one other and takes from one other at a time."""
        sender = self.pick(data, lambda w: w.active > 0)
        receiver = self.pick(data, lambda w: w is not sender)
        if sender is None or receiver is None:
            return
        current = [session for session in self.sessions if session.moved is None]
        engaged = [s for s in current if s.sender is sender or s.receiver is receiver]
        if not engaged:
            engaged = [ModelSession(sender, receiver)]
            self.sessions += engaged
        for session in engaged:
            if session.alive:
                moving = min(wanted, session.sender.active)
                session.sender.active -= moving
                session.acknowledged += moving
                session.uncounted_in += moving
                session.uncounted_out += moving
                session.sender.dead |= "sender" in dies
                session.receiver.dead |= "receiver" in dies

    @precondition(lambda self: any(s.uncounted_in for s in self.sessions))
    @rule(data=st.data(), kill=kills, pause=st.floats(0, 20))
    def count_in(self, data: st.DataObject, kill: int, pause: float) -> None:
        session = self.pick_session(data, lambda s: s.uncounted_in > 0 and not s.receiver.dead)
        if session and self.do(session.receiver, kill, "moved_in", lambda w: w.moved_in(pause)):
            session.uncounted_in -= 1
            session.receiver.active += 1

    @precondition(lambda self: any(s.uncounted_out for s in self.sessions))
    @rule(data=st.data(), kill=kills, size=st.integers(0, 1 << 20))
    def count_out(self, data: st.DataObject, kill: int, size: int) -> None:
        session = self.pick_session(data, lambda s: s.uncounted_out > 0 and not s.sender.dead)
        if session and self.do(session.sender, kill, "moved_out", lambda w: w.moved_out(size)):
            session.uncounted_out -= 1

    @rule(data=st.data(), kill=kills, reason=st.sampled_from(HandoffRefusal))
    def not_moved(self, data: st.DataObject, kill: int, reason: HandoffRefusal) -> None:
        worker = self.pick(data, lambda w: w.active > 0)
        if worker:
            self.do(worker, kill, "not_moved", lambda w: w.not_moved(reason))

    @precondition(lambda self: any(session.alive for session in self.sessions))
    @rule(data=st.data())
    def end_session(self, data: st.DataObject) -> None:
        session = self.pick_session(
            data, lambda s: s.alive and s.uncounted_in == s.uncounted_out == 0
        )
        if session:
            session.moved = session.acknowledged

    def known(self, worker: ModelWorker) -> tuple[int, int]:
        """What came to a worker and went from it in all sessions that are over."""
        moved_in = sum(s.moved or 0 for s in self.sessions if s.receiver is worker)
        moved_out = sum(s.moved or 0 for s in self.sessions if s.sender is worker)
        return moved_in, moved_out

    def settle(self, session: ModelSession) -> int:
        """What the master learns of a session of which an end is dead.

        The other end reports what was acknowledged. If there is none, both are made to agree.
        """
        sender, receiver = session.sender, session.receiver
        if not (sender.dead and receiver.dead):
            return session.acknowledged
        sent = self.master.counted(sender.row).moved_out - self.known(sender)[1]
        taken = self.master.counted(receiver.row).moved_in - self.known(receiver)[0]
        return max(sent, taken)

    @rule(data=st.data(), kill=kills, messages=st.integers(0, 9), size=st.integers(0, 1 << 40))
    def talk(self, data: st.DataObject, kill: int, messages: int, size: int) -> None:
        worker = self.pick(data, lambda _: True)
        if worker:
            self.do(worker, kill, "talk", lambda w: w.traffic(messages, messages, size, size))

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        worker = self.pick(data, lambda _: True)
        if worker:
            worker.dead = True

    @precondition(lambda self: any(worker.dead for worker in self.workers.values()))
    @rule(data=st.data())
    def reap(self, data: st.DataObject) -> None:
        dead = [worker for worker in self.workers.values() if worker.dead]
        if dead:
            worker = data.draw(st.sampled_from(dead))
            for session in self.sessions:
                if session.moved is None and worker in (session.sender, session.receiver):
                    session.moved = self.settle(session)
            moved_in, moved_out = self.known(worker)
            final = self.master.fold(worker.row, moved_in=moved_in, moved_out=moved_out)
            assert (final.moved_in, final.moved_out) == (moved_in, moved_out)
            assert (final.open, final.active) == (0, 0)
            del self.workers[worker.row]

    @invariant()
    def living_rows_show_the_truth(self) -> None:
        rows = {view.row: view for view in self.master.snapshot().rows}
        assert rows.keys() == self.workers.keys()
        for row, worker in self.workers.items():
            assert rows[row].serial == worker.serial
            if not worker.dead:
                going = sum(s.uncounted_out for s in self.sessions if s.sender is worker)
                assert not rows[row].stale
                assert rows[row].counts.active == worker.active + going
                assert rows[row].counts.open == worker.active + going + worker.opening

    @invariant()
    def totals_agree_once_the_dead_are_reaped(self) -> None:
        if any(worker.dead for worker in self.workers.values()):
            return
        snapshot = self.master.snapshot()
        total = snapshot.total
        coming = sum(s.uncounted_in for s in self.sessions if not s.receiver.dead)
        assert total.active == sum(worker.active for worker in self.workers.values()) + coming
        assert total.open - total.active == sum(worker.opening for worker in self.workers.values())
        assert 0 <= total.accepted - self.certain["accepted"] <= self.unsure["accepted"]
        assert 0 <= total.upgraded - self.certain["upgraded"] <= self.unsure["upgraded"]
        assert 0 <= total.refused - self.certain["refused"] <= self.unsure["refused"]
        going = sum(s.uncounted_out for s in self.sessions if not s.sender.dead)
        rows = sum((view.counts for view in snapshot.rows), start=snapshot.retired)
        assert rows.moved_in + coming == rows.moved_out + going

    @invariant()
    def totals_never_go_back(self) -> None:
        readers = {
            "master": self.master,
            "observer": self.observer,
            "newcomer": board_on(Cells(self.memory)),
        }
        for name, reader in readers.items():
            snapshot = reader.snapshot()
            total = snapshot.total
            assert not snapshot.stale
            assert 0 <= total.active <= total.open
            assert min(total.cells) >= 0
            assert total.moved_in == total.moved_out
            if name in self.seen:
                assert never_less(total, self.seen[name])
            self.seen[name] = total


def test_accounting_is_true_in_any_order() -> None:
    """Whatever accepts, upgrades, moves, ends, crashes and is reaped: totals only grow, nothing
    leaks.
    """
    run_state_machine_as_test(
        Accounting, settings=settings(deadline=None, max_examples=60, stateful_step_count=60)
    )
