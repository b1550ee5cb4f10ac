"""The worker process on trio: runs the application's lifespan and the engine. What it does for the
master, and how it lets go, stands in obeying.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import trio

from wssup import application, identity, logs
from wssup.application import Application, Way
from wssup.config.settings import Settings
from wssup.errors import MessageError
from wssup.messages import PROTOCOL, Drain, Hello
from wssup.server.accepting import Accepting
from wssup.server.asgi.websocket import AsgiStyle
from wssup.server.engine import Engine
from wssup.server.lifespan import running
from wssup.server.loops.trio import told, within
from wssup.server.obeying import FAREWELL, BaseWorker
from wssup.start import WorkerStart

__all__ = ["begin", "main"]


def begin(start: WorkerStart) -> Settings:
    """Set this process up as a worker; its settings."""
    settings = msgspec.convert(start.load.settings, Settings)
    logs.configure(settings.log_level, settings.log_format)
    info = identity.WorkerInfo(
        start.load.instance, start.fork.slot, start.load.generation, os.getpid()
    )
    identity.set_current_worker(info)
    logs.bind(slot=info.slot, gen=info.generation, pid=info.pid)
    return settings


def main(start: WorkerStart) -> int:
    """Run a worker; returns the exit status of the process."""
    return trio.run(_Worker(start, begin(start)).run)


class _Worker(BaseWorker):
    _listening: Accepting

    def __init__(self, start: WorkerStart, settings: Settings) -> None:
        super().__init__(start, settings, accepting=Accepting, told=told, within=within)
        self._draining: trio.CancelScope | None = None
        self._starting = trio.CancelScope()
        self._drained = trio.Event()

    async def run(self) -> int:
        """Serve until drained; returns the exit status."""
        began = time.monotonic()
        self._listen_to_own()
        # The receiver outlives the task that listens to it: one that is closed while a signal comes
        # has nothing to give to who waits.
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._take_signals, signals)
                self._post(Hello(PROTOCOL, os.getpid()))
                nursery.start_soon(self._obey_master)
                nursery.start_soon(self._beat)
                await nursery.start(self._listening.run)
                await self._live(began)
                await self._bring_out()
                nursery.cancel_scope.cancel()
        return self._status

    async def _live(self, began: float) -> None:
        """From start-up to the end of the last connection."""
        try:
            with self._hooks(), self._starting:
                await self._joining.linked()
                app = self._start.application or application.load(
                    self._start.load.application,
                    self._start.app_dir,
                    Way.by(self._start.load.settings),
                )
                state: dict[str, Any] = {}
                async with running(app, state):
                    try:
                        await self._serve(app, began, state)
                    except trio.Cancelled:
                        if self._nursery.cancel_scope.cancel_called:
                            # Not the lifespan but a task of ours: nobody is left to drain with.
                            raise
                        # A task of the lifespan failed, which is about to be told; first to the
                        # clients.
                        with trio.CancelScope(shield=True):
                            self._drain(FAREWELL)
                            await self._drained.wait()
                        raise
        except Exception as error:  # noqa: BLE001 - the application's start-up or shutdown; told to the master
            self._failed(error)

    async def _serve(self, app: Application, began: float, state: dict[str, Any]) -> None:
        engine = self._make_engine(app)
        if isinstance(engine.style, AsgiStyle):
            engine.style.lifespan_state = state
        await self._nursery.start(engine.run)
        await self._joining.complete()
        self._become_ready(began, engine)
        await self._drained.wait()

    async def _beat(self) -> None:
        due = trio.current_time()
        while True:
            due += self._pause
            await trio.sleep_until(due)
            self._beats(trio.current_time() - due)
            # After a stall the beats that were missed are not made up for.
            due = max(due, trio.current_time() - self._pause)

    async def _take_signals(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            self._leave("SIGTERM")

    async def _obey_master(self) -> None:
        while True:
            try:
                received = await self._channel.receive()
            except MessageError as error:
                self._lost_message(error)
                continue
            if received is None:
                break
            self._obey(received)
        self._is_orphaned()

    def _stop_starting(self) -> None:
        self._starting.cancel()

    def _begin_to_let_go(self, order: Drain, engine: Engine) -> None:
        if self._draining is not None:
            self._draining.cancel()
            engine.keep_all()
        self._draining = trio.CancelScope()
        self._nursery.start_soon(self._let_go_in, self._draining, order, engine)

    async def _let_go_in(self, scope: trio.CancelScope, order: Drain, engine: Engine) -> None:
        with scope:
            # A later order may have come before this task had its first turn.
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._let_go(order, engine)

    def _is_drained(self) -> None:
        self._drained.set()
