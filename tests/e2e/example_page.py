"""The example's page in headless Chromium: what `make run` shows during a reload."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.e2e.chromium import FLAGS
from tests.harness import processes
from tests.harness.ports import free_port

_WSSUP = [sys.executable, "-m", "wssup"]
_SUMMARY = "document.getElementById('summary')?.textContent ?? ''"
_TABLE = "[...document.querySelectorAll('#rows tr')].map(r => [...r.cells].map(c => c.textContent))"


class Tab:
    """A page in the browser, driven by the Chrome DevTools protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def call(self, method: str, **parameters: object) -> Any:
        """Call a method; its result."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(call))
        while True:
            answer = json.loads(self._connection.recv(timeout=30))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"]["value"]

    def picture(self, path: Path) -> None:
        """Save what the page looks like now."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def tab(home: Path, url: str) -> Iterator[Tab]:
    """Chromium with a page open; ended with all it started."""
    before = processes.descendants()
    profile = home / "profile"
    options = [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--window-size=900,720"]
    with (home / "chromium.log").open("wb") as log:
        browser = subprocess.Popen(
            ["chromium", *FLAGS, *options, url], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        port_file = profile / "DevToolsActivePort"
        processes.until(lambda: port_file.exists() and port_file.read_text(), 60, "the browser")
        port = port_file.read_text().splitlines()[0]

        def page() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                found = json.load(answer)
            return next((t["webSocketDebuggerUrl"] for t in found if t["url"] == url), "")

        processes.until(page, 60, "the page")
        with connect(page(), max_size=1 << 26, proxy=None) as connection:
            yield Tab(connection)
    finally:
        ours = processes.descendants() - before
        while left := {pid for pid in ours if processes.alive(pid)}:
            processes.end(left)
        browser.wait(10)


@contextmanager
def example(home: Path) -> Iterator[tuple[str, list[str]]]:
    """The example as `make run` serves it: the page's address, and how its commands end."""
    runtime = ["--runtime-dir", str(home / "run")]
    port = free_port()
    application = ["wssup.examples.page:app", "--bind", "127.0.0.1:0", "--workers", "2"]
    log = home / "log"
    with log.open("wb") as output:
        serve = subprocess.Popen(
            [*_WSSUP, "serve", *application, "--settle", "1s", "--log-format", "json", *runtime],
            cwd=home,
            env=os.environ | {"PAGE_PORT": str(port)},
            stdout=output,
            stderr=output,
        )
    try:
        processes.until(lambda: '"running"' in log.read_text(), 60, "the example")
        start = next(line for line in log.read_text().splitlines() if '"starting"' in line)
        bind = json.loads(start)["bind"][0]
        yield f"http://127.0.0.1:{port}/?ws=ws://{bind}/", runtime
    finally:
        subprocess.run([*_WSSUP, "stop", "--fast", *runtime], check=False, capture_output=True)
        serve.kill()
        serve.wait(10)


def test_a_reload_before_ones_eyes(tmp_path: Path) -> None:
    """The page's eight WebSockets count on through a reload, while their generation changes; none
    is disconnected. With PICTURES the page's look is saved there.
    """
    with example(tmp_path) as (url, runtime), tab(tmp_path, url) as page:
        processes.until(lambda: page.value(_SUMMARY).startswith("8 of 8 open"), 60, "eight rows")
        before = page.value(_TABLE)
        assert {row[2] for row in before} == {"1"}
        done = subprocess.run(
            [*_WSSUP, "reload", *runtime], check=False, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "8 moved, 0 disconnected" in done.stdout
        processes.until(lambda: "moved 8 times" in page.value(_SUMMARY), 60, "the moves")
        assert "disconnected 0 times" in page.value(_SUMMARY)

        def counts_on() -> bool:
            rows = page.value(_TABLE)
            pairs = zip(before, rows, strict=True)
            return all(
                row[2] == "2" and row[5] == "1" and int(row[4]) > int(old[4]) for old, row in pairs
            )

        processes.until(counts_on, 60, "all to count on in generation 2")
        assert {row[3] for row in before}.isdisjoint({row[3] for row in page.value(_TABLE)})
        if pictures := os.environ.get("PICTURES"):
            page.picture(Path(pictures) / "page.png")
