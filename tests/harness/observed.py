"""What an instance's observer answers, over its status socket."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.harness.instance import Instance

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
#: A series: its name, and its labels in order.
Series = tuple[str, tuple[tuple[str, str], ...]]


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def status_socket(instance: Instance) -> Path:
    """Where its observer answers."""
    return instance.runtime_dir / instance.name / "status.sock"


def get(instance: Instance, path: str, accept: str = "*/*") -> tuple[int, str, bytes]:
    """One request: the status, the content type, and the body.

    :raises OSError: nobody answers.
    """
    connection = _Connection(status_socket(instance))
    try:
        connection.request("GET", path, headers={"Accept": accept, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    finally:
        connection.close()


def metrics(instance: Instance) -> dict[Series, float]:
    """One scrape; empty labels are none.

    :raises AssertionError: it is refused, or no OpenMetrics.
    """
    status, _, body = get(instance, "/metrics", OPENMETRICS)
    assert status == 200, (status, body)
    return parse(body.decode())


def parse(text: str) -> dict[Series, float]:
    """Every series of OpenMetrics once."""
    found: dict[Series, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if v))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def value(found: dict[Series, float], name: str, **labels: str) -> float:
    """One value; the sum over what labels are not given."""
    wanted = set(labels.items())
    return sum(n for (series, its), n in found.items() if series == name and wanted <= set(its))
