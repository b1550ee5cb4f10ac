"""The limits of a worker inside gunicorn, which nobody tells its part."""

from __future__ import annotations

import math

import pytest

from wssup.config.settings import Settings
from wssup.gunicorn.serving import _admission


@pytest.mark.parametrize(
    ("given", "workers", "limit"),
    [
        ({}, 2, 1000),
        ({"worker_connections": 50}, 2, 50),
        ({"worker_connections": 5000}, 2, 5000),
        ({"max_connections": 90}, 4, 22),
        ({"max_connections": 90, "worker_connections": 10}, 4, 10),
        ({"max_connections": 2}, 4, 1),
    ],
)
def test_connections(given: dict[str, int], workers: int, limit: int) -> None:
    """The worker_connections of wssup hold where they are set, else those of gunicorn; of
    max_connections a worker has an equal part, rounded down.
    """
    found = _admission(Settings(app="a:b", app_dir=".", runtime_dir=".", **given), workers, 1000)  # type: ignore[arg-type]
    assert found.judge(limit - 1, 0, 0, 0.0).reason is None
    assert found.judge(limit, 0, 0, 0.0).wait == math.inf


def test_rate_and_overflow() -> None:
    """A rate is divided, too, and those beyond a limit are turned away if that is wanted."""
    settings = Settings(
        app="a:b", app_dir=".", runtime_dir=".", max_handshakes_per_second=6, overflow="refuse"
    )
    found = _admission(settings, 2, 1000)
    later = 1e12
    for _ in range(3):
        assert found.judge(0, 0, 0, later).reason is None
        found.admitted()
    assert found.judge(0, 0, 0, later)[1:] == (0.0, 3.0, "max_handshakes_per_second")
