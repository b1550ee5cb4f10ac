"""The status document of a master with a fleet that forks nothing."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.unit.supervisor.forkless import Made, fleet
from wssup.scoreboard import (
    BridgeFault,
    ClosedReason,
    HandoffRefusal,
    WorkerState,
)
from wssup.supervisor import booting
from wssup.supervisor.children import Role
from wssup.supervisor.limits import Nofile
from wssup.supervisor.slots import Event
from wssup.supervisor.status import document


def shown(made: Made, **changes: Any) -> dict[str, Any]:
    """The document of a master with this fleet; it must be JSON."""
    loaded = SimpleNamespace(settings=made.settings)
    parts: dict[str, Any] = {
        "scoreboard": made.board,
        "fleet": made.fleet,
        "settings": made.settings,
        "loaded": loaded,
        "listeners": made.listeners,
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
