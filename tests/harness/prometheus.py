"""A real Prometheus, with a port and a folder of its own. `make e2e` unpacks Debian's.

It is unpacked and not installed, as the package's installation would start a service.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness import processes
from tests.harness.ports import free_port

PATIENCE = 60.0
_UNPACKED = Path(sys.prefix) / "e2e" / "prometheus" / "usr" / "bin"


def program(name: str) -> str | None:
    """``prometheus`` or ``promtool``, wherever it is."""
    return shutil.which(name) or shutil.which(name, path=str(_UNPACKED))


def promtool(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Run promtool; what it said.

    :raises AssertionError: it found something wrong.
    """
    tool = program("promtool")
    assert tool is not None, "there is no promtool: run make e2e"
    done = subprocess.run(
        [tool, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


class Prometheus:
    """One server, which scrapes and evaluates what its configuration says.

    :param home: its folder.
    """

    def __init__(self, home: Path, configuration: Path) -> None:
        binary = program("prometheus")
        assert binary is not None, "there is no prometheus: run make e2e"
        home.mkdir()
        self.log = home / "prometheus.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={home / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                cwd=home,
                stdout=log,
                stderr=log,
            )
        processes.until(self._ready, PATIENCE, "Prometheus to be ready")

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False

    def api(self, what: str, **arguments: str) -> Any:
        """The data of an answer of its HTTP API."""
        query = urllib.parse.urlencode(arguments)
        request = f"{self.url}/api/v1/{what}?{query}"
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{request}: {error.read().decode()}") from error
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression gives now: labels and value of each series."""
        data = self.api("query", query=expression)
        assert data["resultType"] == "vector", data
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, expression: str) -> float | None:
        """What an expression gives now, if it is one number."""
        found = self.query(expression)
        assert len(found) <= 1, (expression, found)
        return found[0][1] if found else None

    def wait(self, expression: str, value: float) -> None:
        """Wait until an expression gives a value."""
        processes.until(
            lambda: self.value(expression) == value, PATIENCE, f"{expression} to be {value:g}"
        )


@contextmanager
def prometheus(home: Path, configuration: Path) -> Iterator[Prometheus]:
    """A server that ends with the body."""
    server = Prometheus(home, configuration)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(PATIENCE)
