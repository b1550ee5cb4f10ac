"""``GET /metrics``: looks at the instance and answers in the format that was asked for.

Nobody is asked for anything: counts are read from the scoreboard, memory and descriptors from
/proc, accept queues from the kernel, and the rest is what the master told last.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping

from prometheus_client import exposition, metrics_core
from prometheus_client.registry import Collector

from wssup.observer import catalogue
from wssup.observer.families import Scene, families
from wssup.observer.procs import ProcessSample, sample
from wssup.observer.queues import Queues
from wssup.scoreboard import Scoreboard
from wssup.status.facts import Facts, ProcessFacts

__all__ = ["Metrics"]

_OPENMETRICS = "application/openmetrics-text"
#: What the observer counts of itself: names in ``own``, and of metrics.
_OWN = {"event_streams": catalogue.EVENT_STREAMS.name}


class _Seen(Collector):
    """What was seen once, as prometheus-client encodes it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def collect(self) -> Iterator[metrics_core.Metric]:
        """All metrics."""
        return families(self._scene)


class Metrics:
    """The metrics of an instance."""

    def __init__(self, board: Scoreboard) -> None:
        self._board = board
        self._queues = Queues()
        self._whole = False

    def scrape(
        self, facts: Facts, accept: str, own: Mapping[str, float] | None = None
    ) -> tuple[bytes, str]:
        """All metrics as they are now. Takes about 15 ms with 64 slots and waits for nobody.

        :param facts: what the master told last.
        :param accept: the request's Accept header: OpenMetrics if it asks for that, otherwise
            Prometheus's text format.
        :param own: what the observer counts of itself; names that the table lacks are left out.
        :returns: the body, and its content type.
        """
        kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
        # The header itself is not handed on: the library trips over versions that are none.
        encode, content_type = exposition.choose_encoder(
            _OPENMETRICS if _OPENMETRICS in kinds else ""
        )
        return encode(_Seen(self._look(facts, own or {}))), content_type

    def close(self) -> None:
        """Let go of what was opened."""
        self._queues.close()

    def _look(self, facts: Facts, own: Mapping[str, float]) -> Scene:
        snapshot = self._board.snapshot()
        # A stale snapshot is an earlier good one, or, before there was one, lacks a worker.
        self._whole = self._whole or not snapshot.stale
        return Scene(
            facts=facts,
            snapshot=snapshot,
            bridge=self._board.bridge(),
            samples=list(_samples(facts)),
            queues=self._queues.read(facts.listeners),
            now_ns=time.monotonic_ns(),
            python=platform.python_version(),
            own={_OWN[name]: value for name, value in own.items() if name in _OWN},
            whole=self._whole,
        )


def _samples(facts: Facts) -> Iterator[tuple[ProcessFacts, ProcessSample]]:
    for process in facts.processes:
        found = sample(process.pid)
        if found is not None:
            yield process, found
