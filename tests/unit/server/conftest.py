"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
