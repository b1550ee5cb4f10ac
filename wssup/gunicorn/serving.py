"""Serving in a worker of gunicorn: the part that runs on trio, from start-up to the last close."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from wssup import logs
from wssup.application import Application
from wssup.config.settings import Settings
from wssup.scoreboard import ClosedReason, RowWriter
from wssup.scoreboard.layout import BLOCK_CELLS, CELL
from wssup.server.accepting import Accepting
from wssup.server.admission import Admission
from wssup.server.asgi.websocket import AsgiStyle
from wssup.server.engine import Engine
from wssup.server.forwarded import TrustedProxies
from wssup.server.lifespan import running
from wssup.server.topics.api import set_hub
from wssup.server.topics.hub import Hub

if TYPE_CHECKING:
    from wssup.gunicorn.worker import TrioWorker

__all__ = ["Serving"]

#: RFC 6455 section 7.4.1 and its registry: "going away", "service restart".
_GOING_AWAY: Final = 1001
_SERVICE_RESTART: Final = 1012
#: Seconds between two signs of life, at most.
_BEAT: Final = 0.5
#: The part of ``graceful_timeout`` after which this worker ends by itself: at its end the arbiter
#: kills.
_OWN_SHARE: Final = 0.9
#: The part of the rest within which the last close is begun.
_SPREAD_SHARE: Final = 0.9
#: Seconds that clients have to answer a close when gunicorn is to stop fast, or its arbiter died.
_FAST: Final = 1.0
_ORPHAN: Final = 5.0


class _Farewell(NamedTuple):
    """How the connections of this worker end.

    :ivar window: seconds over which closes are spread.
    :ivar timeout: seconds until what is left is cut off.
    """

    code: int
    why: str
    reason: ClosedReason
    window: float
    timeout: float


class Serving:
    """One worker's serving.

    :ivar began: whether the application started up.
    """

    def __init__(self, worker: TrioWorker, application: Application, settings: Settings) -> None:
        self._worker = worker
        self._application = application
        self._settings = settings
        self._row = RowWriter(memoryview(bytearray(BLOCK_CELLS * CELL)).cast("Q"))
        self._accepting = Accepting(
            admission=_admission(settings, worker.cfg.workers, worker.cfg.worker_connections),
            accepted=self._row.accepted,
            gauge=self._row.accepting,
        )
        self._engine: Engine | None = None
        self._leaving = trio.Event()
        self._fast = trio.Event()
        self._orphaned = False
        self._log = logs.get()
        self.began = False

    async def run(self) -> None:
        """Serve until the arbiter, a limit or the application ends it."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_signals, signals)
                nursery.start_soon(self._beat)
                await nursery.start(self._accepting.run)
                state: dict[str, Any] = {}
                async with running(self._application, state):
                    self.began = True
                    await self._serve(nursery, state)
                nursery.cancel_scope.cancel()

    def leave(self) -> None:
        """Begin to end, in order; called on the loop."""
        self._leaving.set()

    async def _serve(self, nursery: trio.Nursery, state: dict[str, Any]) -> None:
        settings = self._settings
        hub = Hub(
            settings.topics,
            serial=self._worker.age,
            node=secrets.token_hex(4),
            message_bytes=settings.limits.message_bytes,
        )
        set_hub(hub)
        engine = self._engine = Engine(
            self._application,
            limits=settings.limits,
            heartbeat=settings.heartbeat,
            row=self._row,
            accepting=self._accepting,
            serial=self._worker.age,
            keep_headers=None if settings.keep_headers == "all" else settings.keep_headers,
            topics=hub,
            trusted=TrustedProxies(settings.trusted_proxies, settings.proxy_headers),
        )
        if isinstance(engine.style, AsgiStyle):
            engine.style.lifespan_state = state
        await nursery.start(engine.run)
        for place, listener in enumerate(self._worker.sockets):
            self._accepting.add((0, str(place)), os.dup(listener.fileno()))
        self._accepting.switch(on=True)
        engine.accept(on=True)
        await self._leaving.wait()
        await self._let_go(engine)

    async def _beat(self) -> None:
        """Show the arbiter that the loop turns, and look whether something ended it."""
        worker = self._worker
        # Without a timeout the arbiter does not look.
        pause = min(_BEAT, worker.timeout / 4) if worker.timeout else _BEAT
        while True:
            worker.notify()
            self._row.heartbeat(time.monotonic_ns(), 0)
            if self._engine is not None:
                self._engine.flush()
            if os.getppid() != worker.ppid and not self._orphaned:
                self._log.warning("arbiter_gone", hint="closing listeners, then connections")
                self._orphaned, worker.alive = True, False
            if not worker.alive:
                self._leaving.set()
            await trio.sleep(pause)

    async def _take_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGTERM:
                self._worker.alive = False
            else:
                self._worker.quit()
                self._fast.set()
            self._leaving.set()

    async def _let_go(self, engine: Engine) -> None:
        """Close the listeners, then the connections."""
        if self._worker.cfg.reuse_port:
            # These listeners are this worker's own: with them goes what waits in their queues.
            self._accepting.empty_queues()
        self._accepting.close_listeners()
        engine.accept(on=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hurry, engine)
            await self._say_goodbye(engine, self._farewell())
            nursery.cancel_scope.cancel()

    async def _hurry(self, engine: Engine) -> None:
        """Close what is left at once as soon as gunicorn is to stop fast."""
        await self._fast.wait()
        await self._say_goodbye(
            engine, _Farewell(_GOING_AWAY, "going away", ClosedReason.STOP, 0.0, _FAST)
        )

    def _farewell(self) -> _Farewell:
        settings = self._settings
        timeout = _OWN_SHARE * min(settings.drain_timeout, self._worker.cfg.graceful_timeout)
        if self._orphaned:
            timeout = min(timeout, _ORPHAN)
        window = min(settings.drain_window, _SPREAD_SHARE * timeout)
        return _Farewell(_SERVICE_RESTART, "service restart", ClosedReason.DRAIN, window, timeout)

    async def _say_goodbye(self, engine: Engine, how: _Farewell) -> None:
        self._log.info("draining", open=engine.count, window=how.window, timeout=how.timeout)
        engine.close_all(how.code, how.why, how.reason, how.window)
        with trio.move_on_after(how.timeout):
            await engine.wait_empty()
        if engine.count:
            self._log.warning("drain_deadline", left=engine.count)
        engine.abort_all(ClosedReason.DEADLINE)
        await engine.wait_empty()


def _admission(settings: Settings, workers: int, worker_connections: int) -> Admission:
    """The limits of one of so many workers.

    :param worker_connections: gunicorn's, which holds where wssup's is not set.
    """
    workers = max(1, workers)
    per_worker = settings.worker_connections or worker_connections
    if settings.max_connections:
        # Nobody tells a worker how many others there are, or which of them divides with a rest.
        per_worker = min(per_worker, max(1, settings.max_connections // workers))
    return Admission(
        os.sysconf("SC_OPEN_MAX") - settings.reserve_fds,
        reserve=settings.reserve_fds,
        refuses=settings.overflow == "refuse",
        per_worker=per_worker,
        rate=settings.max_handshakes_per_second / workers,
        now=time.monotonic(),
    )
