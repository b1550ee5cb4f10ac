"""Four workers, by whom connections are spread in different ways."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engine.native import MeasureError
from benchmarks.steering.clients import Crowd
from tests.harness import processes
from tests.harness.gunicorn import Gunicorn
from tests.harness.instance import Instance
from wssup.scoreboard import RowView, Scoreboard

__all__ = ["SERVERS", "STALL_AFTER", "WORKERS", "Peer", "Server", "Wssup"]

WORKERS = 4
#: The setting, in seconds.
STALL_AFTER = 0.5
#: By name: the bind address, and the setting ``steering``.
SERVERS = {
    "wssup, least": ("127.0.0.1:0", "least"),
    "wssup, hash": ("127.0.0.1:0", "hash"),
    "wssup, unix:": ("unix:{home}/app.sock", "least"),
    "one listener for all": ("", ""),
}
_PATIENCE = 60.0
_EVENTS = """\
import os

class Events:
    def on_receive(self, ws, data):
        ws.send_nowait(str(os.getpid()))

app = Events()
with open("notes", "a") as notes:
    notes.write(f"begin {os.getpid()}\\n")
"""


class Server:
    """Who serves.

    :ivar address: as :class:`Crowd` takes it.
    """

    address: str

    def spread(self, crowd: Crowd) -> list[int]:
        """How many connections each worker has."""
        raise NotImplementedError

    def empty(self) -> None:
        """Wait until nobody is connected."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill a worker and wait until another one stands in its place."""
        raise NotImplementedError


class Wssup(Server):
    """An instance."""

    def __init__(self, instance: Instance, board: Scoreboard) -> None:
        self.instance = instance
        self.address = instance.status()["bind"][0]
        self._board = board

    def rows(self) -> list[RowView]:
        """The rows of its workers, by slot."""
        return sorted(self._board.snapshot().rows, key=lambda row: row.slot)

    def spread(self, crowd: Crowd) -> list[int]:
        """What the scoreboard says."""
        del crowd
        return [row.counts.active for row in self.rows()]

    def empty(self) -> None:
        """Until the scoreboard says so."""
        processes.until(
            lambda: sum(row.counts.open for row in self.rows()) == 0, _PATIENCE, "an empty instance"
        )

    def kill(self) -> None:
        """The last slot's."""
        victim = self.rows()[-1]
        os.kill(victim.pid, signal.SIGKILL)

        def replaced() -> bool:
            rows = self.rows()
            return len(rows) == WORKERS and rows[-1].serial != victim.serial and rows[-1].accepting

        processes.until(replaced, _PATIENCE, "a successor")


class Peer(Server):
    """gunicorn with the same engine in its workers, which share one listener and know nothing of
    one another.
    """

    def __init__(self, gunicorn: Gunicorn) -> None:
        self._gunicorn = gunicorn
        self.address = gunicorn.address()
        self._wait()

    def spread(self, crowd: Crowd) -> list[int]:
        """What clients are told."""
        came = crowd.who()
        return [came[str(pid)] for pid in sorted(self._gunicorn.workers())]

    def empty(self) -> None:
        """For a moment."""
        # Nobody counts them; they end in a moment.
        time.sleep(0.5)

    def kill(self) -> None:
        """The youngest."""
        victim = max(self._gunicorn.workers())
        os.kill(victim, signal.SIGKILL)
        self._wait()

    def _wait(self) -> None:
        self._gunicorn.ready(WORKERS)
        # That it accepts, a moment after it has imported the application, only its clients see.
        time.sleep(0.2)


@contextmanager
def serving(name: str) -> Iterator[Server]:
    """Start a server of :data:`SERVERS`; it ends with the block."""
    bind, steering = SERVERS[name]
    home = Path(tempfile.mkdtemp(prefix="wssup-bench-"))
    try:
        if not bind:
            arguments = ("--worker-connections", "15000", "--timeout", "300")
            (home / "application.py").write_text(_EVENTS)
            gunicorn = Gunicorn(home, *arguments, workers=WORKERS)
            try:
                yield Peer(gunicorn)
            finally:
                gunicorn.end()
            return
        instance = Instance(
            home,
            _EVENTS,
            {
                "workers": WORKERS,
                "bind": bind.format(home=home),
                "steering": steering,
                "stall_after": STALL_AFTER,
                "hang_after": 300,
                "rebalance": False,
                "backoff_min": 0.05,
                "backoff_max": 0.1,
                "log_level": "info",
            },
        )
        try:
            instance.running()
            board = Scoreboard.attach(instance.segment().name)
            try:
                yield Wssup(instance, board)
            finally:
                board.close()
        finally:
            instance.end()
    except AssertionError as error:
        raise MeasureError(str(error)) from None
    finally:
        shutil.rmtree(home)
