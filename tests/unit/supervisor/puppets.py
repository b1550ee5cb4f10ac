"""A fleet whose workers are played by the test: real slots, channels, rows and descriptors, and no
process.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from tests.harness.waiting import until
from wssup import channel
from wssup.config.loading import load
from wssup.config.settings import Settings
from wssup.messages import Accept, Drain, Fork, HandOver, Message, Ready, Recall, TakeOver
from wssup.scoreboard import RowWriter, Scoreboard
from wssup.supervisor.children import Worker
from wssup.supervisor.fleet import Fleet
from wssup.supervisor.generation import Generation
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.process import Processes
from wssup.supervisor.watch import Watch

M = TypeVar("M", bound=Message)

#: Seconds for a test: ten times what a busy machine needs.
PATIENCE = 20.0


class Puppet:
    """A worker's side of its channel and its row; it hears what it is told when it is asked."""

    def __init__(self, fork: Fork, end: socket.socket, row: RowWriter) -> None:
        self.serial = fork.serial
        self.slot = fork.slot
        self.row = row
        self.descriptors: list[int] = []
        self._end = end
        self._heard: list[Message] = []

    def say(self, message: Message) -> None:
        """Send a message to the master."""
        channel.send(self._end, message)

    def ready(self, *, resumable: bool = True, records: tuple[int, int] = (1, 1)) -> None:
        # The only beat: no test lasts as long as stall_after.
        self.row.heartbeat(time.monotonic_ns(), 0)
        self.say(Ready(0.0, resumable, records))

    def connect(self, count: int) -> None:
        """Have so many connections more."""
        for _ in range(count):
            self.row.accepted()
            self.row.upgraded()

    @property
    def heard(self) -> list[Message]:
        """Everything that the master has said so far."""
        while True:
            try:
                received = channel.receive(self._end, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return self._heard
            if received is None:
                return self._heard
            self._heard.append(received.message)
            self.descriptors += received.descriptors

    def got(self, kind: type[M]) -> list[M]:
        """What it was told of one kind."""
        return [m for m in self.heard if isinstance(m, kind)]

    @property
    def story(self) -> list[str]:
        """What it was told, in short, but for listeners."""
        words = {Accept: "accept", Drain: "drain", HandOver: "give", TakeOver: "take"}
        words[Recall] = "recall"
        return [
            words[type(m)] if not (isinstance(m, Accept) and not m.on) else "hold"
            for m in self.heard
            if type(m) in words
        ]

    def close(self) -> None:
        self._end.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


class PuppetGeneration(Generation):
    """A generation whose workers are puppets."""

    born: Callable[[Fork, int], None]

    async def available(self) -> None:
        await trio.lowlevel.checkpoint()

    def fork(self, fork: Fork, descriptors: list[int]) -> bool:
        self.born(fork, os.dup(descriptors[0]))
        return True


class Stage:
    """The fleet and its puppets.

    :ivar puppets: by serial number.
    """

    def __init__(
        self, fleet: Fleet, board: Scoreboard, settings: Settings, nursery: trio.Nursery
    ) -> None:
        self.fleet = fleet
        self.board = board
        self.settings = settings
        self.nursery = nursery
        self.puppets: dict[int, Puppet] = {}
        self.watch = Watch(fleet, board)
        self._processes = Processes()

    def generation(self, number: int) -> Generation:
        made = PuppetGeneration(
            number,
            self.settings,
            processes=self._processes,
            scoreboard=self.board.name,
            forked=self.fleet.attendant.forked,
            fork_failed=self.fleet.attendant.fork_failed,
        )
        made.born = self._born
        return made

    def _born(self, fork: Fork, descriptor: int) -> None:
        end = socket.socket(fileno=descriptor)
        self.puppets[fork.serial] = Puppet(fork, end, self.board.writer(fork.row))

    def worker(self, slot: int, role: str = "current") -> Worker:
        found = getattr(self.fleet.slots[slot], role)
        assert isinstance(found, Worker)
        return found

    def puppet(self, slot: int, role: str = "current") -> Puppet:
        return self.puppets[self.worker(slot, role).serial]

    def states(self) -> list[str]:
        return [slot.state.value for slot in self.fleet.slots.values()]

    async def until(self, fact: Callable[[], Any]) -> Any:
        """Wait until it is so; what it said."""
        return await until(fact)

    async def start(self, count: int, **ready: Any) -> None:
        """Have so many slots with ready workers."""
        self.fleet.scale(count)
        await self.born(count, **ready)

    async def born(self, count: int, role: str = "current", **ready: Any) -> None:
        """Have the workers of the first slots become ready."""
        for index in range(count):
            slot = self.fleet.slots[index]
            await self.until(lambda s=slot: self._newborn(getattr(s, role)))
            worker = getattr(slot, role)
            self.puppets[worker.serial].ready(**ready)
            await worker.booted.wait()

    def _newborn(self, worker: Worker | None) -> bool:
        return worker is not None and worker.serial in self.puppets

    async def kill(self, worker: Worker) -> None:
        """A worker dies without a word: its channel ends, and the kernel says so."""
        puppet = self.puppets[worker.serial]
        assert puppet.heard is not None
        worker.named.set()
        puppet.close()
        await worker.gone.wait()


@asynccontextmanager
async def stage(tmp_path: Path, **changes: object) -> AsyncIterator[Stage]:
    """A fleet on one address that serves generation 1."""
    given = {
        "app": "none:app",
        "bind": ("127.0.0.1:0",),
        "runtime_dir": str(tmp_path),
        "settle": 0.0,
        "drain_window": 0.1,
        "drain_timeout": 10.0,
        "stall_after": 100.0,
        "hang_after": 200.0,
    }
    settings = load(cli=given | changes, environ={}, cwd=str(tmp_path)).settings
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, 32, 8)
    board.unlink()
    listeners = Listeners(backlog=10, mode=0o660)
    listeners.extend(1)
    listeners.add(listeners.bind(settings.bind))
    made: Stage | None = None
    try:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                fleet = Fleet(
                    nursery,
                    settings,
                    processes=Processes(),
                    scoreboard=board,
                    listeners=listeners,
                )
                made = Stage(fleet, board, settings, nursery)
                fleet.serving = made.generation(1)
                nursery.start_soon(made.watch.run)
                yield made
                for worker in list(fleet.workers.values()):
                    worker.channel.close()
                nursery.cancel_scope.cancel()
    finally:
        for puppet in made.puppets.values() if made is not None else ():
            puppet.close()
        listeners.close_all()
        board.close()
