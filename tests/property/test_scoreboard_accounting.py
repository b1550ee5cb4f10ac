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
    HandshakeFailure,
    RefusedReason,
    RowWriter,
)


@dataclass
class ModelWorker:
    """What is true of one worker's connections, and how sure we are of what it counted."""

    row: int
    serial: int
    opening: int = 0
    active: int = 0
    dead: bool = False


class Accounting(RuleBasedStateMachine):
    """Workers accept, upgrade, close, refuse, crash at any store, and are reaped, in any order."""

    @initialize()
    def begin(self) -> None:
        self.memory = empty_memory()
        self.master = board_on(Cells(self.memory))
        self.observer = board_on(Cells(self.memory))
        self.serial = 0
        self.workers: dict[int, ModelWorker] = {}
        self.certain: Counter[str] = Counter()  # events that were counted for sure
        self.unsure: Counter[str] = Counter()  # events in whose midst the worker was killed
        self.seen: dict[str, Counts] = {}

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

    @rule(data=st.data())
    def reap(self, data: st.DataObject) -> None:
        dead = [worker for worker in self.workers.values() if worker.dead]
        if dead:
            worker = data.draw(st.sampled_from(dead))
            final = self.master.fold(worker.row)
            assert (final.open, final.active) == (0, 0)
            del self.workers[worker.row]

    @invariant()
    def living_rows_show_the_truth(self) -> None:
        rows = {view.row: view for view in self.master.snapshot().rows}
        assert rows.keys() == self.workers.keys()
        for row, worker in self.workers.items():
            assert rows[row].serial == worker.serial
            if not worker.dead:
                assert not rows[row].stale
                assert rows[row].counts.active == worker.active
                assert rows[row].counts.open == worker.active + worker.opening

    @invariant()
    def totals_agree_once_the_dead_are_reaped(self) -> None:
        if any(worker.dead for worker in self.workers.values()):
            return
        total = self.master.snapshot().total
        assert total.active == sum(worker.active for worker in self.workers.values())
        assert total.open - total.active == sum(worker.opening for worker in self.workers.values())
        assert 0 <= total.accepted - self.certain["accepted"] <= self.unsure["accepted"]
        assert 0 <= total.upgraded - self.certain["upgraded"] <= self.unsure["upgraded"]
        assert 0 <= total.refused - self.certain["refused"] <= self.unsure["refused"]

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
            if name in self.seen:
                assert never_less(total, self.seen[name])
            self.seen[name] = total


def test_accounting_is_true_in_any_order() -> None:
    """Whatever accepts, upgrades, ends, crashes and is reaped: totals only grow, nothing leaks."""
    run_state_machine_as_test(
        Accounting, settings=settings(deadline=None, max_examples=60, stateful_step_count=40)
    )
