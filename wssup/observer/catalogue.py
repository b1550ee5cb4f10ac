"""The table of all metrics: name, type, help and labels. Everything that shows or checks metrics
reads it: the collector, docs/reference/metrics.md, the tests of the Grafana dashboard and alerts.

Names follow Prometheus: base units, ``_total`` for counters, no label that grows with time but
``generation``. Process ids are no labels, as each restart would begin new series. Counters are of
the whole instance, because a worker's own would begin anew with each worker.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Final, NamedTuple

from wssup.scoreboard import (
    ClosedReason,
    HandoffRefusal,
    HandshakeFailure,
    InstanceState,
    Label,
    RefusedReason,
    WorkerState,
)
from wssup.scoreboard.layout import CLOSE_LABELS

__all__ = ["METRICS", "SLOT_STATES", "Kind", "Metric"]

#: As in the supervisor's slots.py, which the observer must not import; a test holds it equal.
SLOT_STATES: Final = (
    *("empty", "starting", "ready", "replacing", "settling", "moving", "rescuing", "alone"),
    *("draining", "backoff", "failed", "parked"),
)
#: How a reload ends (status/facts.py).
RELOAD_RESULTS: Final = ("done", "rolled_back", "refused")


class Kind(StrEnum):
    """The type of a metric, as it is written after ``# TYPE``."""

    COUNTER = auto()
    GAUGE = auto()
    HISTOGRAM = auto()
    INFO = auto()


class Metric(NamedTuple):
    """A metric.

    :ivar name: as queries write it: with ``_total`` or ``_info``; of a histogram without
        ``_bucket``, ``_sum`` and ``_count``.
    :ivar group: under which heading the documentation has it.
    :ivar labels: their names, in order.
    :ivar values: which values a label can have, if they are few and known.
    """

    name: str
    kind: Kind
    group: str
    help: str
    labels: tuple[str, ...]
    values: dict[str, tuple[str, ...]]

    @property
    def family(self) -> str:
        """The name without what its type adds, as OpenMetrics names families."""
        return self.name.removesuffix("_total").removesuffix("_info")

    @property
    def unit(self) -> str:
        """The base unit, as OpenMetrics writes it after ``# UNIT``; empty for numbers of things."""
        last = self.family.rpartition("_")[2]
        return last if last in {"seconds", "bytes"} else ""

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries use."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


METRICS: dict[str, Metric] = {}


def _labels_of(table: type[Label]) -> tuple[str, ...]:
    return tuple(member.label for member in table)


class _Group:
    """Enters metrics into the table, under one heading."""

    def __init__(self, group: str) -> None:
        self._group = group

    def counter(self, name: str, text: str, **labels: tuple[str, ...]) -> Metric:
        """What only grows while the master lives."""
        return self._enter(name, Kind.COUNTER, text, labels)

    def gauge(self, name: str, text: str, **labels: tuple[str, ...]) -> Metric:
        """What goes up and down."""
        return self._enter(name, Kind.GAUGE, text, labels)

    def histogram(self, name: str, text: str) -> Metric:
        """Durations by buckets, with their exact sum."""
        return self._enter(name, Kind.HISTOGRAM, text, {})

    def info(self, name: str, text: str, **labels: tuple[str, ...]) -> Metric:
        """Text that does not change; its value is 1."""
        return self._enter(name, Kind.INFO, text, labels)

    def _enter(
        self, name: str, kind: Kind, text: str, labels: dict[str, tuple[str, ...]]
    ) -> Metric:
        values = {label: known for label, known in labels.items() if known}
        metric = Metric(name, kind, self._group, text, tuple(labels), values)
        METRICS[name] = metric
        return metric


#: Of a label whose values are not known beforehand.
ANY: Final = ()
_BOTH: Final = ("in", "out")

_in = _Group("Connections")
CONNECTIONS = _in.gauge(
    "wssup_connections",
    "Open sockets: WebSockets are active, others are in their opening handshake.",
    worker=ANY,
    generation=ANY,
    state=("active", "handshaking"),
)
CAPACITY = _in.gauge(
    "wssup_capacity_connections", "Connections that fit into the slots in service."
)
ACCEPTED = _in.counter("wssup_connections_accepted_total", "Sockets accepted.")
UPGRADED = _in.counter("wssup_connections_upgraded_total", "Sockets that became WebSockets.")
CLOSED = _in.counter(
    "wssup_connections_closed_total", "WebSockets ended.", reason=_labels_of(ClosedReason)
)
CLOSES = _in.counter(
    "wssup_closes_total",
    "WebSockets ended, by close code and who began to close; those of a worker that died are 1006"
    " by the server.",
    code=CLOSE_LABELS,
    initiator=("server", "client"),
)
REFUSED = _in.counter(
    "wssup_refused_total",
    "Sockets turned away before their handshake.",
    reason=_labels_of(RefusedReason),
)
HANDSHAKE_FAILURES = _in.counter(
    "wssup_handshake_failures_total",
    "Sockets that ended without becoming a WebSocket.",
    reason=_labels_of(HandshakeFailure),
)
DURATION = _in.histogram(
    "wssup_connection_duration_seconds",
    "Lifetimes of WebSockets that ended, across handoffs; without those of workers that died.",
)

_in = _Group("Traffic")
MESSAGES = _in.counter("wssup_messages_total", "Messages received and sent.", direction=_BOTH)
MESSAGE_BYTES = _in.counter(
    "wssup_message_bytes_total", "Payload bytes of messages received and sent.", direction=_BOTH
)
SEND_QUEUE = _in.gauge(
    "wssup_send_queue_bytes",
    "What waits to be sent to clients that read slowly.",
    worker=ANY,
    generation=ANY,
)
PINGS = _in.counter("wssup_pings_sent_total", "Keepalive pings sent.")
PING_TIMEOUTS = _in.counter("wssup_ping_timeouts_total", "Pings not answered in time.")
PING_RTT = _in.histogram(
    "wssup_ping_rtt_seconds", "From a ping to its pong: the network, the client and the worker."
)
HANDLER_RUNS = _in.counter("wssup_handler_runs_total", "Calls of the application's handler.")
HANDLER_ERRORS = _in.counter("wssup_handler_errors_total", "Calls of the handler that raised.")
HTTP_REQUESTS = _in.counter(
    "wssup_http_requests_total", "HTTP requests answered, of ASGI applications."
)
HTTP_ERRORS = _in.counter(
    "wssup_http_errors_total", "HTTP requests answered with a status of 500 or more."
)
HTTP_CLOSED = _in.counter(
    "wssup_http_connections_closed_total",
    "Accepted sockets that ended after they had served HTTP, and no WebSocket.",
)

_in = _Group("Workers")
WORKERS = _in.gauge(
    "wssup_workers", "Worker processes.", generation=ANY, state=_labels_of(WorkerState)
)
WORKERS_WANTED = _in.gauge("wssup_workers_wanted", "Slots in service.")
WORKERS_STALLED = _in.gauge(
    "wssup_workers_stalled", "Workers whose event loop has not turned for stall_after."
)
SLOTS = _in.gauge("wssup_slots", "Slots by what they are doing.", state=SLOT_STATES)
SLOTS_LENT = _in.gauge(
    "wssup_slots_lent", "Slots whose listeners another slot's worker serves meanwhile."
)
LOOP_LAG = _in.gauge(
    "wssup_event_loop_lag_seconds",
    "How much later than asked for the event loop called back the last time.",
    worker=ANY,
    generation=ANY,
)
LOOP_LAG_MAX = _in.gauge(
    "wssup_event_loop_lag_max_seconds",
    "The greatest lag of the event loop since the worker started.",
    worker=ANY,
    generation=ANY,
)
RESTARTS = _in.counter(
    "wssup_worker_restarts_total",
    "Workers that ended without being told.",
    reason=("not_ready", "hung", "failed", "signal", "exit"),
)
RECYCLED = _in.counter(
    "wssup_workers_recycled_total",
    "Workers replaced because of a max_worker_ setting.",
    reason=("age", "rss", "connections"),
)

_in = _Group("Listeners")
LISTEN_QUEUE = _in.gauge(
    "wssup_listen_queue_length",
    "Connections that wait to be accepted.",
    worker=ANY,
    address=ANY,
)
LISTEN_LIMIT = _in.gauge(
    "wssup_listen_queue_limit",
    "Connections that may wait to be accepted.",
    worker=ANY,
    address=ANY,
)
LISTEN_DROPS = _in.counter(
    "wssup_listen_drops_total",
    "What the kernel dropped at a TCP listener, mostly because its queue was full.",
    worker=ANY,
    address=ANY,
)

_in = _Group("Deploys")
GENERATION = _in.gauge("wssup_generation", "The generation that serves.")
MIXED = _in.gauge(
    "wssup_generation_mixed", "1 if not all workers of the generation have the same code."
)
RELOADING = _in.gauge("wssup_reload_in_progress", "1 while a reload is under way.")
RELOADS = _in.counter("wssup_reloads_total", "Reloads that have ended.", result=RELOAD_RESULTS)
HANDOFFS = _in.counter(
    "wssup_handoffs_total",
    "Connections that moved to another worker, or should have; one whose resume failed is both.",
    result=("moved", *_labels_of(HandoffRefusal)),
)
HANDOFFS_RUNNING = _in.gauge(
    "wssup_handoffs_in_progress", "Pairs of workers between which connections move."
)
HANDOFF_BYTES = _in.counter(
    "wssup_handoff_bytes_total", "Bytes of the records of connections that moved."
)
HANDOFF_PAUSE = _in.histogram(
    "wssup_handoff_pause_seconds", "How long nobody served a connection that moved."
)

_in = _Group("Processes")
RSS = _in.gauge(
    "wssup_process_resident_memory_bytes",
    "Resident memory; pages that processes share count in each.",
    role=("master", "zygote", "worker", "observer", "bridge"),
    worker=ANY,
    generation=ANY,
)
OPEN_FDS = _in.gauge(
    "wssup_process_open_fds",
    "Open descriptors.",
    role=RSS.values["role"],
    worker=ANY,
    generation=ANY,
)
MAX_FDS = _in.gauge(
    "wssup_process_max_fds",
    "Descriptors that may be open (RLIMIT_NOFILE).",
    role=RSS.values["role"],
    worker=ANY,
    generation=ANY,
)

_in = _Group("Topics")
SUBSCRIPTIONS = _in.gauge(
    "wssup_topic_subscriptions",
    "Subscriptions of connections to topics.",
    worker=ANY,
    generation=ANY,
)
TOPICS = _in.gauge(
    "wssup_topics",
    "Topics with subscribers at a worker; one that several workers have counts at each.",
    worker=ANY,
    generation=ANY,
)
PUBLISHED = _in.counter("wssup_topic_published_total", "Messages published.")
DELIVERED = _in.counter(
    "wssup_topic_delivered_total", "Messages put into a subscriber's queue, for each subscriber."
)
DROPPED = _in.counter(
    "wssup_topic_dropped_total", "Messages that a subscriber's full queue had no room for."
)
RECOVERIES = _in.counter(
    "wssup_topic_recoveries_total",
    "Subscriptions that asked for what they had missed, and whether they got all of it.",
    result=("recovered", "not_recovered"),
)
BUS_MESSAGES = _in.counter(
    "wssup_bus_messages_total",
    "Messages between workers; sent counts for each receiver.",
    direction=_BOTH,
)
BUS_BYTES = _in.counter("wssup_bus_sent_bytes_total", "Bytes of messages sent to other workers.")
BUS_LOST = _in.counter(
    "wssup_bus_lost_total", "Messages that the full queue of a slow worker had no room for."
)
BUS_MISSED = _in.counter(
    "wssup_bus_missed_total", "Messages that other workers say they had no room for."
)
BUS_QUEUE = _in.gauge(
    "wssup_bus_queue_bytes", "What waits for other workers.", worker=ANY, generation=ANY
)

_in = _Group("Bridge")
BRIDGE_UP = _in.gauge(
    "wssup_bridge_up", "1 if the bridge runs and has its server. Absent without a bridge."
)
BRIDGE_RESTARTS = _in.counter(
    "wssup_bridge_restarts_total", "Bridges that ended without being told."
)
BRIDGE_RECONNECTS = _in.counter(
    "wssup_bridge_reconnects_total", "Connections to the server after the first one."
)
BRIDGE_MESSAGES = _in.counter(
    "wssup_bridge_messages_total", "Messages from and to the server.", direction=_BOTH
)
BRIDGE_LOST = _in.counter("wssup_bridge_lost_total", "Messages dropped on their way to the server.")
BRIDGE_MISSED = _in.counter(
    "wssup_bridge_missed_total", "Messages of the server that never came, as far as is known."
)
BRIDGE_QUEUE = _in.gauge("wssup_bridge_queue_bytes", "What waits for the server.")
BRIDGE_BUS = _in.counter(
    "wssup_bridge_bus_messages_total",
    "Messages from and to the workers; sent counts for each receiver.",
    direction=_BOTH,
)
BRIDGE_BUS_LOST = _in.counter(
    "wssup_bridge_bus_lost_total", "Messages that full queues of workers had no room for."
)
BRIDGE_BUS_MISSED = _in.counter(
    "wssup_bridge_bus_missed_total", "Messages that had no room in the bridge's queue."
)

_in = _Group("Instance")
BUILD = _in.info("wssup_build_info", "The versions of wssup and Python.", version=ANY, python=ANY)
START_TIME = _in.gauge(
    "wssup_start_time_seconds", "When the master started, in seconds since the epoch."
)
STATE = _in.gauge(
    "wssup_state",
    "1 for what the instance is doing, 0 for all else.",
    state=_labels_of(InstanceState),
)
STALE_ROWS = _in.gauge(
    "wssup_scoreboard_stale_rows", "Rows of the scoreboard whose worker stands in mid-write."
)
OBSERVER_RESTARTS = _in.counter(
    "wssup_observer_restarts_total", "Observers that ended without being told."
)
EVENT_STREAMS = _in.gauge("wssup_observer_event_streams", "Clients of /events, as dashboards are.")
