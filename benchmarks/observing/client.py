"""An instance with an observer, and clients of it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engine import native
from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.observed import OPENMETRICS, status_socket

#: Dashboards that watch.
DASHBOARDS = 2
_APPS = Path(__file__).resolve().parents[1] / "apps"
#: What the tests' harness shortens is left at its default here.
_SETTINGS: dict[str, object] = {
    "name": "bench",
    "app": "echo_event:app",
    "app_dir": str(_APPS),
    "log_level": "info",
    "settle": None,
    "drain_window": None,
    "drain_timeout": None,
    "backoff_min": None,
    "status": True,
}


class Client:
    """A client of the observer that keeps its connection, as Prometheus does."""

    def __init__(self, instance: Instance) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(str(status_socket(instance)))

    def get(self, path: str, accept: str = "*/*") -> int:
        """One request; the bytes of the answer's body.

        :raises native.MeasureError: it is refused.
        """
        self.send(path, accept)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._received()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise native.MeasureError(f"{path}: {head.decode()}")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        got = len(body)
        while got < length:
            got += len(self._received())
        return length

    def send(self, path: str, accept: str = "*/*") -> None:
        """Ask, and do not wait for the answer."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
        self._socket.sendall(request.encode())

    def drain(self) -> None:
        """Read until the connection ends."""
        with contextlib.suppress(OSError):
            while self._socket.recv(1 << 20):
                pass

    def close(self) -> None:
        """Hang up; a :meth:`drain` elsewhere ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _received(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise native.MeasureError("the observer hung up")
        return data


@contextmanager
def running(**settings: object) -> Iterator[Instance]:
    """An instance that serves, and whose observer answers if it has one."""
    home = Path(tempfile.mkdtemp(prefix="wssup-bench-"))
    instance = Instance(home, "", _SETTINGS | settings)
    try:
        instance.running()
        if instance.settings["status"]:
            processes.until(lambda: _answers(instance), 60, "the observer to answer")
        yield instance
    finally:
        instance.end()
        shutil.rmtree(home)


def _answers(instance: Instance) -> bool:
    try:
        client = Client(instance)
    except OSError:
        return False
    try:
        return client.get("/status") > 0
    except (OSError, native.MeasureError):
        return False
    finally:
        client.close()


@contextmanager
def watching(instance: Instance) -> Iterator[None]:
    """A scrape a second, and two clients of /events, as dashboards are."""
    done = threading.Event()
    dashboards = [Client(instance) for _ in range(DASHBOARDS)]
    scraper = Client(instance)

    def scrape() -> None:
        scraper.get("/metrics", OPENMETRICS)
        while not done.wait(1.0):
            scraper.get("/metrics", OPENMETRICS)

    threads = [threading.Thread(target=scrape)]
    for dashboard in dashboards:
        dashboard.send("/events")
        threads.append(threading.Thread(target=dashboard.drain))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for client in dashboards:
            client.close()
        for thread in threads:
            thread.join()
        scraper.close()


def processor_seconds(pid: int) -> float:
    """Processor seconds of a process so far, to the nanosecond (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def observer(instance: Instance) -> int:
    """Its observer's process id."""
    pid: int = instance.status()["observer"]["pid"]
    return pid
