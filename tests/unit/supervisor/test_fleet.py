"""The fleet with real listeners, scoreboard and channels, but without a zygote: workers are asked
for and never born. Whole lives are tested on real instances.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from wssup.config.loading import load
from wssup.config.settings import Settings
from wssup.messages import Drain
from wssup.scoreboard import (
    BridgeFault,
    ClosedReason,
    HandoffRefusal,
    InstanceState,
    Scoreboard,
    WorkerState,
)
from wssup.supervisor import booting
from wssup.supervisor.children import Role, Slot, Worker
from wssup.supervisor.fleet import Fleet
from wssup.supervisor.limits import Nofile
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.process import Processes
from wssup.supervisor.slots import Event, State
from wssup.supervisor.status import document

#: Seconds for a test: ten times what a busy machine needs.
PATIENCE = 20.0
#: How often a course of events is tried whose order is trio's, which shuffles it.
TRIES = 20


@dataclass
class Made:
    fleet: Fleet
    board: Scoreboard
    listeners: Listeners
    settings: Settings

    @property
    def states(self) -> list[State]:
        return [slot.state for slot in self.fleet.slots.values()]

    @property
    def worker(self) -> Worker:
        """The only worker."""
        (worker,) = self.fleet.workers.values()
        return worker

    async def until(self, *states: State) -> None:
        while self.states != list(states):
            await self.fleet.wait_changed()


@asynccontextmanager
async def fleet(tmp_path: Path, *, rows: int = 8, **changes: object) -> AsyncIterator[Made]:
    """A fleet on one address, with a generation that cannot fork."""
    given = {"app": "none:app", "bind": ("127.0.0.1:0",), "runtime_dir": str(tmp_path)}
    loaded = load(cli=given | changes, environ={}, cwd=str(tmp_path))
    settings = loaded.settings
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, rows, 4)
    board.unlink()
    board.state = InstanceState.RUNNING
    listeners = Listeners(backlog=10, mode=0o660)
    listeners.extend(1)
    listeners.add(listeners.bind(settings.bind))
    try:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                found = Fleet(
                    nursery,
                    settings,
                    processes=Processes(),
                    scoreboard=board,
                    listeners=listeners,
                )
                found.serving = found.generation(1, settings)
                yield Made(found, board, listeners, settings)
                for worker in list(found.workers.values()):
                    worker.channel.close()
                nursery.cancel_scope.cancel()
    finally:
        listeners.close_all()
        board.close()


async def test_scaling_starts_and_parks(tmp_path: Path) -> None:
    """Slots are started in order, the last ones are parked, and a parked one is started again; each
    has its listeners, which stay.
    """
    async with fleet(tmp_path) as made:
        made.fleet.scale(3)
        assert made.states == [State.STARTING] * 3
        assert (made.fleet.count, made.listeners.slots) == (3, 3)
        made.fleet.scale(1)
        assert made.states == [State.STARTING, State.PARKED, State.PARKED]
        assert (made.fleet.count, made.listeners.slots) == (1, 3)
        made.fleet.scale(2)
        assert made.states == [State.STARTING, State.STARTING, State.PARKED]
        assert [w.slot for w in made.fleet.workers.values()] == [0, 1]
        assert not made.fleet.settled


async def test_a_worker_that_nobody_was_asked_for_yet_is_given_up_at_once(tmp_path: Path) -> None:
    """Without a zygote to ask, parking a slot ends its worker, and its row is free again."""
    async with fleet(tmp_path, rows=1) as made:
        for serial in (1, 2, 3):
            made.fleet.scale(1)
            assert made.worker.serial == serial
            made.fleet.event(made.fleet.slots[0], Event.PARK)
            assert made.fleet.workers == {}
            assert made.board.snapshot().rows == ()
            await trio.lowlevel.checkpoint()


async def test_no_row_left(tmp_path: Path) -> None:
    """A slot for whose worker the scoreboard has no row waits, says why, and starts as soon as
    there is one.
    """
    async with fleet(tmp_path, rows=1, backoff_min=0.01, backoff_max=0.02) as made:
        made.fleet.scale(2)
        await made.until(State.STARTING, State.BACKOFF)
        assert "all 1 rows of the scoreboard are taken" in made.fleet.slots[1].error
        made.fleet.event(made.fleet.slots[0], Event.PARK)
        await made.until(State.PARKED, State.STARTING)
        while not made.fleet.workers:
            await made.fleet.wait_changed()
        assert made.worker.slot == 1


async def test_parked_before_it_was_known_that_there_is_no_row(tmp_path: Path) -> None:
    """A slot that is parked in the turn in which its worker could not be started stays parked."""
    async with fleet(tmp_path, rows=1) as made:
        made.fleet.scale(2)
        made.fleet.scale(1)
        await trio.testing.wait_all_tasks_blocked()
        assert made.states == [State.STARTING, State.PARKED]


async def test_several_successors_without_a_row(tmp_path: Path) -> None:
    """When no successor of a rollout gets a row, the first one's failure rolls the others back
    before theirs is known, and all slots serve on.
    """
    async with fleet(tmp_path, rows=3) as made:
        made.fleet.scale(3)
        for slot in made.fleet.slots.values():
            made.fleet.event(slot, Event.CURRENT_READY)
        heard: list[tuple[int, str]] = []

        def rolled_back(slot: int, what: str, *_: str) -> None:
            heard.append((slot, what))
            for other in made.fleet.slots.values():
                if other.state is State.REPLACING:
                    made.fleet.event(other, Event.ROLL_BACK)

        made.fleet.on_successor = rolled_back
        made.fleet.next = made.fleet.generation(2, made.settings)
        for slot in made.fleet.slots.values():
            made.fleet.event(slot, Event.REPLACE)
        await trio.testing.wait_all_tasks_blocked()
        assert made.states == [State.READY] * 3
        assert [what for _, what in heard] == ["lost"]


async def test_parked_in_the_turn_in_which_it_was_due(tmp_path: Path) -> None:
    """A slot that is parked in the very turn in which its next try is due stays parked."""
    often = {"failure_budget": 1000, "backoff_min": 0.01, "backoff_max": 0.01}
    async with fleet(tmp_path, **often) as made:
        for _ in range(TRIES):
            made.fleet.scale(1)
            slot = made.fleet.slots[0]
            made.fleet.attendant.give_up(made.worker, "lost")
            assert slot.state is State.BACKOFF
            # The retry and this task wake in the same turn: the loop stands still until the times
            # of both are over.
            async with trio.open_nursery() as nursery:

                async def park(slot: Slot = slot) -> None:
                    await trio.sleep(0.01)
                    if slot.state is State.BACKOFF:
                        made.fleet.event(slot, Event.PARK)
                        await trio.testing.wait_all_tasks_blocked()
                        assert slot.state is State.PARKED

                nursery.start_soon(park)
                await trio.testing.wait_all_tasks_blocked()
                time.sleep(0.02)
            made.fleet.scale(0)


async def test_given_up_before_its_first_turn(tmp_path: Path) -> None:
    """A worker that is started and given up in one turn leaves its tasks nothing to fail at."""
    async with fleet(tmp_path) as made:
        for _ in range(3):
            made.fleet.scale(2)
            made.fleet.scale(0)
        await trio.testing.wait_all_tasks_blocked()
        assert made.states == [State.PARKED] * 2


async def test_new_settings_apply_to_all_slots(tmp_path: Path) -> None:
    """After a reload the delays and budgets of all slots are the new ones."""
    async with fleet(tmp_path) as made:
        made.fleet.scale(2)
        changed = msgspec.structs.replace(made.settings, backoff_min=7.0, failure_budget=1)
        made.fleet.adopt_settings(changed)
        for slot in made.fleet.slots.values():
            assert slot.backoff.lost(at_boot=False, lived=0) == 7.0
            assert slot.backoff.lost(at_boot=True, lived=0) is None


async def test_nothing_starts_after_stop(tmp_path: Path) -> None:
    """Once the fleet stops, events move no slot and nobody is started."""
    async with fleet(tmp_path) as made:
        made.fleet.scale(2)
        made.fleet.stop(Drain(1001, "", 0, 1))
        assert made.fleet.workers == {}
        before = made.states
        made.fleet.event(made.fleet.slots[0], Event.PARK)
        made.fleet.scale(3)
        assert made.states[:2] == before
        assert made.fleet.workers == {}


# The status document.


def shown(made: Made, **changes: Any) -> dict[str, Any]:
    """The document of a master with this fleet; it must be JSON."""
    loaded = SimpleNamespace(settings=made.settings)
    parts: dict[str, Any] = {
        "scoreboard": made.board,
        "fleet": made.fleet,
        "settings": made.settings,
        "loaded": loaded,
        "listeners": made.listeners,
        "state": InstanceState.RUNNING,
        "started_at": 1_700_000_000.5,
        "nofile": Nofile(1024, 20_000, 20_000),
        "capacity": lambda: 39_872,
        "reloading": None,
        "last_reload": None,
        "reloads": {"done": 0, "rolled_back": 0, "refused": 0},
        "observing": SimpleNamespace(pid=None, restarts=0, path="", bind=""),
        "bridging": SimpleNamespace(wanted=False, pid=None),
        "scaling": SimpleNamespace(facts=None),
        "recycling": SimpleNamespace(counts={"age": 0, "rss": 0, "connections": 2}),
    }
    master = SimpleNamespace(**(parts | changes))
    found: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(document(master, time.monotonic_ns()))
    )  # type: ignore[arg-type]
    return found


async def test_status_has_the_promised_keys(tmp_path: Path) -> None:
    """The keys that schema 1 promises are there, state names in lower case."""
    async with fleet(tmp_path) as made:
        made.fleet.scale(2)
        status = shown(made)
        assert status["schema"] == 1
        assert {"name", "version", "state", "pid", "generation", "started_at", "bind"} <= set(
            status
        )
        assert (status["state"], status["generation"]) == ("running", 1)
        keys = {"open", "active", "accepted", "closed", "refused", "handshake_failures"}
        assert keys <= set(status["connections"])
        assert [s["state"] for s in status["slots"]] == ["starting", "starting"]
        for slot in status["slots"]:
            assert {"slot", "state", "error", "workers"} <= set(slot)
            (worker,) = slot["workers"]
            assert {"pid", "generation", "state", "open", "active", "accepted"} <= set(worker)
            assert worker["state"] == "starting"
        assert status["bind"] == [str(a) for a in made.listeners.addresses.values()]
        assert status["last_reload"] is None


async def test_status_counts_are_the_scoreboards(tmp_path: Path) -> None:
    """All counts come from the scoreboard: a worker's own, and the total with the dead ones'."""
    async with fleet(tmp_path) as made:
        made.fleet.scale(1)
        row = made.worker.row
        writer = made.board.writer(row)
        for _ in range(5):
            writer.accepted()
            writer.upgraded()
        writer.closed(ClosedReason.CLIENT, 1)
        gone = made.board.allocate(99, 0, 1)
        other = made.board.writer(gone)
        other.accepted()
        other.upgraded()
        made.board.fold(gone)
        status = shown(made)
        (worker,) = status["slots"][0]["workers"]
        assert (worker["accepted"], worker["active"], worker["closed"]) == (5, 4, 1)
        total = status["connections"]
        assert (total["accepted"], total["active"], total["closed"]) == (6, 4, 2)
        assert total["closed_by_reason"]["worker_died"] == 1


async def test_status_tells_of_moves(tmp_path: Path) -> None:
    """Moves of the living and the dead are in the totals, per worker only its own; restarts of all
    kinds are counted.
    """
    async with fleet(tmp_path) as made:
        made.fleet.scale(1)
        writer = made.board.writer(made.worker.row)
        for _ in range(3):
            writer.moved_in(0.004)
        writer.moved_out(500)
        writer.not_moved(HandoffRefusal.STATE)
        gone = made.board.allocate(99, 0, 1)
        other = made.board.writer(gone)
        for _ in range(3):
            other.accepted()
            other.upgraded()
            other.moved_out(500)
        other.moved_in(0.004)
        made.board.fold(gone)
        status = shown(made)
        handoff = status["handoff"]
        assert (handoff["moved"], handoff["in_progress"], handoff["bytes"]) == (4, 0, 2000)
        assert handoff["refused_by_reason"]["state"] == 1
        pause = handoff["pause_ms"]
        assert 1 < pause["p50"] <= pause["p99"] <= pause["max"] < 10
        (worker,) = status["slots"][0]["workers"]
        assert (worker["moved_in"], worker["moved_out"]) == (3, 1)
        assert (status["restarts"], status["recycled"]["connections"]) == (0, 2)


async def test_status_tells_of_topics(tmp_path: Path) -> None:
    """Counters are the living's and the dead's, gauges the living's; there is no bridge."""
    async with fleet(tmp_path) as made:
        made.fleet.scale(1)
        writer = made.board.writer(made.worker.row)
        writer.topics(
            subscriptions=7, topics=3, queue_bytes=50, published=1, delivered=2, dropped=3, sent=4
        )
        gone = made.board.allocate(99, 0, 1)
        made.board.writer(gone).topics(
            subscriptions=100,
            topics=100,
            queue_bytes=100,
            published=10,
            sent_bytes=20,
            received=30,
            lost=40,
            missed=50,
            recovered=60,
            not_recovered=70,
        )
        made.board.fold(gone)
        status = shown(made)
        assert status["topics"] == {
            "subscriptions": 7,
            "published": 11,
            "delivered": 2,
            "dropped": 3,
            "recovered": 60,
            "not_recovered": 70,
            "bus": {
                "sent": 4,
                "bytes": 20,
                "received": 30,
                "lost": 40,
                "missed": 50,
                "queue_bytes": 50,
            },
            "bridge": None,
        }
        (worker,) = status["slots"][0]["workers"]
        gauges = (worker["subscriptions"], worker["topics"], worker["bus_queue_bytes"])
        assert gauges == (7, 3, 50)


async def test_status_tells_of_the_bridge(tmp_path: Path) -> None:
    """Before its first word, while it looks for its server, connected, hanging, and gone."""
    async with fleet(tmp_path, **{"topics.bus": "redis://:secret@h", "stall_after": "1s"}) as made:
        bridging = SimpleNamespace(wanted=True, pid=None, restarts=0, error="")

        def told() -> dict[str, Any]:
            found: dict[str, Any] = shown(made, bridging=bridging)["topics"]["bridge"]
            assert found["url"] == "redis://:***@h"
            return found

        assert told()["state"] == "lost"
        bridging.pid = 4711
        assert (told()["state"], told()["pid"]) == ("starting", 4711)
        writer = made.board.bridge_writer()
        writer.begin(9)
        assert told()["state"] == "starting"
        writer.heartbeat(time.monotonic_ns())
        writer.disconnected(BridgeFault.AUTH)
        found = told()
        assert (found["state"], found["fault"], found["stalled"]) == ("connecting", "auth", False)
        assert found["connected_for"] is None
        writer.connected(time.monotonic_ns() - 5 * 10**9)
        writer.server(sent=1, received=2, lost=3, missed=4)
        writer.bus(sent=5, received=6, lost=7, missed=8)
        writer.queue(9)
        found = told()
        assert (found["state"], found["fault"], found["reconnects"]) == ("connected", "none", 0)
        assert 5 <= found["connected_for"] < 60
        counted = [found[key] for key in ("sent", "received", "lost", "missed", "queue_bytes")]
        assert counted == [1, 2, 3, 4, 9]
        assert found["bus"] == {"sent": 5, "received": 6, "lost": 7, "missed": 8}
        writer.heartbeat(time.monotonic_ns() - 2 * 10**9)
        assert told()["stalled"]
        bridging.pid, bridging.restarts, bridging.error = None, 1, "killed by SIGKILL"
        found = told()
        assert (found["state"], found["error"], found["restarts"]) == ("lost", bridging.error, 1)
        assert (found["stalled"], found["connected_for"], found["sent"]) == (False, None, 1)
        assert found["queue_bytes"] == 0


async def test_status_shows_roles_states_and_loans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker is shown with its role and state, a slot with its error and with who serves its
    listeners.
    """
    monkeypatch.setattr(booting, "_PATIENCE", 0.0)
    async with fleet(tmp_path) as made:
        made.fleet.scale(2)
        first, second = made.fleet.slots.values()
        worker = first.current
        assert worker is not None
        worker.pid, worker.ready = 4711, True
        made.board.identify(worker.row, state=WorkerState.READY)
        worker.state = WorkerState.READY
        made.fleet.event(first, Event.CURRENT_READY)
        second.error = "it broke"
        status = shown(made)
        mine, other = status["slots"]
        assert (mine["state"], mine["error"], mine["lent_to"]) == ("ready", None, None)
        (told,) = mine["workers"]
        assert (told["pid"], told["role"], told["state"]) == (4711, Role.CURRENT, "ready")
        assert (other["error"], other["lent_to"]) == ("it broke", 0)
