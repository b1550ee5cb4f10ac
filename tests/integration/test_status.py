"""The status document of schema 1."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.harness.instance import Instance
from tests.harness.raw import raw_clients

Start = Callable[..., Instance]

_NUMBER = (int, float)
_MAYBE_TEXT = (str, type(None))
_DOCUMENT: dict[str, Any] = {
    "schema": int,
    "name": str,
    "version": str,
    "state": str,
    "pid": int,
    "generation": int,
    "mixed": bool,
    "app": str,
    "started_at": float,
    "bind": [str],
    "retiring": [str],
    "capacity": int,
    "limits": {
        "nofile": {"soft": int, "hard": int, "found": int},
        "reserve_fds": int,
        "backlog": int,
        "max_connections": int,
        "worker_connections": int,
    },
    "workers": int,
    "restarts": int,
    "connections": {
        "open": int,
        "active": int,
        "accepted": int,
        "closed": int,
        "refused": int,
        "handshake_failures": int,
        "closed_by_reason": dict,
        "refused_by_reason": dict,
        "handshake_failures_by_reason": dict,
        "messages_in": int,
        "messages_out": int,
        "bytes_in": int,
        "bytes_out": int,
        "handler_runs": int,
        "handler_errors": int,
    },
    "topics": {
        "subscriptions": int,
        "published": int,
        "delivered": int,
        "dropped": int,
        "recovered": int,
        "not_recovered": int,
        "bus": {
            "sent": int,
            "bytes": int,
            "received": int,
            "lost": int,
            "missed": int,
            "queue_bytes": int,
        },
        "bridge": type(None),
    },
    "slots": [
        {
            "slot": int,
            "state": str,
            "error": _MAYBE_TEXT,
            "lent_to": (int, type(None)),
            "workers": [
                {
                    "pid": int,
                    "generation": int,
                    "role": str,
                    "state": str,
                    "stalled": bool,
                    "open": int,
                    "active": int,
                    "accepted": int,
                    "closed": int,
                    "handler_errors": int,
                    "accepting": bool,
                    "subscriptions": int,
                    "topics": int,
                    "bus_queue_bytes": int,
                    "lag_ms": _NUMBER,
                    "lag_max_ms": _NUMBER,
                    "age": _NUMBER,
                    "stale": bool,
                }
            ],
        }
    ],
    "reload": (dict, type(None)),
    "last_reload": {
        "outcome": str,
        "generation": int,
        "seconds": _NUMBER,
        "reason": _MAYBE_TEXT,
        "traceback": _MAYBE_TEXT,
    },
}


def _check(value: object, shape: Any, where: str) -> None:
    """Every key of the shape is there with its type; further keys are allowed under one schema."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        for key, inner in shape.items():
            assert key in value, f"{where}.{key} is missing"
            _check(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            _check(item, shape[0], f"{where}[{index}]")
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        assert type(value) in kinds, f"{where} = {value!r}"


def test_the_status_document(start: Start) -> None:
    """The status document has every key of schema 1 with its type, state names are in lower case,
    and its counts are right.
    """
    instance = start(settle=0.1, drain_window=0.1)
    before = instance.running()
    assert before["last_reload"] is None
    assert instance.ask("reload")["result"]["outcome"] == "done"
    with raw_clients(before["bind"][0], 3):
        instance.wait(lambda s: s["connections"]["active"] == 3, "the connections")
        status = instance.wait(
            lambda s: all(len(slot["workers"]) == 1 for slot in s["slots"]), "the old workers' end"
        )
    _check(status, _DOCUMENT, "status")
    assert (status["schema"], status["name"], status["state"]) == (1, "test", "running")
    assert (status["pid"], status["generation"], status["workers"]) == (instance.pid, 2, 2)
    assert abs(status["started_at"] - time.time()) < 600
    assert [slot["slot"] for slot in status["slots"]] == [0, 1]
    for slot in status["slots"]:
        [worker] = slot["workers"]
        assert (slot["state"], worker["state"], worker["role"]) == ("ready", "ready", "current")
        assert worker["accepting"]
    counts = status["connections"]
    assert (counts["open"], counts["active"], counts["handler_runs"]) == (3, 3, 3)
    assert sum(slot["workers"][0]["active"] for slot in status["slots"]) == 3
    printed = instance.run("status", "--json")
    assert printed.returncode == 0
    _check(json.loads(printed.stdout), _DOCUMENT, "printed")
