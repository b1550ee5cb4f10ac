"""What the master answers, as far as people are shown it. What is missing has a neutral value."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from wssup.cli.client import Document
from wssup.errors import CommandError

__all__ = [
    "Autoscale",
    "Autoscaled",
    "Bridge",
    "Bus",
    "Connections",
    "Handoff",
    "LastReload",
    "Latency",
    "Reload",
    "Slot",
    "Status",
    "Times",
    "Topics",
    "Worker",
    "read",
]

D = TypeVar("D", bound=msgspec.Struct)


class Worker(msgspec.Struct, frozen=True):
    """A worker in the status document; ``lag_ms`` in milliseconds, ``age`` in seconds.

    :ivar pid: ``None`` while it is being forked.
    """

    pid: int | None
    generation: int
    state: str
    open: int = 0
    active: int = 0
    accepted: int = 0
    serial: int | None = None
    send_queue_bytes: int = 0
    lag_ms: float | None = None
    age: float | None = None
    stalled: bool = False
    stale: bool = False


class Slot(msgspec.Struct, frozen=True):
    """A slot in the status document."""

    slot: int
    state: str
    error: str | None = None
    lent_to: int | None = None
    workers: tuple[Worker, ...] = ()


class Connections(msgspec.Struct, frozen=True):
    """The instance's connections: sockets and WebSockets now, and what there ever was."""

    open: int = 0
    active: int = 0
    accepted: int = 0
    closed: int = 0
    refused: int = 0
    handshake_failures: int = 0
    refused_by_reason: dict[str, int] = {}
    messages_in: int = 0
    messages_out: int = 0


class Times(msgspec.Struct, frozen=True):
    """Quantiles of a span of time; milliseconds."""

    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Latency(msgspec.Struct, frozen=True):
    """How long answers to pings take, since the start."""

    ping_ms: Times = Times()


class Handoff(msgspec.Struct, frozen=True):
    """Connections that moved from worker to worker, and those that did not."""

    moved: int = 0
    in_progress: int = 0
    refused_by_reason: dict[str, int] = {}
    #: How long connections stood still while they moved.
    pause_ms: Times = Times()


class Bus(msgspec.Struct, frozen=True):
    """What the workers sent each other, and what of it was dropped."""

    lost: int = 0


class Bridge(msgspec.Struct, frozen=True):
    """The process that is connected to a Redis server; ``connected_for`` in seconds."""

    url: str = ""
    state: str = ""
    stalled: bool = False
    fault: str | None = None
    error: str | None = None
    connected_for: float | None = None
    sent: int = 0
    received: int = 0
    lost: int = 0
    missed: int = 0
    reconnects: int = 0


class Topics(msgspec.Struct, frozen=True):
    """Messages to many: subscriptions now, and totals."""

    subscriptions: int = 0
    published: int = 0
    delivered: int = 0
    dropped: int = 0
    recovered: int = 0
    not_recovered: int = 0
    bus: Bus = Bus()
    bridge: Bridge | None = None


class Reload(msgspec.Struct, frozen=True):
    """A reload that is under way."""

    generation: int


class LastReload(msgspec.Struct, frozen=True):
    """How the last reload ended; without an outcome there was none."""

    outcome: str | None = None
    generation: int | None = None
    seconds: float | None = None
    reason: str | None = None
    moved: int | None = None
    disconnected: int = 0


class Autoscaled(msgspec.Struct, frozen=True):
    """When the number of workers last followed the load; ``at`` is unix time."""

    workers: int = 0
    was: int = 0
    reason: str = ""
    at: float = 0.0


class Autoscale(msgspec.Struct, frozen=True):
    """The bounds between which the number of workers follows the load."""

    min: int
    max: int
    each: int = 0
    held: str | None = None
    last: Autoscaled | None = None


class Status(msgspec.Struct, frozen=True):
    """The status document, schema 1. ``started_at`` is unix time or ISO 8601 with a time zone."""

    name: str
    state: str
    generation: int
    version: str = ""
    pid: int | None = None
    started_at: float | str | None = None
    bind: tuple[str, ...] = ()
    connections: Connections = Connections()
    latency: Latency = Latency()
    handoff: Handoff = Handoff()
    topics: Topics = Topics()
    capacity: int | None = None
    workers: int | None = None
    autoscale: Autoscale | None = None
    mixed: bool = False
    slots: tuple[Slot, ...] = ()
    reload: Reload | None = None
    last_reload: LastReload | None = None


def read(document: Document, kind: type[D]) -> D:
    """The document as a `kind`.

    :raises CommandError: ``bad_answer`` if it is none.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise CommandError(
            "bad_answer",
            f"the instance answers with what this wssup does not understand: {error}",
            "use the wssup that the instance runs, or --json",
        ) from None
