"""The Grafana dashboard and the alert rules: every query names what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wssup.observer.catalogue import METRICS

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "deploy/grafana/wssup.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
ALERT_TESTS = ROOT / "deploy/prometheus/alerts_test.yml"
EXAMPLE = ROOT / "deploy/prometheus/prometheus.yml"

SERIES = {name: metric for metric in METRICS.values() for name in metric.series}
#: What Prometheus adds to every series, and what the example of a scrape does.
TARGET = {"job", "instance", "name"}
_SELECTOR = re.compile(r"\b(wssup_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_BY = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


def queries(document: Any) -> Iterator[dict[str, str]]:
    """Every target, annotation and variable of the dashboard that has a query."""
    if isinstance(document, dict):
        if "expr" in document:
            yield document
        elif isinstance(document.get("query"), str) and document.get("type") == "query":
            yield {"expr": document["query"]}
        for value in document.values():
            yield from queries(value)
    elif isinstance(document, list):
        for value in document:
            yield from queries(value)


def check(query: str) -> None:
    """The names, labels and values of labels in a query are there.

    :raises AssertionError: naming what is not.
    """
    labels = TARGET | {"le", "alertname"}
    for name, matchers in _SELECTOR.findall(query):
        assert name in SERIES, f"there is no {name}, in {query}"
        metric = SERIES[name]
        labels |= set(metric.labels)
        for label, _, value in _MATCHER.findall(matchers):
            assert label in {*metric.labels, *TARGET, "le"}, f"{name} has no {label}, in {query}"
            known = metric.values.get(label)
            if known is not None and not value.startswith("$"):
                assert set(value.split("|")) <= set(known), f"{name} has no {label}={value}"
    for found in _BY.findall(query):
        wanted = {label.strip() for label in found.split(",")}
        assert wanted <= labels, f"no {wanted - labels} in {query[:200]}"


def test_every_query_of_the_dashboard() -> None:
    """Each names metrics, labels and values that there are; legends, too. Rates are of counters
    alone, and counters are only seen as rates.
    """
    found = list(queries(json.loads(DASHBOARD.read_text())))
    assert len(found) > 40
    for query in found:
        check(query["expr"])
        for label in re.findall(r"\{\{(\w+)\}\}", query.get("legendFormat", "")):
            assert any(label in by for by in _BY.findall(query["expr"])), query
        rated = set(re.findall(r"\b(?:rate|increase)\((wssup_\w+)", query["expr"]))
        counters = {
            name
            for name, _ in _SELECTOR.findall(query["expr"])
            if name.endswith(("_total", "_bucket", "_sum", "_count"))
        }
        assert rated == counters, query
        assert '{job=~"$job"' in query["expr"] or "label_values" in query["expr"]


def test_the_dashboard_can_be_imported() -> None:
    """No data source of one installation, panels that do not overlap, each with its own number and
    a title; every query of a panel has a reference of its own.
    """
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        references = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(references)) == len(references)
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert references


def test_every_metric_that_tells_of_trouble_is_watched() -> None:
    """What says that clients are lost, refused or waiting is on the dashboard or has an alert."""
    told = DASHBOARD.read_text() + ALERTS.read_text()
    unseen = {
        metric.name
        for metric in METRICS.values()
        if not any(name in told for name in metric.series)
    }
    trouble = re.compile(
        "refused|failure|error|timeout|drop|lost|missed|stalled|failed|restarts|queue"
    )
    assert {name for name in unseen if trouble.search(name)} <= {
        "wssup_bus_queue_bytes",
        "wssup_bridge_bus_lost_total",
        "wssup_bridge_bus_missed_total",
        "wssup_bridge_missed_total",
        "wssup_bridge_queue_bytes",
        "wssup_bridge_restarts_total",
    }


@pytest.mark.parametrize("path", [ALERTS, ALERT_TESTS], ids=lambda path: path.name)
def test_every_query_of_the_alerts(path: Path) -> None:
    """Rules and their tests name metrics, labels and values that there are; what a message takes
    from labels is one; and log events that it names can be logged.
    """
    text = path.read_text()
    check(text)
    labels = {label for metric in METRICS.values() for label in metric.labels} | TARGET
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels
    source = "".join(file.read_text() for file in (ROOT / "wssup").rglob("*.py"))
    for event in re.findall(r"\((\w+_\w+)\)\.", text):
        assert f'"{event}"' in source, event


def test_every_alert_is_tested_and_explained() -> None:
    """Each alert has a severity, says what is wrong and what to look at first, and stands in the
    tests of promtool, which make e2e runs.
    """
    rules = re.split(r"(?m)^ {6}- alert: ", ALERTS.read_text())[1:]
    names = [rule.split(maxsplit=1)[0] for rule in rules]
    assert len(set(names)) == len(names) > 15
    tests = ALERT_TESTS.read_text()
    for name, rule in zip(names, rules, strict=True):
        assert re.search(r"severity: (critical|warning)\n", rule), name
        assert "summary: " in rule, name
        assert "description: " in rule, name
        assert f'alertname="{name}"' in tests or f"|{name}" in tests or f"{name}|" in tests, name


def test_the_example_of_a_scrape_fits_the_rules() -> None:
    """The example's job has the name that the rules watch, and its rules are the ones beside it."""
    example = EXAMPLE.read_text()
    assert "job_name: wssup\n" in example
    assert f"- {ALERTS.name}\n" in example
    assert 'up{job="wssup"}' in ALERTS.read_text()
