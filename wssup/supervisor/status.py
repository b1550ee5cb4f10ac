"""The status document (schema 1): all of its counts come from the scoreboard alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from wssup.config.settings import without_password
from wssup.scoreboard import Counts, RowView, Snapshot
from wssup.supervisor import limits
from wssup.supervisor.children import Slot, Worker
from wssup.version import __version__

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["document"]

SCHEMA = 1


def document(master: Master) -> dict[str, Any]:
    """The status of an instance as JSON-like data; names of states are in lower case."""
    snapshot = master.scoreboard.snapshot()
    views = {view.serial: view for view in snapshot.rows}
    fleet, settings = master.fleet, master.settings
    serving = fleet.serving
    addresses = master.listeners.addresses.values()
    reloading = master.reloading
    return {
        "schema": SCHEMA,
        "name": settings.name,
        "version": __version__,
        "state": master.state.name.lower(),
        "pid": master.scoreboard.master_pid,
        "generation": serving.number if serving is not None else 0,
        "mixed": serving.mixed if serving is not None else False,
        "app": settings.app,
        "started_at": master.started_at,
        "bind": [str(a) for a in addresses if a.retirement is None],
        "retiring": [str(a) for a in addresses if a.retirement is not None],
        "capacity": master.capacity(),
        "limits": {
            "nofile": {
                "soft": master.nofile.soft,
                "hard": master.nofile.hard,
                "found": master.nofile.found,
            },
            "reserve_fds": settings.reserve_fds,
            "backlog": min(settings.backlog, limits.somaxconn()),
        },
        "workers": fleet.count,
        "restarts": fleet.restarts,
        "recycled": dict(master.recycling.counts),
        "connections": _connections(snapshot.total),
        "handoff": _handoff(snapshot.total, sum(1 for _ in fleet.handoffs.under_way())),
        "topics": _topics(snapshot) | {"bridge": _bridge(master)},
        "slots": [_slot(slot, views) for slot in fleet.slots.values()],
        "reload": {"generation": reloading.number} if reloading is not None else None,
        "last_reload": (
            msgspec.to_builtins(master.last_reload) if master.last_reload is not None else None
        ),
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


def _handoff(counts: Counts, in_progress: int) -> dict[str, Any]:
    return {
        "moved": counts.moved_in,
        "in_progress": in_progress,
        "refused_by_reason": counts.handoff_refused_by_reason,
        "bytes": counts.handoff_bytes,
        "pause_ms": {
            "p50": _ms(counts.quantile(0.5)),
            "p99": _ms(counts.quantile(0.99)),
            "max": _ms(counts.pause_max),
        },
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


def _bridge(master: Master) -> dict[str, Any] | None:
    """The bridge, ``None`` without one. What it says of itself is of one that ended, if none runs;
    the counters are of all that there were.
    """
    bridging, settings = master.bridging, master.settings
    if not bridging.wanted:
        return None
    found = {
        "url": without_password(settings).topics.bus,
        "pid": bridging.pid,
        "restarts": bridging.restarts,
        "error": bridging.error or None,
        "state": "starting" if bridging.pid is not None else "lost",
    }
    view = master.scoreboard.bridge()
    if view is None:
        return found
    now = time.monotonic_ns()
    age = (now - view.heartbeat_ns) / 1e9 if view.heartbeat_ns else None
    runs = bridging.pid is not None and age is not None
    return found | {
        "state": view.state.label if runs else found["state"],
        "fault": view.fault.label if runs else None,
        "connected_for": round((now - view.since_ns) / 1e9, 1) if runs and view.since_ns else None,
        "stalled": bool(runs and age is not None and age > settings.stall_after),
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


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _slot(slot: Slot, views: dict[int, RowView]) -> dict[str, Any]:
    return {
        "slot": slot.index,
        "state": slot.state.value,
        "error": slot.error or None,
        "lent_to": slot.borrower.slot if slot.borrower is not None else None,
        "workers": [_worker(w, views.get(w.serial)) for w in slot.workers],
    }


def _worker(worker: Worker, view: RowView | None) -> dict[str, Any]:
    known = {
        "pid": worker.pid,
        "generation": worker.generation.number,
        "role": worker.role.value,
        "state": worker.state.name.lower(),
        "stalled": worker.stalled,
    }
    if view is None:
        return known
    age = (time.monotonic_ns() - view.started_ns) / 1e9
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
        "age": round(age, 1),
        "stale": view.stale,
    }
