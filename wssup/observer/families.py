"""Fills the table of metrics (catalogue.py) from what was seen. Pure: metrics.py looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import metrics_core as core

from wssup.kernel.sockdiag import Queue
from wssup.observer import catalogue as table
from wssup.observer.catalogue import METRICS, Metric
from wssup.observer.procs import ProcessSample
from wssup.scoreboard import (
    BridgeState,
    BridgeView,
    ClosedReason,
    Counts,
    InstanceState,
    RowView,
    Snapshot,
)
from wssup.scoreboard.histogram import Histogram
from wssup.status.facts import BridgeFacts, Facts, ProcessFacts

__all__ = ["Scene", "families"]

#: What the master counts when a worker died: its clients saw no closing handshake.
_DIED: Final = ("1006", "server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that was seen of an instance at one moment.

    :ivar bridge: its cells, if there ever was one.
    :ivar samples: the processes that could be looked at.
    :ivar queues: accept queues by inode.
    :ivar now_ns: of CLOCK_MONOTONIC.
    :ivar python: the version of the interpreter.
    :ivar own: gauges of the observer, by the names of the table.
    :ivar whole: the snapshot has all that was ever counted. Otherwise counters are left out: one
        that goes backwards reads as a restart, and all of it would be counted again.
    """

    facts: Facts
    snapshot: Snapshot
    bridge: BridgeView | None
    samples: Iterable[tuple[ProcessFacts, ProcessSample]]
    queues: Mapping[int, Queue]
    now_ns: int
    python: str
    own: Mapping[str, float]
    whole: bool = True


class _Sheet:
    """Values by metric and labels. What has the same labels is added up: two workers of one slot
    and generation, while one takes the other's place.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[tuple[str, ...], float]] = {}
        self.histograms: dict[str, Histogram] = {}

    def put(self, metric: Metric, value: float, *labels: str) -> None:
        """One value; ``labels`` in the table's order."""
        values = self.values.setdefault(metric.name, {})
        values[labels] = values.get(labels, 0) + value

    def top(self, metric: Metric, value: float, *labels: str) -> None:
        """One value, of which the greatest counts."""
        values = self.values.setdefault(metric.name, {})
        values[labels] = max(values.get(labels, 0), value)

    def split(self, metric: Metric, parts: Mapping[str, float], *labels: str) -> None:
        """Values by the last label."""
        for label, value in parts.items():
            self.put(metric, value, *labels, label)


def families(scene: Scene) -> Iterator[core.Metric]:
    """All metrics in the order of the table; those that nothing was seen of are left out."""
    sheet = _Sheet()
    _instance(sheet, scene)
    _slots(sheet, scene.facts)
    for view in scene.snapshot.rows:
        _worker(sheet, view)
    _processes(sheet, scene.samples)
    _listeners(sheet, scene)
    if scene.facts.bridge is not None:
        _bridge_state(sheet, scene.facts.bridge, scene)
    if scene.whole:
        _counts(sheet, scene.snapshot.total)
        _told(sheet, scene.facts)
        if scene.bridge is not None:
            _bridge_counts(sheet, scene.bridge)
    for name, metric in METRICS.items():
        if name in sheet.histograms:
            yield _histogram(metric, sheet.histograms[name])
        elif name in sheet.values:
            yield _family(metric, sheet.values[name])


def _instance(sheet: _Sheet, scene: Scene) -> None:
    facts = scene.facts
    sheet.put(table.BUILD, 1, facts.version, scene.python)
    sheet.put(table.START_TIME, facts.started_at)
    states = {state.label: float(state is scene.snapshot.state) for state in InstanceState}
    sheet.split(table.STATE, states)
    sheet.put(table.GENERATION, facts.generation)
    sheet.put(table.MIXED, facts.mixed)
    sheet.put(table.RELOADING, facts.reload is not None)
    sheet.put(table.HANDOFFS_RUNNING, facts.handoffs_in_progress)
    sheet.put(table.CAPACITY, facts.capacity)
    sheet.put(table.WORKERS_WANTED, facts.workers)
    sheet.put(table.STALE_ROWS, sum(view.stale for view in scene.snapshot.rows))
    for name, value in scene.own.items():
        if name in METRICS:
            sheet.put(METRICS[name], value)


def _slots(sheet: _Sheet, facts: Facts) -> None:
    states = Counter(slot.state for slot in facts.slots)
    sheet.split(table.SLOTS, {state: states[state] for state in table.SLOT_STATES})
    sheet.put(table.SLOTS_LENT, sum(slot.lent_to is not None for slot in facts.slots))
    workers = [worker for slot in facts.slots for worker in slot.workers]
    sheet.put(table.WORKERS_STALLED, sum(worker.stalled for worker in workers))


def _worker(sheet: _Sheet, view: RowView) -> None:
    """One row: what is its worker's alone."""
    whose = (str(view.slot), str(view.generation))
    for state in table.WORKERS.values["state"]:
        sheet.put(table.WORKERS, state == view.state.label, whose[1], state)
    active = view.counts.active
    sheet.put(table.CONNECTIONS, active, *whose, "active")
    sheet.put(table.CONNECTIONS, view.counts.open - active, *whose, "handshaking")
    sheet.put(table.SEND_QUEUE, view.send_queue_bytes, *whose)
    sheet.top(table.LOOP_LAG, view.lag_last_ns / 1e9, *whose)
    sheet.top(table.LOOP_LAG_MAX, view.lag_max_ns / 1e9, *whose)
    sheet.put(table.SUBSCRIPTIONS, view.subscriptions, *whose)
    sheet.put(table.TOPICS, view.topics, *whose)
    sheet.put(table.BUS_QUEUE, view.bus_queue_bytes, *whose)


def _counts(sheet: _Sheet, counts: Counts) -> None:
    """What all workers counted that there are and were."""
    sheet.put(table.ACCEPTED, counts.accepted)
    sheet.put(table.UPGRADED, counts.upgraded)
    sheet.split(table.CLOSED, counts.closed_by_reason)
    for initiator, codes in counts.closes_by_code.items():
        for code in table.CLOSES.values["code"]:
            sheet.put(table.CLOSES, codes.get(code, 0), code, initiator)
    sheet.put(table.CLOSES, counts.closed_by_reason[ClosedReason.WORKER_DIED.label], *_DIED)
    sheet.split(table.REFUSED, counts.refused_by_reason)
    sheet.split(table.HANDSHAKE_FAILURES, counts.handshake_failures_by_reason)
    sheet.split(table.MESSAGES, {"in": counts.messages_in, "out": counts.messages_out})
    sheet.split(table.MESSAGE_BYTES, {"in": counts.bytes_in, "out": counts.bytes_out})
    sheet.put(table.PINGS, counts.pings_sent)
    sheet.put(table.PING_TIMEOUTS, counts.ping_timeouts)
    sheet.put(table.HANDLER_RUNS, counts.handler_runs)
    sheet.put(table.HANDLER_ERRORS, counts.handler_errors)
    sheet.put(table.HTTP_REQUESTS, counts.http_requests)
    sheet.put(table.HTTP_ERRORS, counts.http_errors)
    sheet.put(table.HTTP_CLOSED, counts.http_closed)
    moves = {"moved": counts.moved_in} | counts.handoff_refused_by_reason
    sheet.split(table.HANDOFFS, moves)
    sheet.put(table.HANDOFF_BYTES, counts.handoff_bytes)
    sheet.histograms[table.DURATION.name] = counts.lifetime
    sheet.histograms[table.PING_RTT.name] = counts.round_trip
    sheet.histograms[table.HANDOFF_PAUSE.name] = counts.pause
    topics = counts.topics
    sheet.put(table.PUBLISHED, topics.published)
    sheet.put(table.DELIVERED, topics.delivered)
    sheet.put(table.DROPPED, topics.dropped)
    asked = {"recovered": topics.recovered, "not_recovered": topics.not_recovered}
    sheet.split(table.RECOVERIES, asked)
    sheet.split(table.BUS_MESSAGES, {"in": topics.bus_received, "out": topics.bus_sent})
    sheet.put(table.BUS_BYTES, topics.bus_bytes)
    sheet.put(table.BUS_LOST, topics.bus_lost)
    sheet.put(table.BUS_MISSED, topics.bus_missed)


def _told(sheet: _Sheet, facts: Facts) -> None:
    """What the master counts itself."""
    sheet.split(table.RESTARTS, facts.restarts_by_reason)
    sheet.split(table.RECYCLED, facts.recycled)
    sheet.split(table.RELOADS, facts.reloads)
    sheet.put(table.OBSERVER_RESTARTS, facts.observer_restarts)
    if facts.bridge is not None:
        sheet.put(table.BRIDGE_RESTARTS, facts.bridge.restarts)


def _processes(sheet: _Sheet, samples: Iterable[tuple[ProcessFacts, ProcessSample]]) -> None:
    for process, sample in samples:
        whose = (process.role, _text(process.slot), _text(process.generation))
        values = (
            (table.RSS, sample.rss),
            (table.OPEN_FDS, sample.open_fds),
            (table.MAX_FDS, sample.max_fds),
        )
        for metric, value in values:
            if value is not None:
                sheet.put(metric, value, *whose)


def _listeners(sheet: _Sheet, scene: Scene) -> None:
    for listener in scene.facts.listeners:
        queue = scene.queues.get(listener.inode)
        if queue is None:
            continue
        where = (_text(listener.slot), listener.address)
        sheet.put(table.LISTEN_QUEUE, queue.length, *where)
        sheet.put(table.LISTEN_LIMIT, queue.limit, *where)
        if queue.drops is not None:
            sheet.put(table.LISTEN_DROPS, queue.drops, *where)


def _bridge_state(sheet: _Sheet, bridge: BridgeFacts, scene: Scene) -> None:
    """A bridge that is dead or stands says nothing of itself: its heartbeat tells."""
    view = scene.bridge
    up = (
        view is not None
        and bridge.pid is not None
        and view.state is BridgeState.CONNECTED
        and scene.now_ns - view.heartbeat_ns <= scene.facts.stall_after * 1e9
    )
    sheet.put(table.BRIDGE_UP, up)
    runs = view is not None and bridge.pid is not None
    sheet.put(table.BRIDGE_QUEUE, view.queue_bytes if view is not None and runs else 0)


def _bridge_counts(sheet: _Sheet, view: BridgeView) -> None:
    """What all bridges counted that there were."""
    sheet.put(table.BRIDGE_RECONNECTS, view.reconnects)
    sheet.split(table.BRIDGE_MESSAGES, {"in": view.received, "out": view.sent})
    sheet.put(table.BRIDGE_LOST, view.lost)
    sheet.put(table.BRIDGE_MISSED, view.missed)
    sheet.split(table.BRIDGE_BUS, {"in": view.bus_received, "out": view.bus_sent})
    sheet.put(table.BRIDGE_BUS_LOST, view.bus_lost)
    sheet.put(table.BRIDGE_BUS_MISSED, view.bus_missed)


def _text(number: int | None) -> str:
    """A label's value; an empty one is the same as none to Prometheus."""
    return "" if number is None else str(number)


def _family(metric: Metric, values: Mapping[tuple[str, ...], float]) -> core.Metric:
    """A metric as prometheus-client has it."""
    family = core.Metric(metric.family, metric.help, metric.kind.value, metric.unit)
    for labels, value in values.items():
        family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
    return family


def _histogram(metric: Metric, histogram: Histogram) -> core.Metric:
    """Buckets that each hold all below their bound, which is what ``le`` means.

    The scoreboard's bounds are exclusive and these are inclusive: a duration that is exactly a
    bound counts one bucket too high.
    """
    family = core.HistogramMetricFamily(metric.family, metric.help, unit=metric.unit)
    bounds = (*map(repr, histogram.bounds), "+Inf")
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    family.add_metric((), buckets, histogram.sum)
    return family
