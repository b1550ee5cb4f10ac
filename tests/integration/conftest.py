"""A service manager that a test plays, and instances under it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.service_manager import Serviced, ServiceManager

Launch = Callable[..., Serviced]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    found = ServiceManager(str(tmp_path / "notify"))
    yield found
    found.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start instances under a manager; ended with the test."""
    started: list[Serviced] = []

    def starting(
        manager: ServiceManager | None, *, kept: object = None, **settings: object
    ) -> Serviced:
        options = {k: settings.pop(k) for k in ("passed", "environment", "application", "store")
                   if k in settings}  # fmt: skip
        instance = Serviced(tmp_path, manager, settings, **options)  # type: ignore[arg-type]
        started.append(instance)
        return instance

    yield starting
    for instance in started:
        instance.end()
        print(*instance.logged().splitlines()[-100:], sep="\n")  # noqa: T201
