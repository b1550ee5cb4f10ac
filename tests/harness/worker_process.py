"""A worker process whose master is the test: it speaks the channel and holds the listeners."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.harness.raw import Raw
from wssup import channel
from wssup.config.loading import load
from wssup.messages import (
    PROTOCOL,
    Hello,
    Message,
    Peers,
    Ready,
)
from wssup.scoreboard import RowView, Scoreboard

__all__ = ["ECHO", "PATIENCE", "Run", "Worker", "address", "listening"]

#: Seconds for one thing to happen: ten times what a busy machine needs.
PATIENCE = 30.0

_MAIN = """
import json, socket, sys
from wssup.messages import Fork, Load
from wssup.scoreboard import Scoreboard
from wssup.server.worker import main
from wssup.start import WorkerStart

given = json.loads(sys.argv[1])
here = given["dir"]
load = Load(1, "test", 7, "application:app", here, False, given["board"], "", given["settings"])
sys.exit(main(WorkerStart(
    load=load,
    fork=Fork(1, 3, given["row"], ["own"]),
    channel=socket.socket(fileno=given["channel"]),
    listeners={"own": given["listener"]},
    scoreboard=Scoreboard.attach(given["board"]),
    application=None,
    app_dir=here,
)))
"""

ECHO = """
import wssup

async def app(request):
    ws = await request.accept()
    while True:
        message = await ws.get_message()
        if message == "who":
            message = " ".join(map(str, wssup.current_worker()))
        await ws.send_message(message)
"""


def listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    listener.setblocking(False)
    return listener


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"


class Worker:
    """The worker, as its master has it."""

    def __init__(self, home: Path, application: str, changes: dict[str, object]) -> None:
        (home / "application.py").write_text(application)
        given: dict[str, object] = {"log_level": "debug", "log_format": "json"}
        settings = load(cli=given | changes, environ={}, cwd=str(home)).settings
        self.board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", home, 2, 1)
        self.row = self.board.allocate(1, 3, 7)
        self.listener = listening()
        self.end, theirs = channel.pair()
        self.end.settimeout(PATIENCE)
        self.log = home / "log"
        with self.log.open("wb") as log, theirs:
            start = {
                "settings": msgspec.to_builtins(settings),
                "dir": str(home),
                "board": self.board.name,
                "row": self.row,
                "channel": theirs.fileno(),
                "listener": self.listener.fileno(),
            }
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, json.dumps(start)],
                pass_fds=(theirs.fileno(), self.listener.fileno()),
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
                stdout=log,
                stderr=log,
            )
        # It is ready when it knows the other nodes of the bus; here there are none.
        self.tell(Peers([]))

    def hear(self) -> Message:
        """Its next message."""
        received = channel.receive(self.end)
        assert received is not None, self.log.read_text()
        assert received.descriptors == []
        return received.message

    def ready(self) -> None:
        assert self.hear() == Hello(PROTOCOL, self.process.pid)
        assert isinstance(self.hear(), Ready)

    def tell(self, message: Message, *sockets: socket.socket) -> None:
        channel.send(self.end, message, [s.fileno() for s in sockets])

    def client(self, listener: socket.socket | None = None) -> Raw:
        return Raw(address(listener or self.listener))

    def until(self, fact: Callable[[RowView], object]) -> None:
        """Wait for what the worker's row says."""
        deadline = time.monotonic() + PATIENCE
        while (view := self.board.read(self.row)) is None or not fact(view):
            assert time.monotonic() < deadline, (view, self.log.read_text())
            time.sleep(0.005)

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def events(self) -> list[str]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{")]

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self.end.close()
        self.listener.close()
        self.board.close()
        self.board.unlink()


Run = Callable[..., Worker]
