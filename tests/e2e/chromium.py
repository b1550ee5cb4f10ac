"""Headless Chromium on a real instance: a page that opens WebSockets, as people's browsers do.
`make e2e` installs Debian's chromium.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.e2e.common import APPLICATION, Start, deadline, endings
from tests.harness import processes
from tests.harness.instance import Instance

PAGE = Path(__file__).with_name("page.html")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60.0


class Site:
    """Serves the page, and takes what it reports."""

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        site = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def do_GET(self) -> None:
                """Answer with the page."""
                page = PAGE.read_bytes() if self.path.startswith("/?") else b""
                self.send_response(200 if page else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def do_POST(self) -> None:
                """Take a report."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                site._reports.put(json.loads(body))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def report(self, what: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The page's next report, which must be of this."""
        left = deadline(seconds)
        found = self._reports.get(timeout=left())
        assert found.get("what") == what, found
        return found


@contextmanager
def browser(home: Path, site: Site, instance: Instance, scene: str) -> Iterator[None]:
    """Chromium with the page open. Whatever it started is ended by its id."""
    before = processes.descendants()
    profile = f"--user-data-dir={home / 'profile'}"
    url = f"{site.origin}/?{scene}&{instance.url()}"
    with (home / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["chromium", *FLAGS, profile, url], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield
    except queue.Empty:
        text = (home / "chromium.log").read_text(errors="replace")
        raise AssertionError(f"the page reports nothing; chromium says:\n{text}") from None
    finally:
        # Some of its processes leave their parents and become children of this one.
        theirs = before | {instance.pid} | processes.descendants(instance.pid)
        while ours := {pid for pid in processes.descendants() - theirs if processes.alive(pid)}:
            processes.end(ours)
        with contextlib.suppress(ChildProcessError):
            process.wait(10)


def test_a_page(start: Start, tmp_path: Path) -> None:
    """A page's WebSockets get their text and binary messages back, small and large, have their JSON
    pings answered, choose a subprotocol, close with code and reason, and are told those of the
    server. A page of another origin, or one that is turned down, sees an error.
    """
    with Site() as site, Site() as elsewhere:
        instance = start(
            APPLICATION, heartbeat={"app_ping": True}, limits={"origins": [site.origin]}
        )
        instance.running()
        with browser(tmp_path, site, instance, "talk"):
            found = site.report("talk")
        assert found == {
            "what": "talk",
            "protocol": "chat",
            "extensions": "",
            "echoed": 8,
            "app ping": {"type": "pong"},
            "closed": [3000, "done", True],
            "closed by the server": [4001, "as you wish", True],
            "refused": [1006, "", False],
            "many": 30,
        }
        assert endings(instance, 33) == {"client": 31, "server": 1, "rejected": 1}
        other = tmp_path / "other"
        other.mkdir()
        with browser(other, elsewhere, instance, "refused"):
            assert elsewhere.report("refused")["refused"] == [1006, "", False]
        assert endings(instance, 34)["origin"] == 1


def test_a_page_lives_through_reloads(start: Start, tmp_path: Path) -> None:
    """A page's WebSockets send and receive through three reloads and notice nothing but the new
    generation: what the application counts for them goes on, and none is closed.
    """
    instance = start(APPLICATION)
    instance.running()
    with Site() as site, browser(tmp_path, site, instance, "live"):
        for generation in range(1, 5):
            found = site.report("live")
            assert found.get("error") is None, found
            assert found["generation"] == generation
            if generation < 4:
                done = instance.run("reload")
                assert done.returncode == 0, done.stdout + done.stderr
        assert site.report("live").get("error") is None
        assert endings(instance, 12) == {"client": 12}


def test_a_page_that_is_closed_by_a_reload(start: Start, tmp_path: Path) -> None:
    """A page that is told 1012 by a reload, and connects again as pages do, finds the new
    generation at once.
    """
    instance = start(APPLICATION, on_reload="close")
    instance.running()
    with Site() as site, browser(tmp_path, site, instance, "stay"):
        assert site.report("stay")["generation"] == "generation 1"
        done = instance.run("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        found = site.report("stay")
        assert found["closed"] == [1012, "service restart", True]
        assert found["generation"] == "generation 2"
        assert found["attempts"] == 1
