"""A real bridge process without a master: the test is its master, and the worker beside it."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.harness import processes
from wssup import channel
from wssup.config.settings import Settings
from wssup.config.topics import Topics
from wssup.messages import PROTOCOL, Bridge, Peers
from wssup.scoreboard import BridgeView, Scoreboard
from wssup.start import CHANNEL
from wssup.topics.bus import Bus
from wssup.topics.history import History
from wssup.topics.message import Message

_BOOT = (
    f"import os, sys; os.dup2(int(sys.argv[1]), {CHANNEL});"
    " from wssup.bridge.main import main; main()"
)
_BEAT = 0.05


class boot:  # noqa: N801 - a name for three functions
    """Starting the process, as the master does."""

    @staticmethod
    def start(
        shadow: Path | None = None, log: Any = subprocess.PIPE
    ) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """A process, and the master's end of its channel.

        :param shadow: where modules are looked for first.
        """
        master, theirs = channel.pair()
        path = [str(shadow)] if shadow is not None else []
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([*path, *sys.path])},
            )
        finally:
            theirs.close()
        return process, master

    @staticmethod
    def settings(topics: Topics) -> dict[str, Any]:
        """All settings as the master sends them."""
        settings = Settings(
            app="none:app",
            app_dir="/nowhere",
            runtime_dir="/nowhere",
            topics=topics,
            log_level="debug",
            log_format="json",
        )
        found: dict[str, Any] = msgspec.to_builtins(settings)
        return found


class Turns:
    """A watcher that the test turns."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.heard: dict[int, Callable[[int], None]] = {}
        self.waiting: list[Callable[[], None]] = []

    def attend(self, fd: int, mask: int, heard: Callable[[int], None]) -> None:
        if fd in self.heard:
            self.epoll.modify(fd, mask)
        else:
            self.epoll.register(fd, mask)
        self.heard[fd] = heard

    def leave(self, fd: int) -> None:
        if self.heard.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def soon(self, chore: Callable[[], None]) -> None:
        self.waiting.append(chore)

    def turn(self, seconds: float) -> None:
        """Serve whoever is ready, and do what waits."""
        for fd, bits in self.epoll.poll(0 if self.waiting else seconds):
            if fd in self.heard:
                self.heard[fd](bits)
        waiting, self.waiting = self.waiting, []
        for chore in waiting:
            chore()


class Counter:
    """The bus' teller, of which only losses matter here."""

    def __init__(self) -> None:
        self.lost = 0

    def published(self, count: int) -> None:
        """Nobody asks."""

    received = published

    def sent(self, count: int, size: int) -> None:
        """Nobody asks."""

    def lost_out(self, count: int) -> None:
        self.lost += count

    lost_in = lost_out


class Worker:
    """A node of the bus beside the bridge, run by the test."""

    def __init__(self, serial: int, name: str, topics: Topics, **history: Any) -> None:
        self.turns = Turns()
        self.got: list[Message] = []
        self.counter = Counter()
        kept = {"messages": topics.history, "seconds": topics.history_age} | history
        self.history = History(size=topics.history_bytes, topics=1000, node=name, **kept)
        self.bus = Bus(
            serial,
            name,
            queue_bytes=topics.queue_bytes,
            everything=self.history.configured,
            history=self.history,
            deliver=self.got.append,
            tell=self.counter,
        )
        self.bus.begin(self.turns)

    def publish(self, topic: str, *data: bytes) -> None:
        for each in data:
            self.bus.publish(topic, text=False, data=each)

    def data(self, topic: str = "t") -> list[bytes]:
        """What came of a topic, from whomever but this worker."""
        return [m.data for m in self.got if m.topic == topic and m.carrier != self.bus.serial]


class Instance:
    """A bridge process with one worker.

    :param home: for its log.
    """

    def __init__(self, home: Path, name: str, **topics: Any) -> None:
        self.name = name
        self.log = home / f"{name}.log"
        self.topics = Topics(**topics)
        self.board = Scoreboard.create(f"bridge-{name}", home, 1, 1)
        self._serials = 0
        self._beaten = 0.0
        self.master: socket.socket | None = None
        self.worker = Worker(self._serial(), name, self.topics)
        self.start()

    def _serial(self) -> int:
        self._serials += 1
        return self._serials

    def start(self) -> None:
        """Start the bridge, again too, as the master does."""
        self.close()
        with self.log.open("ab") as log:
            self.process, self.master = boot.start(log=log)
        serial = self._serial()
        channel.send(
            self.master,
            Bridge(
                protocol=PROTOCOL,
                instance=self.name,
                node=self.name,
                serial=serial,
                scoreboard=self.board.name,
                settings=boot.settings(self.topics),
            ),
        )
        self.hello = channel.receive(self.master)
        mine, its = socket.socketpair()
        channel.send(self.master, Peers([self.worker.bus.serial]), [its.fileno()])
        its.close()
        self.worker.bus.link(serial, mine)

    def close(self) -> None:
        """Close the master's end of the channel."""
        if self.master is not None:
            self.master.close()

    def view(self) -> BridgeView:
        """What the bridge says of itself."""
        view = self.board.bridge()
        assert view is not None
        return view

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        lines = self.log.read_text().splitlines(keepends=True)
        entries = [json.loads(x) for x in lines if x.startswith("{") and x.endswith("\n")]
        return [entry for entry in entries if entry["event"] == name]

    def turn(self, seconds: float = 0.005) -> None:
        """Let the worker run."""
        now = time.monotonic()
        if now - self._beaten > _BEAT:
            self._beaten = now
            self.worker.bus.beat(now)
        self.worker.turns.turn(seconds)

    def end(self) -> None:
        """End the bridge, if it still runs, and take back what it used."""
        self.close()
        self.worker.bus.close()
        self.worker.turns.epoll.close()
        self.process.kill()
        self.process.wait(10)
        self.board.unlink()
        self.board.close()


def until(*instances: Instance, fact: Callable[[], object], seconds: float = 30) -> None:
    """Let instances run until something is so."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"waited {seconds:g} s"
        for instance in instances:
            instance.turn()


def gone(pid: int) -> None:
    """Wait for a process' end."""
    processes.until(lambda: not processes.alive(pid), 10, f"process {pid} to end")
