"""The status document as a pure function of facts and counts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.unit.observer.scenes import facts
from wssup.scoreboard import ClosedReason, InstanceState, Scoreboard
from wssup.status.document import document, slot_document
from wssup.status.facts import ReloadFacts, SlotFacts, WorkerFacts


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Scoreboard]:
    """A scoreboard with two workers, the first of which has counted something."""
    made = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, 4, 2)
    made.unlink()
    made.state = InstanceState.RUNNING
    for serial in (1, 2):
        made.allocate(serial, serial - 1, 7)
    writer = made.writer(0)
    for _ in range(4):
        writer.accepted()
        writer.upgraded()
    writer.closed(ClosedReason.CLIENT, 90.0)
    for _ in range(99):
        writer.round_trip(0.0009)
    writer.round_trip(0.5)
    yield made
    made.close()


def test_it_is_json_of_all_that_is_known(board: Scoreboard) -> None:
    """The document is JSON; facts and counts stand side by side, each worker's by its serial."""
    last = ReloadFacts("refused", 8, 0.5, "it cannot be imported")
    known = facts(last_reload=last, reload=9, status_socket="/run/x/status.sock")
    made = document(known, board.snapshot(), None, time.monotonic_ns())
    assert msgspec.json.decode(msgspec.json.encode(made)) == made
    assert (made["schema"], made["state"], made["workers"]) == (1, "running", 2)
    assert [w["active"] for s in made["slots"] for w in s["workers"]] == [3, 0]
    assert [w["serial"] for s in made["slots"] for w in s["workers"]] == [1, 2]
    assert made["connections"]["closed_by_reason"]["client"] == 1
    assert made["reload"] == {"generation": 9}
    assert made["last_reload"]["reason"] == "it cannot be imported"
    assert made["restarts_by_reason"]["signal"] == 2
    assert made["reloads"]["done"] == 6
    assert made["observer"]["socket"] == "/run/x/status.sock"
    assert made["topics"]["bridge"]["state"] == "starting"


def test_times_come_with_their_histograms(board: Scoreboard) -> None:
    """Round trips and lifetimes come as quantiles, and as the counts that they are made of."""
    made = document(facts(), board.snapshot(), None, time.monotonic_ns())
    ping = made["latency"]["ping_ms"]
    assert 0.5 < ping["p50"] <= 1.024
    assert ping["max"] > 500
    trips = made["latency"]["ping"]
    assert len(trips["counts"]) == len(trips["bounds_ms"]) + 1
    assert sum(trips["counts"]) == 100
    ages = made["lifetimes"]
    assert len(ages["counts"]) == len(ages["bounds_s"]) + 1
    assert sum(ages["counts"]) == 1
    assert 64 <= ages["p50_s"] <= 128


def test_a_worker_without_a_row(board: Scoreboard) -> None:
    """A worker that has no row any more is shown with what is known of it, and a row whose worker
    the master does not tell of yet counts in the totals.
    """
    gone = WorkerFacts(99, None, 8, "successor", "starting", False)
    known = facts(slots=(SlotFacts(0, "replacing", "", 1, (gone,)),))
    made = document(known, board.snapshot(), None, time.monotonic_ns())
    assert made["slots"] == [
        {
            "slot": 0,
            "state": "replacing",
            "error": None,
            "lent_to": 1,
            "workers": [
                {
                    "serial": 99,
                    "pid": None,
                    "generation": 8,
                    "role": "successor",
                    "state": "starting",
                    "stalled": False,
                }
            ],
        }
    ]
    assert made["connections"]["active"] == 3


def test_one_slot(board: Scoreboard) -> None:
    """A slot by itself has all counts of its workers; one that does not exist is none."""
    now = time.monotonic_ns()
    made = slot_document(facts(), board.snapshot(), 0, now)
    assert made is not None
    [worker] = made["workers"]
    assert worker["connections"]["accepted"] == 4
    assert sum(worker["latency"]["ping"]["counts"]) == 100
    assert slot_document(facts(), board.snapshot(), 2, now) is None
