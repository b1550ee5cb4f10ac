"""A fleet with real listeners, scoreboard and channels, but without a zygote: workers are asked for
and never born.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
import trio.testing

from wssup.config.loading import load
from wssup.config.settings import Settings
from wssup.scoreboard import (
    InstanceState,
    Scoreboard,
)
from wssup.supervisor.children import Worker
from wssup.supervisor.fleet import Fleet
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.process import Processes
from wssup.supervisor.slots import State

#: Seconds for a test: ten times what a busy machine needs.
PATIENCE = 20.0


@dataclass
class Made:
    fleet: Fleet
    board: Scoreboard
    listeners: Listeners
    settings: Settings

    @property
    def states(self) -> list[State]:
        return [slot.state for slot in self.fleet.slots.values()]

    @property
    def worker(self) -> Worker:
        """The only worker."""
        (worker,) = self.fleet.workers.values()
        return worker

    async def until(self, *states: State) -> None:
        while self.states != list(states):
            await self.fleet.wait_changed()


@asynccontextmanager
async def fleet(tmp_path: Path, *, rows: int = 8, **changes: object) -> AsyncIterator[Made]:
    """A fleet on one address, with a generation that cannot fork."""
    given = {"app": "none:app", "bind": ("127.0.0.1:0",), "runtime_dir": str(tmp_path)}
    loaded = load(cli=given | changes, environ={}, cwd=str(tmp_path))
    settings = loaded.settings
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, rows, 4)
    board.unlink()
    board.state = InstanceState.RUNNING
    listeners = Listeners(backlog=10, mode=0o660)
    listeners.extend(1)
    listeners.add(listeners.bind(settings.bind))
    try:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                found = Fleet(
                    nursery,
                    settings,
                    processes=Processes(),
                    scoreboard=board,
                    listeners=listeners,
                )
                found.serving = found.generation(1, settings)
                yield Made(found, board, listeners, settings)
                for worker in list(found.workers.values()):
                    worker.channel.close()
                nursery.cancel_scope.cancel()
    finally:
        listeners.close_all()
        board.close()
