"""What the master's handles say of themselves."""

from __future__ import annotations

from typing import Any, cast

import pytest

from wssup.supervisor.children import CAUSES, Role, Worker
from wssup.supervisor.process import Exit


@pytest.mark.parametrize(
    ("cause", "known"),
    [
        ("not_ready", {}),
        ("not_ready", {"failure": "it cannot bind", "ended": Exit(1, None)}),
        ("hung", {"ready": True, "aborted": True, "failure": "x", "ended": Exit(None, 6)}),
        ("failed", {"ready": True, "failure": "its lifespan failed", "ended": Exit(1, None)}),
        ("signal", {"ready": True, "ended": Exit(None, 9)}),
        ("exit", {"ready": True, "ended": Exit(0, None)}),
        ("exit", {"ready": True}),
    ],
)
def test_why_a_worker_ended(cause: str, known: dict[str, Any]) -> None:
    """The cause of an end that nobody asked for is one of a few, which never change."""
    nothing = cast("Any", None)
    worker = Worker(1, 0, nothing, 0, nothing, Role.CURRENT, 0.0, **known)
    assert worker.cause == cause
    assert cause in CAUSES
