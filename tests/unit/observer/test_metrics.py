"""The metrics of made-up instances on real scoreboards, read by prometheus-client's parsers."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.unit.observer.scenes import facts
from wssup.observer.catalogue import METRICS, RELOAD_RESULTS, SLOT_STATES, Kind
from wssup.observer.metrics import Metrics
from wssup.observer.reference import render
from wssup.scoreboard import (
    ClosedReason,
    HandshakeFailure,
    InstanceState,
    RefusedReason,
    RowWriter,
    Scoreboard,
)
from wssup.scoreboard.layout import H_FOLD_SEQUENCE, H_FOLDING
from wssup.status.facts import ListenerFacts, ProcessFacts, SlotFacts, WorkerFacts
from wssup.supervisor.children import CAUSES
from wssup.supervisor.recycling import REASONS
from wssup.supervisor.reload import OUTCOMES
from wssup.supervisor.slots import State

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
#: What the Prometheus of Debian 12 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Scoreboard]:
    made = Scoreboard.create("metrics", tmp_path, rows=8, slots=2)
    yield made
    made.close()
    made.unlink()


def scrape(board: Scoreboard, **changes: object) -> Values:
    """One scrape of OpenMetrics, parsed; empty labels are none."""
    metrics = Metrics(board)
    body, _ = metrics.scrape(facts(**changes), OPENMETRICS, {"event_streams": 2})  # type: ignore[arg-type]
    metrics.close()
    return values(openmetrics.text_string_to_metric_families(body.decode()))


def values(families: Iterator[Family]) -> Values:
    found: Values = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, frozenset((k, v) for k, v in sample.labels.items() if v)
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def of(found: Values, name: str, **labels: str) -> float:
    """One value."""
    return found[name, frozenset(labels.items())]


def connect(writer: RowWriter, count: int = 1) -> None:
    for _ in range(count):
        writer.accepted()
        writer.upgraded()


@pytest.fixture
def full(board: Scoreboard) -> Iterator[dict[str, object]]:
    """A scoreboard and changes of facts with which every metric there is has something to say."""
    for serial in (1, 2):
        writer = board.writer(board.allocate(serial, serial - 1, 7))
        connect(writer, 3)
        writer.heartbeat(time.monotonic_ns(), 1_500_000)
    bridge = board.bridge_writer()
    bridge.begin(9)
    bridge.connected(time.monotonic_ns())
    bridge.heartbeat(time.monotonic_ns())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        yield {"listeners": (ListenerFacts(0, "127.0.0.1:8000", inode),)}


def test_every_metric_of_the_table(board: Scoreboard, full: dict[str, object]) -> None:
    """A scrape has each metric of the table, in its order, with its type, help, unit and labels,
    and no other; each has the values of its labels that are known, from the start.
    """
    metrics = Metrics(board)
    body, _ = metrics.scrape(facts(**full), OPENMETRICS, {"event_streams": 1})  # type: ignore[arg-type]
    metrics.close()
    families = list(openmetrics.text_string_to_metric_families(body.decode()))
    assert [family.name for family in families] == [m.family for m in METRICS.values()]
    for family, metric in zip(families, METRICS.values(), strict=True):
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)
        assert family.unit == metric.unit
        assert {sample.name for sample in family.samples} == set(metric.series)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
        for label, known in metric.values.items():
            there = {sample.labels[label] for sample in family.samples}
            assert there <= set(known)
            if metric.kind is Kind.COUNTER:
                assert there == set(known)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain, Application/OpenMetrics-Text; version=x", "application/openmetrics-text; v"),
    ],
)
def test_the_format_is_the_one_asked_for(
    board: Scoreboard, full: dict[str, object], accept: str, content_type: str
) -> None:
    """OpenMetrics for those who accept it, Prometheus's text for all others, with equal values."""
    metrics = Metrics(board)
    now = facts(**full)  # type: ignore[arg-type]
    body, told = metrics.scrape(now, accept)
    metrics.close()
    assert told.startswith(content_type)
    text = body.decode()
    assert text.endswith("# EOF\n") == told.startswith("application/openmetrics-text")
    parse = openmetrics.text_string_to_metric_families if "openmetrics" in told else parse_text
    found = values(parse(text))
    assert of(found, "wssup_connections_accepted_total") == 6
    assert of(found, "wssup_connections", worker="1", generation="7", state="active") == 3
    assert of(found, "wssup_ping_rtt_seconds_bucket", le="1e-06") == 0


def test_counts_of_the_living_and_the_dead(board: Scoreboard) -> None:
    """Counters are of all workers there are and were; gauges of those there are. Their sums are
    what the scoreboard says.
    """
    row = board.allocate(1, 0, 7)
    writer = board.writer(row)
    connect(writer, 5)
    writer.closed(ClosedReason.CLIENT, 3.0, 1000)
    writer.closed(ClosedReason.SERVER, 70.0, 4001, by_client=False)
    writer.accepted()
    writer.refused(RefusedReason.LIMIT)
    writer.accepted()
    writer.handshake_failed(HandshakeFailure.REJECTED)
    writer.traffic(10, 20, 300, 400)
    writer.round_trip(0.0123)
    writer.moved_out(100)
    before = scrape(board)
    board.fold(row)
    connect(board.writer(board.allocate(2, 1, 8)), 4)
    after = scrape(board)
    for found, upgraded, died in ((before, 5, 0), (after, 9, 2)):
        assert of(found, "wssup_connections_accepted_total") == upgraded + 2
        assert of(found, "wssup_connections_upgraded_total") == upgraded
        assert of(found, "wssup_connections_closed_total", reason="client") == 1
        assert of(found, "wssup_connections_closed_total", reason="worker_died") == died
        assert of(found, "wssup_closes_total", code="1000", initiator="client") == 1
        assert of(found, "wssup_closes_total", code="4xxx", initiator="server") == 1
        assert of(found, "wssup_closes_total", code="1006", initiator="server") == died
        assert of(found, "wssup_refused_total", reason="limit") == 1
        assert of(found, "wssup_handshake_failures_total", reason="rejected") == 1
        assert of(found, "wssup_messages_total", direction="out") == 20
        assert of(found, "wssup_message_bytes_total", direction="in") == 300
        assert of(found, "wssup_handoffs_total", result="moved") == 1
        assert of(found, "wssup_connection_duration_seconds_count") == 2
        assert of(found, "wssup_connection_duration_seconds_sum") == 73
        buckets = [
            of(found, "wssup_connection_duration_seconds_bucket", le=le)
            for le in ("2.0", "4.0", "64.0", "128.0", "131072.0", "+Inf")
        ]
        assert buckets == [0, 1, 1, 2, 2, 2]
        assert of(found, "wssup_ping_rtt_seconds_sum") == 0.0123
        closed = sum(n for (name, _), n in found.items() if name == "wssup_closes_total")
        assert closed == sum(
            n for (name, _), n in found.items() if name == "wssup_connections_closed_total"
        )
    assert of(before, "wssup_connections", worker="0", generation="7", state="active") == 2
    assert of(after, "wssup_connections", worker="1", generation="8", state="active") == 4
    assert ("wssup_connections", "0") not in {
        (name, dict(labels).get("worker")) for name, labels in after
    }


def test_two_workers_of_one_slot_and_generation_are_added_up(board: Scoreboard) -> None:
    """While a worker is replaced by one of its own generation, their connections are one number,
    and their lag is the greater one.
    """
    for serial, count, lag in ((1, 2, 5_000_000), (2, 3, 1_000_000)):
        writer = board.writer(board.allocate(serial, 0, 7))
        connect(writer, count)
        writer.accepted()
        writer.heartbeat(1, lag)
    me = os.getpid()
    found = scrape(board, processes=(ProcessFacts("worker", me, 0, 7),) * 2)
    whose = {"worker": "0", "generation": "7"}
    assert of(found, "wssup_connections", state="active", **whose) == 5
    assert of(found, "wssup_connections", state="handshaking", **whose) == 2
    assert of(found, "wssup_event_loop_lag_seconds", **whose) == 0.005
    assert of(found, "wssup_workers", generation="7", state="starting") == 2
    open_fds = of(found, "wssup_process_open_fds", role="worker", **whose)
    assert open_fds >= 2 * 3
    assert open_fds <= of(found, "wssup_process_max_fds", role="worker", **whose)


def test_what_the_master_told(board: Scoreboard) -> None:
    """Facts that are no counts of the scoreboard: states, generation, restarts, reloads, stalls."""
    worker = WorkerFacts(1, 4711, 7, "current", "ready", True)
    board.state = InstanceState.RELOADING
    found = scrape(
        board,
        reload=8,
        slots=(
            SlotFacts(0, "replacing", "", None, (worker,)),
            SlotFacts(1, "backoff", "it died", 0, ()),
        ),
    )
    assert of(found, "wssup_state", state="reloading") == 1
    assert of(found, "wssup_state", state="running") == 0
    assert of(found, "wssup_slots", state="backoff") == 1
    assert of(found, "wssup_slots", state="failed") == 0
    assert of(found, "wssup_slots_lent") == of(found, "wssup_workers_stalled") == 1
    assert of(found, "wssup_worker_restarts_total", reason="signal") == 2
    assert of(found, "wssup_workers_recycled_total", reason="rss") == 1
    assert of(found, "wssup_reloads_total", result="done") == 6
    assert of(found, "wssup_reload_in_progress") == 1
    assert of(found, "wssup_generation") == 7
    assert of(found, "wssup_capacity_connections") == 20_000
    assert of(found, "wssup_start_time_seconds") == 1_780_000_000.5
    assert of(found, "wssup_observer_event_streams") == 2
    versions = [dict(labels) for name, labels in found if name == "wssup_build_info"]
    assert [sorted(labels) for labels in versions] == [["python", "version"]]


def test_the_bridge_is_up_only_while_it_says_so(board: Scoreboard) -> None:
    """Connected and with a fresh heartbeat is up; lost, stalled or without a process is not; and
    without a bridge there is no such metric.
    """
    bridge = board.bridge_writer()

    def up(**changes: object) -> float:
        return of(scrape(board, **changes), "wssup_bridge_up")

    assert up() == 0
    bridge.begin(5)
    bridge.heartbeat(time.monotonic_ns())
    assert up() == 0
    bridge.connected(time.monotonic_ns())
    bridge.server(sent=3)
    bridge.queue(500)
    assert up() == 1
    found = scrape(board)
    assert of(found, "wssup_bridge_messages_total", direction="out") == 3
    assert of(found, "wssup_bridge_queue_bytes") == 500
    bridge.heartbeat(time.monotonic_ns() - 6 * 10**9)
    assert up() == 0
    assert not any(name == "wssup_bridge_up" for name, _ in scrape(board, bridge=None))


def test_counters_are_left_out_rather_than_going_backwards(board: Scoreboard) -> None:
    """The master stands in the middle of a fold: a new observer cannot know all that was counted,
    and shows gauges alone. One that had seen more goes on showing that.
    """
    row = board.allocate(1, 0, 7)
    connect(board.writer(row), 5)
    old = Metrics(board)
    before, _ = old.scrape(facts(), OPENMETRICS)
    board._cells[H_FOLDING] = 1
    board._cells[H_FOLD_SEQUENCE] = 1
    during, _ = old.scrape(facts(), OPENMETRICS)
    accepted = b"wssup_connections_accepted_total 5.0"
    assert accepted in before
    assert accepted in during
    other = Scoreboard.attach(board.name)
    new = Metrics(other)
    unsure, _ = new.scrape(facts(), OPENMETRICS)
    assert b"_total" not in unsure
    assert b"_bucket" not in unsure
    assert b"wssup_generation 7.0" in unsure
    board._cells[H_FOLD_SEQUENCE] = 2
    assert accepted in new.scrape(facts(), OPENMETRICS)[0]
    for opened in (old, new, other):
        opened.close()


def test_processes_that_are_gone_are_left_out(board: Scoreboard) -> None:
    """A process that ended since the master told of it does no harm."""
    gone = ProcessFacts("worker", 2**22 - 1, 0, 7)
    found = scrape(board, processes=(gone, ProcessFacts("master", os.getpid())))
    roles = {dict(labels)["role"] for name, labels in found if "resident" in name}
    assert roles == {"master"}
    assert of(found, "wssup_process_resident_memory_bytes", role="master") > 1 << 20


@given(accept=st.text(max_size=80) | st.from_regex(r"application/openmetrics-text;version=.*"))
def test_any_accept_header(accept: str, shared_board: Callable[[], Scoreboard]) -> None:
    """Whatever a client says it accepts, it gets metrics in a format it can parse."""
    body, content_type = Metrics(shared_board()).scrape(facts(0), accept)  # no listeners, no socket
    assert b"wssup_generation 7.0" in body
    assert content_type.startswith(("text/plain", "application/openmetrics-text"))


@pytest.fixture(scope="module")
def shared_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Scoreboard]]:
    made = Scoreboard.create("shared", tmp_path_factory.mktemp("board"), rows=2, slots=1)
    yield lambda: made
    made.close()
    made.unlink()


def test_the_table_keeps_the_rules_of_names() -> None:
    """Prometheus's rules, as promtool checks them: counters end in _total and nothing else does,
    base units, no type in the name, help for each, no label with a process id.
    """
    for metric in METRICS.values():
        assert re.fullmatch(r"wssup_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.name.endswith("_info") == (metric.kind is Kind.INFO)
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|count|sum|bucket)\b", metric.name)
        assert not re.search(r"_(counter|gauge|histogram|summary)", metric.name)
        assert metric.help.endswith(".")
        assert "pid" not in metric.labels
        assert len(set(metric.labels)) == len(metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            assert metric.unit == "seconds"


def test_the_table_knows_the_supervisors_words() -> None:
    """The observer must not import the supervisor: its words stand in both, and are equal."""
    assert tuple(state.value for state in State) == SLOT_STATES
    assert METRICS["wssup_worker_restarts_total"].values["reason"] == CAUSES
    assert METRICS["wssup_workers_recycled_total"].values["reason"] == REASONS
    assert RELOAD_RESULTS == OUTCOMES


def test_the_reference_is_made_from_the_table() -> None:
    """docs/reference/metrics.md is what the table renders to."""
    page = Path(__file__).parents[3] / "docs/reference/metrics.md"
    assert page.read_text() == render()
