"""``wssup status``, and how connections are spread."""

from __future__ import annotations

import json
from typing import Any

import pytest
from control_peer import DEADLINE, Peer
from told import errors, running, status

from wssup.cli.main import main


def test_status_for_people(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """Status shows the instance, each slot's worker, what failed and the last reload."""
    running(peer)
    assert main(["status"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert peer.requests.get(timeout=DEADLINE) == {"v": 1, "command": "status"}
    for part in [
        *("default", "running", "generation 7", "pid 4242", "127.0.0.1:8000  [::1]:8000"),
        *("1,024 active, 1,030 open", "capacity 38,872 (2.6% used)"),
        *("slot 1 failed: 5 failures in 60s:", "  boom"),
        "last reload  done, generation 7, 12.5s",
    ]:
        assert part in out
    row = next(line for line in out.splitlines() if " 101 " in line)
    assert row.split() == ["0", "101", "7", "ready", "512", "2,500", "0.3ms", "3h", "05m"]
    assert "failed, lent to 0" in out
    assert "\x1b" not in out


def test_status_tells_what_drains_and_what_is_mixed(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old workers that drain, stalled and stale workers and a mixed generation are named."""
    worker = status()["slots"][0]["workers"][0]
    old = worker | {"pid": 99, "generation": 6, "state": "draining", "active": 1812}
    slots = [
        {"slot": 0, "state": "replacing", "workers": [worker | {"stalled": True}, old]},
        {"slot": 1, "state": "ready", "workers": [worker | {"stale": True}]},
    ]
    running(peer, status=[{"result": status(slots=slots, mixed=True, last_reload={})}])
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    for part in [
        "draining  1 worker of generation 6, 1,812 connections left",
        "ready, stalled",
        "ready, stale",
        "generation 7 is mixed",
    ]:
        assert part in out
    assert "last reload" not in out


def test_status_tells_what_moved(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """Connections that moved are shown with their pauses, those that did not with the reasons."""
    handoff = {
        "moved": 81203,
        "in_progress": 0,
        "refused_by_reason": {"state": 2, "busy": 1, "not_resumable": 0},
        "bytes": 12345,
        "pause_ms": {"p50": 3.96, "p99": 12.4, "max": 40.0},
    }
    last = status()["last_reload"] | {"moved": 2000, "disconnected": 3, "pause_p99_ms": 12.0}
    running(peer, status=[{"result": status(handoff=handoff, last_reload=last)}])
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "last reload  done, generation 7, 12.5s, 2,000 moved, 3 disconnected" in out
    line = next(x for x in out.splitlines() if x.startswith("handoff"))
    assert line.rstrip() == (
        "handoff  81,203 moved, 3 not (state 2, busy 1); pause p50 4.0 ms, p99 12 ms, max 40 ms"
    )
    peer.script["status"] = [{"result": status(handoff=handoff | {"in_progress": 1})}]
    assert main(["status"]) == 0
    assert "; moving now" in capsys.readouterr().out
    peer.script["status"] = [{"result": status(handoff={"moved": 0})}]
    assert main(["status"]) == 0
    assert "handoff" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"moved": 0, "planned": 0}, "nothing to move: the workers are even"),
        ({"moved": 1500, "planned": 1500, "seconds": 0.42}, "rebalanced: 1,500 moved, 0.4 s"),
        ({"moved": 7, "planned": 9, "seconds": 30.0}, "rebalanced: 7 moved, 2 stayed, 30.0 s"),
    ],
)
def test_rebalance(
    peer: Peer, capsys: pytest.CaptureFixture[str], result: dict[str, Any], said: str
) -> None:
    """Rebalance shows what moves, and says in the end how many have and how many stayed."""
    event = {"event": "slot", "slot": 0, "state": "moving", "moved": 5, "total": 9}
    running(peer, rebalance=[event, {"result": result}])
    assert main(["rebalance"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["slot 0: moving, 5 of 9 connections moved", said]
    assert peer.requests.get(timeout=DEADLINE) == {"v": 1, "command": "rebalance"}


def test_a_rebalance_that_is_refused(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is one line and exit status 1."""
    error = {"code": "refused", "message": "connections cannot move: it is not resumable"}
    running(peer, rebalance=[{"error": error}])
    assert main(["rebalance"]) == 1
    assert "connections cannot move: it is not resumable" in errors(capsys)


def test_status_json_is_the_document_as_it_is(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json prints the master's document unchanged, also fields this version does not know."""
    document = status(new_field={"x": [1, None]}, name="\u009b\x1b[31m")
    running(peer, status=[{"result": document}])
    assert main(["status", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == document
    assert out.isascii()
    assert "\x1b" not in out
