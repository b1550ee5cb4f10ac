"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.harness.cores import End, an_end
from tests.harness.worker_process import ECHO, Run, Worker


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started: list[Worker] = []

    def running(application: str = ECHO, **changes: object) -> Worker:
        started.append(Worker(tmp_path, application, changes))
        return started[-1]

    yield running
    for worker in started:
        worker.close()


@pytest.fixture
def end(core: ModuleType) -> Iterator[End]:
    """Of the core that a test is about: a connection and its client."""
    with an_end(core) as made:
        yield made
