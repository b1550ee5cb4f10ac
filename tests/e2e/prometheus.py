"""A real Prometheus scrapes a real instance. `make e2e` unpacks Debian's."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.common import APPLICATION, Start
from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.observed import get
from tests.harness.ports import free_port
from tests.harness.prometheus import Prometheus, prometheus, promtool
from tests.harness.raw import raw_clients
from wssup.observer.catalogue import METRICS, Kind

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"


def configuration(home: Path, target: str) -> Path:
    """The example, for this target, with a scrape each half second."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    for old, new in (
        ("127.0.0.1:9180", target),
        (" 15s", " 500ms"),
        ("- alerts.yml", f"- {RULES}"),
    ):
        assert old in text
        text = text.replace(old, new)
    made = home / "prometheus.yml"
    made.write_text(text)
    return made


def expressions(document: Any) -> Iterator[str]:
    """Every query of the dashboard, as Grafana would send it."""
    if isinstance(document, dict):
        if "expr" in document:
            text: str = document["expr"]
            for variable, there in (
                ("$__rate_interval", "1m"),
                ("$job", ".*"),
                ("$instance", ".*"),
            ):
                text = text.replace(variable, there)
            yield text
        for value in document.values():
            yield from expressions(value)
    elif isinstance(document, list):
        for value in document:
            yield from expressions(value)


def test_promtool_is_content(start: Start) -> None:
    """Promtool finds nothing wrong with the names and types of a real scrape, in the configuration
    and the rules; and each alert fires when it should and is silent at rest.
    """
    instance = start(APPLICATION, status=True)
    instance.running()
    status, kind, body = get(instance, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert promtool("check", "metrics", stdin=body) == ""
    assert "SUCCESS" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("check", "config", RULES.with_name("prometheus.yml"))
    assert "SUCCESS" in promtool("test", "rules", RULES.with_name("alerts_test.yml"))


def test_a_real_prometheus(start: Start, tmp_path: Path) -> None:
    """Prometheus scrapes OpenMetrics with types, help and units. Through a crash, a reload and the
    observer's death it sees no counter reset, and agrees with the status document. All queries of
    the dashboard and all alert rules can be evaluated, and the alert of lost connections fires.
    """
    target = f"127.0.0.1:{free_port()}"
    instance = start(APPLICATION, status=True, status_bind=target, backoff_min=0.2)
    (address,) = instance.running()["bind"]
    with prometheus(tmp_path / "prometheus", configuration(tmp_path, target)) as server:
        server.wait('up{job="wssup"}', 1)
        with raw_clients(address, 30) as clients:
            assert {client.ask("hello") for client in clients} == {"hello"}
            server.wait('sum(wssup_connections{state="active"})', 30)
            server.wait('wssup_messages_total{direction="in"}', 30)
            held = server.value('sum(wssup_connections{state="active", worker="0"})')
            os.kill(instance.workers()[0], signal.SIGKILL)
            server.wait("sum(wssup_worker_restarts_total)", 1)
            instance.running()
            assert instance.run("reload").returncode == 0
            server.wait('wssup_reloads_total{result="done"}', 1)
            os.kill(instance.status()["observer"]["pid"], signal.SIGKILL)
            server.wait("wssup_observer_restarts_total", 1)
            server.wait('wssup_connections_closed_total{reason="worker_died"}', held or 0)
            server.wait('sum(wssup_connections{state="active"})', 30 - (held or 0))
            agrees(instance, server)
        metadata(server)
        evaluated(server)


def agrees(instance: Instance, server: Prometheus) -> None:
    """What Prometheus has is what the status says, and no counter went backwards."""
    for metric in METRICS.values():
        if metric.kind in {Kind.COUNTER, Kind.HISTOGRAM} and metric.group != "Bridge":
            for name in metric.series:
                assert server.value(f"max(resets({name}[10m]))") == 0, name
    status = instance.status()
    counts = status["connections"]
    for expression, expected in (
        ("wssup_connections_accepted_total", counts["accepted"]),
        ("sum(wssup_connections_closed_total)", counts["closed"]),
        ('wssup_handoffs_total{result="moved"}', status["handoff"]["moved"]),
        ("wssup_handoff_pause_seconds_count", status["handoff"]["moved"]),
        ("wssup_capacity_connections", status["capacity"]),
        ("wssup_generation", 2),
        ('sum(wssup_workers{state="ready"})', 2),
        ('count(wssup_process_resident_memory_bytes{role="worker"} > 1e6)', 2),
        ("count(wssup_listen_queue_limit)", 2),
    ):
        server.wait(expression, expected)


def metadata(server: Prometheus) -> None:
    """Types, help and units came over, which only OpenMetrics has."""
    (scraped,) = server.api("targets")["activeTargets"]
    assert scraped["health"] == "up", scraped
    told = {entry["metric"]: entry for entry in server.api("targets/metadata")}
    bridge = {metric.family for metric in METRICS.values() if metric.group == "Bridge"}
    ours = {metric.family: metric for metric in METRICS.values() if metric.family not in bridge}
    assert ours.keys() <= told.keys()
    for family, metric in ours.items():
        entry = told[family]
        assert (entry["type"], entry["help"]) == (metric.kind.value, metric.help)
        assert entry["unit"] == metric.unit


def evaluated(server: Prometheus) -> None:
    """Dashboard and rules give something, but for what there is none of here."""
    empty = [
        text
        for text in expressions(json.loads((DEPLOY / "grafana" / "wssup.json").read_text()))
        if not server.query(text)
    ]
    assert [text for text in empty if not re.search(r"> 0|wssup_bridge_", text)] == []

    def rules() -> list[dict[str, Any]]:
        (group,) = server.api("rules")["groups"]
        found: list[dict[str, Any]] = group["rules"]
        return found

    processes.until(
        lambda: all(rule["health"] == "ok" for rule in rules()), 60, "the rules to be evaluated"
    )
    firing = {rule["name"] for rule in rules() if rule["state"] == "firing"}
    assert "WssupConnectionsLost" in firing
    assert firing <= {"WssupConnectionsLost", "WssupObserverRestarts", "WssupWorkersRestart"}
