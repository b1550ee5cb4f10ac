"""A real gunicorn in a process of its own, with wssup's worker class."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.harness import processes

#: It echoes and says who it is; how it begins and ends stands in a file.
APPLICATION = """\
import os
import time
from contextlib import asynccontextmanager

import wssup

MARK = "original"


def note(text):
    with open("notes", "a") as file:
        file.write(f"{text} {os.getpid()}\\n")


@asynccontextmanager
async def lifespan():
    note("begin")
    yield
    note("end")


async def app(request):
    if request.path == "/forbidden":
        await request.reject(403)
        return
    ws = await request.accept()
    while True:
        message = await ws.get_message()
        if message == "who":
            message = f"{os.getpid()} {MARK}"
        elif message == "hang":
            time.sleep(1000)
        elif message == "remote":
            message = str(request.remote)
        elif message == "wsgi.url_scheme":
            message = "not here"
        await ws.send_message(message)


class Events:
    def on_request(self, request):
        if request.path == "/forbidden":
            request.reject_nowait(403)

    def on_receive(self, ws, data):
        ws.send_nowait(str(os.getpid()) if data == "who" else data)


events = Events()


class AsyncEvents:
    async def on_request(self, request):
        if request.path == "/forbidden":
            await request.reject(403)

    async def on_receive(self, ws, data):
        await ws.send_message(str(os.getpid()) if data == "who" else data)

    async def on_disconnect(self, ws, code):
        note(f"gone{code}")


async_events = AsyncEvents()


def make(mark="made"):
    global MARK
    MARK = mark
    return app
"""


class Gunicorn:
    """A gunicorn under test.

    :param home: where the application and the log are.
    :param arguments: more of its command line, before the application's name.
    :param bind: its address; with ``--reuse-port`` the workers bind it, and the log has none.
    """

    def __init__(
        self,
        home: Path,
        *arguments: str,
        app: str = "application:app",
        workers: int = 2,
        bind: str = "127.0.0.1:0",
    ) -> None:
        self.home = home
        self.bind = bind
        self.log = home / "gunicorn.log"
        source = home / "application.py"
        if not source.exists():
            source.write_text(APPLICATION)
        self.command = [
            *(sys.executable, "-m", "gunicorn", "-k", "wssup.gunicorn.TrioWorker"),
            *("-b", bind, "-w", str(workers), "--log-level", "info"),
            # One for all tests would be the second to bind it.
            *self._without_control_socket(),
            *arguments,
            app,
        ]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WSSUP_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=home,
                env=environ | {"PYTHONDONTWRITEBYTECODE": "1", "PWD": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid

    @staticmethod
    def _without_control_socket() -> list[str]:
        from gunicorn.config import Config  # noqa: PLC0415 - only those who start one need it

        return ["--no-control-socket"] if "control_socket_disable" in Config().settings else []

    def logged(self) -> str:
        """The log so far."""
        return self.log.read_text()

    def notes(self, kind: str) -> set[int]:
        """The processes of which the application noted something."""
        file = self.home / "notes"
        lines = file.read_text().splitlines() if file.exists() else []
        return {int(line.split()[-1]) for line in lines if line.split()[0] == kind}

    def wait_logged(self, text: str, count: int = 1, seconds: float = 60) -> None:
        """Wait until the log has it so often."""

        def look() -> bool:
            return self.logged().count(text) >= count

        try:
            processes.until(look, seconds, f"{text!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logged()}") from None

    def address(self) -> str:
        """Where it listens, ``host:port``."""
        if not self.bind.endswith(":0"):
            return self.bind
        self.wait_logged("Listening at: http://")
        found = re.search(r"Listening at: http://([0-9.:]+)", self.logged())
        assert found is not None
        return found[1]

    def url(self) -> str:
        """The same for clients of WebSockets."""
        return f"ws://{self.address()}/"

    def workers(self) -> set[int]:
        """The living worker processes."""
        return {pid for pid in processes.children(self.pid) if processes.alive(pid)}

    def ready(self, workers: int = 2) -> set[int]:
        """Wait until so many workers have begun, and have what they are."""
        processes.until(
            lambda: len(self.notes("begin") & self.workers()) >= workers, 60, f"{workers} workers"
        )
        return self.notes("begin") & self.workers()

    def signal(self, number: int) -> None:
        """Signal the arbiter."""
        os.kill(self.pid, number)

    def exited(self, seconds: float = 60) -> int:
        """Wait for its end; its exit status."""
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill whatever of it still runs."""
        # While its workers are counted, and while they die, an arbiter that runs would start more.
        if processes.alive(self.pid):
            self.signal(signal.SIGSTOP)
            processes.until(lambda: processes.state(self.pid) in "TZX", 10, "the arbiter to stop")
        family = processes.descendants(self.pid) | {self.pid}
        for pid in family:
            if processes.alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        for pid in family:
            processes.until(lambda pid=pid: not processes.alive(pid), 10, f"{pid} to die")
            processes.reap(pid)
