"""Who an application finds itself in."""

from __future__ import annotations

import pytest

import wssup
from wssup import identity


def test_outside_a_worker_there_is_no_answer() -> None:
    """Asked in a process that is no worker, the error says why and where to ask instead."""
    with pytest.raises(RuntimeError, match="not a wssup worker") as caught:
        wssup.current_worker()
    assert "from the handler" in str(caught.value)


def test_inside_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker said once is what everybody in it gets, by name."""
    monkeypatch.setattr(identity, "_current", None)
    identity.set_current_worker(wssup.WorkerInfo("shop", slot=2, generation=3, pid=4711))
    found = wssup.current_worker()
    assert (found.instance, found.slot, found.generation, found.pid) == ("shop", 2, 3, 4711)
