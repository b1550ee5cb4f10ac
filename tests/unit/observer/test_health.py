"""Readiness and liveness as decisions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.observer.scenes import facts
from wssup.observer.health import SILENCE, not_alive, not_ready
from wssup.scoreboard import InstanceState, Scoreboard, WorkerState
from wssup.status.facts import SlotFacts, WorkerFacts


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Scoreboard]:
    """Two workers that accept."""
    made = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, 4, 2)
    made.unlink()
    made.state = InstanceState.RUNNING
    for serial in (1, 2):
        row = made.allocate(serial, serial - 1, 7)
        made.identify(row, state=WorkerState.READY)
        made.writer(row).accepting(True)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (InstanceState.STARTING, "starting"),
        (InstanceState.RUNNING, ""),
        (InstanceState.RELOADING, ""),
        (InstanceState.DRAINING, "draining"),
        (InstanceState.STOPPING, "stopping"),
    ],
)
def test_ready_by_state(board: Scoreboard, state: InstanceState, why: str) -> None:
    """Connections may come while the instance runs or reloads, and at no other time."""
    board.state = state
    assert not_ready(facts(), board.snapshot()) == why


def test_ready_by_workers(board: Scoreboard) -> None:
    """One worker that accepts and turns is enough; none is not, whether they hold or stall."""
    assert not_ready(facts(), board.snapshot()) == ""
    board.writer(0).accepting(False)
    assert not_ready(facts(), board.snapshot()) == ""
    stalled = WorkerFacts(2, 1, 7, "current", "ready", True)
    known = facts(slots=(SlotFacts(1, "ready", "", None, (stalled,)),))
    assert not_ready(known, board.snapshot()) == "no worker accepts"
    board.identify(1, state=WorkerState.DRAINING)
    assert not_ready(facts(), board.snapshot()) == "no worker accepts"


def test_alive() -> None:
    """An instance whose master is silent, or of whose slots all have failed, is not alive; one that
    starts or stops is, whatever its slots.
    """
    running = InstanceState.RUNNING
    assert not_alive(facts(), running, 0.5) == ""
    assert "said nothing for 11 s" in not_alive(facts(), running, SILENCE + 1)
    lost = tuple(SlotFacts(n, state, "", None, ()) for n, state in enumerate(("failed", "parked")))
    assert not_alive(facts(slots=lost), running, 0.5) == "no slot has a worker, or will have one"
    assert not_alive(facts(slots=lost), InstanceState.STARTING, 0.5) == ""
    assert not_alive(facts(slots=lost), InstanceState.STOPPING, 0.5) == ""
    hope = (*lost, SlotFacts(2, "backoff", "", None, ()))
    assert not_alive(facts(slots=hope), running, 0.5) == ""
