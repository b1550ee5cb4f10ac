"""Fixtures of the supervisor's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.listeners import Make
from wssup.supervisor.listeners import Listeners


@pytest.fixture
def make() -> Iterator[Make]:
    """Listeners on some addresses, listening; closed at the end."""
    made: list[Listeners] = []

    def making(*binds: str, slots: int = 1, mode: int = 0o660, backlog: int = 1024) -> Listeners:
        found = Listeners(backlog=backlog, mode=mode)
        made.append(found)
        found.extend(slots)
        found.add(found.bind(binds))
        return found

    yield making
    for found in made:
        found.close_all()
