"""The worker process on asyncio. What it does for the master, and how it lets go, stands in
obeying.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from wssup import application, channel
from wssup.application import Way
from wssup.config.settings import Settings
from wssup.errors import MessageError
from wssup.messages import PROTOCOL, Drain, Hello
from wssup.server.asgi.websocket import AsgiStyle
from wssup.server.engine import Engine
from wssup.server.loops.asyncio import AsyncioLoop, told, within
from wssup.server.obeying import FAREWELL, BaseWorker
from wssup.server.uvicorn_worker.accepting import Accepting
from wssup.server.uvicorn_worker.front import Front
from wssup.server.worker import begin
from wssup.start import WorkerStart

__all__ = ["main"]

#: Seconds that the application's own tasks have at least, after the last connection.
_LEAST_TIME: Final = 1.0


def main(start: WorkerStart) -> int:
    """Run a worker; returns the exit status of the process."""
    worker = _Worker(start, begin(start))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(worker.run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, if it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Worker(BaseWorker):
    def __init__(self, start: WorkerStart, settings: Settings) -> None:
        super().__init__(start, settings, accepting=Accepting, told=told, within=within)
        self._front: Front | None = None
        self._deadline = 0.0
        self._starting: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Serve until drained; returns the exit status."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, self._leave, "SIGTERM")
        self._listen_to_own()
        self._post(Hello(PROTOCOL, os.getpid()))
        loop.add_reader(self._channel.fileno(), self._hear)
        beating = asyncio.create_task(self._beat())
        try:
            await self._live(began)
        finally:
            beating.cancel()
            self._listening.close_listeners()
            if self._channel.fileno() >= 0:
                loop.remove_reader(self._channel.fileno())
        return self._status

    async def _live(self, began: float) -> None:
        """From start-up to the end of the last connection."""
        try:
            with self._hooks():
                self._starting = asyncio.create_task(self._start_up())
                with contextlib.suppress(asyncio.CancelledError):
                    await self._starting
                if self._front is not None:
                    await self._serve(self._front, began)
        except Exception as error:  # noqa: BLE001 - the application's start-up or shutdown; told to the master
            self._failed(error)

    async def _start_up(self) -> None:
        await self._joining.linked()
        load = self._start.load
        app = self._start.application or application.load(
            load.application, self._start.app_dir, Way.by(load.settings)
        )
        application.check_worker(app, "uvicorn")
        front = Front(app, self._settings)
        await front.start()
        self._front = front
        self._app = app

    async def _serve(self, front: Front, began: float) -> None:
        loop = AsyncioLoop()
        engine = self._make_engine(self._app, loop)
        style = engine.style
        assert isinstance(style, AsgiStyle)
        style.lifespan_state = front.app_state
        front.attach(engine)
        try:
            await self._joining.complete()
            self._become_ready(began, engine)
            drained = asyncio.create_task(self._drained.wait())
            if not await front.outlives(drained):
                self._drain(FAREWELL)
                await drained
            await front.stop(max(_LEAST_TIME, self._deadline - time.monotonic()))
            await self._bring_out()
        finally:
            loop.close()
            engine.close()

    async def _beat(self) -> None:
        due = time.monotonic()
        while True:
            due += self._pause
            await asyncio.sleep(due - time.monotonic())
            self._beats(time.monotonic() - due)
            # After a stall the beats that were missed are not made up for.
            due = max(due, time.monotonic() - self._pause)

    def _beats(self, lag: float) -> None:
        super()._beats(lag)
        if self._front is not None:
            self._front.flush(self._row)
            self._front.look()

    def _hear(self) -> None:
        """The master's channel is readable."""
        loop = asyncio.get_running_loop()
        try:
            received = channel.receive(self._start.channel)
        except BlockingIOError:
            return
        except ConnectionResetError:
            return  # said once, before what the master had sent
        except MessageError as error:
            self._lost_message(error)
            return
        if received is not None:
            self._obey(received)
            return
        loop.remove_reader(self._channel.fileno())
        self._is_orphaned()

    def _switch(self, *, on: bool) -> None:
        super()._switch(on=on)
        if self._front is not None:
            # Clients whose connections are kept go to where new ones go, too.
            self._front.leaves = not on

    def _stop_starting(self) -> None:
        if self._starting is not None:
            self._starting.cancel()

    def _begin_to_let_go(self, order: Drain, engine: Engine) -> None:
        assert self._front is not None
        self._front.leave()
        if self._draining is not None:
            self._draining.cancel()
            engine.keep_all()
        self._deadline = time.monotonic() + order.timeout
        self._draining = asyncio.create_task(self._let_go(order, engine))

    def _abort(self, engine: Engine) -> None:
        assert self._front is not None
        self._front.abort()
        super()._abort(engine)

    def _is_drained(self) -> None:
        if self._front is not None:
            self._front.flush(self._row)
        self._drained.set()
