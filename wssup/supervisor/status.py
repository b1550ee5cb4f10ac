"""The status document (schema 1): all of its counts come from the scoreboard alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from wssup.scoreboard import Counts, RowView
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
        "lag_ms": round(view.lag_last_ns / 1e6, 3),
        "lag_max_ms": round(view.lag_max_ns / 1e6, 3),
        "age": round(age, 1),
        "stale": view.stale,
    }
