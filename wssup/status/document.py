"""The status document (schema 1): what the master knows, and the counts of the scoreboard.

The same for ``wssup status`` and for the observer's ``/status``. A pure function; nothing here asks
anybody for anything.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wssup.scoreboard import BridgeView, Counts, RowView, Snapshot
from wssup.scoreboard.histogram import Histogram
from wssup.status.facts import AutoscaleFacts, BridgeFacts, Facts, SlotFacts, WorkerFacts

__all__ = ["SCHEMA", "document", "slot_document"]

SCHEMA: Final = 1


def document(
    facts: Facts, snapshot: Snapshot, bridge: BridgeView | None, now_ns: int
) -> dict[str, Any]:
    """The status of an instance as JSON-like data; names of states are in lower case.

    :param now_ns: the time on CLOCK_MONOTONIC, in nanoseconds.
    """
    views = {view.serial: view for view in snapshot.rows}
    counts = snapshot.total
    last = facts.last_reload
    return {
        "schema": SCHEMA,
        "name": facts.name,
        "version": facts.version,
        "state": snapshot.state.label,
        "pid": facts.pid,
        "generation": facts.generation,
        "mixed": facts.mixed,
        "app": facts.app,
        "started_at": facts.started_at,
        "bind": list(facts.bind),
        "retiring": list(facts.retiring),
        "capacity": facts.capacity,
        "limits": {
            "nofile": msgspec.structs.asdict(facts.nofile),
            "reserve_fds": facts.reserve_fds,
            "backlog": facts.backlog,
            "max_connections": facts.max_connections,
            "worker_connections": facts.worker_connections,
        },
        "workers": facts.workers,
        "autoscale": _autoscale(facts.autoscale),
        "restarts": facts.restarts,
        "restarts_by_reason": dict(facts.restarts_by_reason),
        "recycled": dict(facts.recycled),
        "connections": _connections(counts),
        "latency": _latency(counts),
        "lifetimes": _lifetimes(counts),
        "handoff": _handoff(counts, facts.handoffs_in_progress),
        "topics": _topics(snapshot) | {"bridge": _bridge(facts, bridge, now_ns)},
        "slots": [_slot(slot, views, now_ns) for slot in facts.slots],
        "reload": {"generation": facts.reload} if facts.reload is not None else None,
        "last_reload": msgspec.structs.asdict(last) if last is not None else None,
        "reloads": dict(facts.reloads),
        "observer": _observer(facts),
    }


def slot_document(
    facts: Facts, snapshot: Snapshot, slot: int, now_ns: int
) -> dict[str, Any] | None:
    """One slot of the document, with all counts of its workers; ``None`` if there is none of that
    number.

    :param now_ns: as of :func:`document`.
    """
    views = {view.serial: view for view in snapshot.rows}
    for found in facts.slots:
        if found.slot == slot:
            shown = _slot(found, views, now_ns)
            for worker in shown["workers"]:
                view = views.get(worker["serial"])
                if view is not None:
                    worker.update(_counted(view.counts))
            return shown
    return None


def _counted(counts: Counts) -> dict[str, Any]:
    return {
        "connections": _connections(counts),
        "latency": _latency(counts),
        "lifetimes": _lifetimes(counts),
    }


def _connections(counts: Counts) -> dict[str, Any]:
    return {
        "open": counts.open,
        "active": counts.active,
        "accepted": counts.accepted,
        "closed": counts.closed,
        "refused": counts.refused,
        "handshake_failures": counts.handshake_failures,
        "closed_by_reason": counts.closed_by_reason,
        "closed_by_code": counts.closes_by_code,
        "refused_by_reason": counts.refused_by_reason,
        "handshake_failures_by_reason": counts.handshake_failures_by_reason,
        "messages_in": counts.messages_in,
        "messages_out": counts.messages_out,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "pings_sent": counts.pings_sent,
        "ping_timeouts": counts.ping_timeouts,
        "handler_runs": counts.handler_runs,
        "handler_errors": counts.handler_errors,
        "http_requests": counts.http_requests,
        "http_errors": counts.http_errors,
        "http_closed": counts.http_closed,
    }


def _latency(counts: Counts) -> dict[str, Any]:
    trips = counts.round_trip
    return {
        "ping_ms": _quantiles(trips),
        "ping": {"bounds_ms": [_ms(bound) for bound in trips.bounds], "counts": list(trips.counts)},
    }


def _lifetimes(counts: Counts) -> dict[str, Any]:
    ages = counts.lifetime
    return {
        "p50_s": round(ages.quantile(0.5), 3),
        "p99_s": round(ages.quantile(0.99), 3),
        "max_s": ages.max,
        "bounds_s": list(ages.bounds),
        "counts": list(ages.counts),
    }


def _quantiles(times: Histogram) -> dict[str, float]:
    return {
        "p50": _ms(times.quantile(0.5)),
        "p99": _ms(times.quantile(0.99)),
        "max": _ms(times.max),
    }


def _autoscale(found: AutoscaleFacts | None) -> dict[str, Any] | None:
    if found is None:
        return None
    last = msgspec.structs.asdict(found.last) if found.last is not None else None
    return msgspec.structs.asdict(found) | {"held": found.held or None, "last": last}


def _handoff(counts: Counts, in_progress: int) -> dict[str, Any]:
    return {
        "moved": counts.moved_in,
        "in_progress": in_progress,
        "refused_by_reason": counts.handoff_refused_by_reason,
        "bytes": counts.handoff_bytes,
        "pause_ms": _quantiles(counts.pause),
    }


def _topics(snapshot: Snapshot) -> dict[str, Any]:
    counts = snapshot.total.topics
    return {
        "subscriptions": sum(view.subscriptions for view in snapshot.rows),
        "published": counts.published,
        "delivered": counts.delivered,
        "dropped": counts.dropped,
        "recovered": counts.recovered,
        "not_recovered": counts.not_recovered,
        "bus": {
            "sent": counts.bus_sent,
            "bytes": counts.bus_bytes,
            "received": counts.bus_received,
            "lost": counts.bus_lost,
            "missed": counts.bus_missed,
            "queue_bytes": sum(view.bus_queue_bytes for view in snapshot.rows),
        },
    }


def _bridge(facts: Facts, view: BridgeView | None, now_ns: int) -> dict[str, Any] | None:
    """The bridge, ``None`` without one. What it says of itself is of one that ended, if none runs;
    the counters are of all that there were.
    """
    bridge = facts.bridge
    if bridge is None:
        return None
    found = _known(bridge)
    if view is None:
        return found
    age = (now_ns - view.heartbeat_ns) / 1e9 if view.heartbeat_ns else None
    runs = bridge.pid is not None and age is not None
    return found | {
        "state": view.state.label if runs else found["state"],
        "fault": view.fault.label if runs else None,
        "connected_for": (
            round((now_ns - view.since_ns) / 1e9, 1) if runs and view.since_ns else None
        ),
        "stalled": bool(runs and age is not None and age > facts.stall_after),
        "heartbeat_age": round(age, 1) if runs and age is not None else None,
        "reconnects": view.reconnects,
        "sent": view.sent,
        "received": view.received,
        "lost": view.lost,
        "missed": view.missed,
        "queue_bytes": view.queue_bytes if runs else 0,
        "bus": {
            "sent": view.bus_sent,
            "received": view.bus_received,
            "lost": view.bus_lost,
            "missed": view.bus_missed,
        },
    }


def _known(bridge: BridgeFacts) -> dict[str, Any]:
    return {
        "url": bridge.url,
        "pid": bridge.pid,
        "restarts": bridge.restarts,
        "error": bridge.error or None,
        "state": "starting" if bridge.pid is not None else "lost",
    }


def _observer(facts: Facts) -> dict[str, Any]:
    pid = next((p.pid for p in facts.processes if p.role == "observer"), None)
    return {
        "pid": pid,
        "restarts": facts.observer_restarts,
        "socket": facts.status_socket or None,
        "bind": facts.status_bind or None,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _slot(slot: SlotFacts, views: dict[int, RowView], now_ns: int) -> dict[str, Any]:
    return {
        "slot": slot.slot,
        "state": slot.state,
        "error": slot.error or None,
        "lent_to": slot.lent_to,
        "workers": [_worker(w, views.get(w.serial), now_ns) for w in slot.workers],
    }


def _worker(worker: WorkerFacts, view: RowView | None, now_ns: int) -> dict[str, Any]:
    known = {
        "serial": worker.serial,
        "pid": worker.pid,
        "generation": worker.generation,
        "role": worker.role,
        "state": worker.state,
        "stalled": worker.stalled,
    }
    if view is None:
        return known
    return known | {
        "open": view.counts.open,
        "active": view.counts.active,
        "accepted": view.counts.accepted,
        "closed": view.counts.closed,
        "moved_in": view.counts.moved_in,
        "moved_out": view.counts.moved_out,
        "handler_errors": view.counts.handler_errors,
        "accepting": view.accepting,
        "send_queue_bytes": view.send_queue_bytes,
        "subscriptions": view.subscriptions,
        "topics": view.topics,
        "bus_queue_bytes": view.bus_queue_bytes,
        "lag_ms": round(view.lag_last_ns / 1e6, 3),
        "lag_max_ms": round(view.lag_max_ns / 1e6, 3),
        "age": round((now_ns - view.started_ns) / 1e9, 1),
        "stale": view.stale,
    }
