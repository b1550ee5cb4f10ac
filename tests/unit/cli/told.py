"""What an instance tells a command, and what the command says of it."""

from __future__ import annotations

from typing import Any

import pytest
from control_peer import Peer

__all__ = ["SHORT", "errors", "running", "status"]

SHORT = ["--answer-timeout", "0.2"]


def status(**changes: Any) -> dict[str, Any]:
    """A status document of schema 1."""
    return {
        "schema": 1,
        "name": "default",
        "version": "0.1",
        "state": "running",
        "pid": 4242,
        "generation": 7,
        "started_at": "2024-01-01T00:00:00+00:00",
        "bind": ["127.0.0.1:8000", "[::1]:8000"],
        "connections": {"open": 1030, "active": 1024, "accepted": 5000, "closed": 3970},
        "capacity": 38872,
        "mixed": False,
        "slots": [
            {
                "slot": 0,
                "state": "ready",
                "error": None,
                "lent_to": None,
                "workers": [
                    {
                        "pid": 101,
                        "generation": 7,
                        "state": "ready",
                        "open": 515,
                        "active": 512,
                        "accepted": 2500,
                        "lag_ms": 0.31,
                        "lag_max_ms": 5,
                        "age": 11130,
                        "stalled": False,
                        "stale": False,
                    }
                ],
            },
            {
                "slot": 1,
                "state": "failed",
                "error": "5 failures in 60s:\nboom",
                "lent_to": 0,
                "workers": [],
            },
        ],
        "last_reload": {"outcome": "done", "generation": 7, "seconds": 12.5, "reason": None},
    } | changes


def running(peer: Peer, **script: list[Any]) -> Peer:
    peer.script = {"status": [{"result": status()}], **script}
    return peer.lock().listen()


def errors(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    return err
