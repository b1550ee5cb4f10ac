"""What several of these tests need."""

from __future__ import annotations

import pytest

from wssup.bridge import desk, links, redis


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and patience are short, so that tests are."""
    monkeypatch.setattr(redis, "_LONGEST", 0.05)
    monkeypatch.setattr(links, "_IDLE", 0.05)
    monkeypatch.setattr(links, "DEADLINE", 5.0)
    monkeypatch.setattr(desk, "_AGAIN", 0.05)
