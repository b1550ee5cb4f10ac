"""A client of the observer: over its unix socket or TCP, one request per connection."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.harness import processes
from tests.harness.instance import Instance

#: Seconds for one exchange: ten times what a busy machine needs.
PATIENCE = 30.0


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Event(NamedTuple):
    """A server-sent event; ``data`` decoded from JSON."""

    kind: str
    id: int | None
    data: Any


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = dial(self._path)


def dial(where: Path | str) -> socket.socket:
    """A connected socket: to a path, or to ``host:port``."""
    if isinstance(where, Path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        sock.connect(str(where))
        return sock
    host, _, port = where.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), PATIENCE)


def status_socket(instance: Instance) -> Path:
    """The status socket of an instance."""
    return instance.runtime_dir / instance.name / "status.sock"


def observer(instance: Instance) -> int:
    """The process id of the observer, once it answers and knows which workers there are."""
    processes.until(
        lambda: request(instance, "/readyz").status == 200, 60, "the observer to say it is ready"
    )

    def knows() -> bool:
        # The master tells it what is new in a moment, and at the latest after a second.
        told, known = (
            [(s["state"], [w["pid"] for w in s["workers"]]) for s in document["slots"]]
            for document in (instance.status(), request(instance, "/status").json())
        )
        return told == known

    processes.until(knows, 30, "the observer to know the workers")
    pid: int = request(instance, "/status").json()["observer"]["pid"]
    return pid


def _connection(where: Instance | Path | str) -> http.client.HTTPConnection:
    if isinstance(where, Instance):
        where = status_socket(where)
    if isinstance(where, Path):
        return _Unix(where)
    host, _, port = where.rpartition(":")
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PATIENCE)


def request(
    where: Instance | Path | str,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    **headers: str,
) -> Answer:
    """One request; headers are given with underscores."""
    connection = _connection(where)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named | {"Connection": "close"})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


@contextmanager
def listening(
    where: Instance | Path | str, path: str = "/events", **headers: str
) -> Iterator[Iterator[Event]]:
    """The events of a stream, one after the other; it ends when the stream does."""
    connection = _connection(where)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=named)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response)
    finally:
        connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[Event]:
    kind, number, data = "", None, ""
    for raw in response:
        line = raw.decode().rstrip("\n")
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "id":
            number = int(value)
        elif name == "data":
            data = value
        elif not line and data:
            yield Event(kind, number, json.loads(data))
            kind, number, data = "", None, ""
