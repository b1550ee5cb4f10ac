"""The worker process: runs the application's lifespan and the engine, obeys the master, and lets go
in order.

Order of the end: accept no more, close the connections over the window, leave the lifespan, exit.
When the master dies (end of file on the channel: nobody but it has the other end) the listeners go
first, so that a new master can have the addresses at once.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from wssup import application, identity, logs
from wssup.application import Application, own_traceback, summary
from wssup.channel import Channel, ChannelFull, Received
from wssup.config.settings import Settings
from wssup.errors import ApplicationError, MessageError
from wssup.messages import (
    PROTOCOL,
    Accept,
    CloseConnections,
    Drain,
    Failed,
    HandedOver,
    HandOver,
    Hello,
    Inspect,
    Leaving,
    Listen,
    Message,
    Ready,
    Recall,
    TakeOver,
    TookOver,
    Unlisten,
)
from wssup.scoreboard import ClosedReason, HandoffRefusal
from wssup.server.accepting import Accepting
from wssup.server.collecting import Collecting
from wssup.server.engine import Engine
from wssup.server.handoff.record import VERSIONS
from wssup.server.topics.api import set_hub
from wssup.server.topics.hub import Hub
from wssup.server.topics.joining import Joining, ends
from wssup.start import WorkerStart

__all__ = ["main"]

#: RFC 6455 section 7.4.1 and its registry: "going away", "internal error", "service
#: restart".
_GOING_AWAY = 1001
_INTERNAL_ERROR = 1011
_SERVICE_RESTART = 1012
#: Seconds over which clients are told when the master died, and after which the worker ends
#: whatever is left.
_ORPHAN_WINDOW = 5.0
_ORPHAN_TIMEOUT = 10.0
#: What clients are told when the lifespan fails under them: all at once, the process ends.
_FAREWELL = Drain(_INTERNAL_ERROR, "internal error", window=0.0, timeout=2.0)
#: Seconds between two heartbeats; a stall is noticed after ``stall_after``, so there must be
#: several in it.
_HEARTBEAT = 0.5
#: The part of a drain's timeout within which the last close is begun.
_SPREAD_SHARE = 0.9
#: What a close code of an order is counted as: "going away" means that the service ends.
_REASONS = {_GOING_AWAY: ClosedReason.STOP, _INTERNAL_ERROR: ClosedReason.ERROR}


def main(start: WorkerStart) -> int:
    """Run a worker; returns the exit status of the process."""
    settings = msgspec.convert(start.load.settings, Settings)
    logs.configure(settings.log_level, settings.log_format)
    info = identity.WorkerInfo(
        start.load.instance, start.fork.slot, start.load.generation, os.getpid()
    )
    identity.set_current_worker(info)
    logs.bind(slot=info.slot, gen=info.generation, pid=info.pid)
    return trio.run(_Worker(start, settings).run)


class _Worker:
    def __init__(self, start: WorkerStart, settings: Settings) -> None:
        self._start = start
        self._settings = settings
        self._channel = Channel(start.channel)
        self._row = start.scoreboard.writer(start.fork.row)
        limit = os.sysconf("SC_OPEN_MAX") - settings.reserve_fds
        self._accepting = Accepting(
            limit=max(1, limit), accepted=self._row.accepted, gauge=self._row.accepting
        )
        self._topics = Hub(
            settings.topics,
            serial=start.fork.serial,
            node=start.load.node,
            message_bytes=settings.limits.message_bytes,
        )
        set_hub(self._topics)
        self._joining = Joining(self._topics, self._post)
        self._engine: Engine | None = None
        self._collecting: Collecting | None = None
        self._log = logs.get()
        self._order: Drain | None = None
        self._draining: trio.CancelScope | None = None
        self._starting = trio.CancelScope()
        self._drained = trio.Event()
        self._status = 0

    async def run(self) -> int:
        """Serve until drained; returns the exit status."""
        began = time.monotonic()
        for address, descriptor in self._start.listeners.items():
            self._accepting.add((self._start.fork.slot, address), descriptor)
        # The receiver outlives the task that listens to it: one that is closed while a signal comes
        # has nothing to give to who waits.
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._take_signals, signals)
                self._post(Hello(PROTOCOL, os.getpid()))
                nursery.start_soon(self._obey_master)
                nursery.start_soon(self._beat)
                await nursery.start(self._accepting.run)
                await self._live(began)
                nursery.cancel_scope.cancel()
        return self._status

    async def _live(self, began: float) -> None:
        """From start-up to the end of the last connection."""
        try:
            with self._starting:
                await self._joining.linked()
                app = self._start.application or application.load(
                    self._start.load.application, self._start.app_dir
                )
                async with _lifespan(app):
                    try:
                        await self._serve(app, began)
                    except trio.Cancelled:
                        if self._nursery.cancel_scope.cancel_called:
                            # Not the lifespan but a task of ours: nobody is left to drain with.
                            raise
                        # A task of the lifespan failed, which is about to be told; first to the
                        # clients.
                        with trio.CancelScope(shield=True):
                            self._drain(_FAREWELL)
                            await self._drained.wait()
                        raise
        except ApplicationError as error:
            self._fail(error.message, error.traceback)
        except Exception as error:  # noqa: BLE001 - the application's start-up or shutdown; told to the master
            self._fail(f"its lifespan raised {summary(error)}", own_traceback(error))

    async def _serve(self, app: Application, began: float) -> None:
        settings = self._settings
        engine = self._engine = Engine(
            app,
            limits=settings.limits,
            heartbeat=settings.heartbeat,
            row=self._row,
            accepting=self._accepting,
            serial=self._start.fork.serial,
            keep_headers=None if settings.keep_headers == "all" else settings.keep_headers,
            topics=self._topics,
        )
        await self._nursery.start(engine.run)
        await self._joining.complete()
        if self._order is None:
            self._collecting = Collecting()
            self._row.heartbeat(time.monotonic_ns(), 0)
            self._switch(on=True)
            self._post(Ready(time.monotonic() - began, engine.is_resumable, VERSIONS))
        else:
            self._drain(self._order)
        await self._drained.wait()

    async def _beat(self) -> None:
        """Say that the loop turns, and by how much it is late."""
        pause = min(_HEARTBEAT, self._settings.stall_after / 4)
        due = trio.current_time()
        while True:
            due += pause
            await trio.sleep_until(due)
            lag = trio.current_time() - due
            self._row.heartbeat(time.monotonic_ns(), int(lag * 1e9))
            if self._engine is not None:
                self._engine.flush()
            # Some links are among what the reserve is for.
            links = self._topics.bus.links - self._settings.reserve_fds // 2
            self._accepting.leave(max(0, links))
            if self._collecting is not None:
                self._collecting.look(self._accepting.open, self._accepting.closed)
            # After a stall the beats that were missed are not made up for.
            due = max(due, trio.current_time() - pause)

    async def _take_signals(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            self._leave("SIGTERM")

    def _leave(self, reason: str) -> None:
        """Drain although the master did not ask for it."""
        if self._order is None:
            self._post(Leaving(reason))
            self._drain(self._own_order())

    async def _obey_master(self) -> None:
        while True:
            try:
                received = await self._channel.receive()
            except MessageError as error:
                # It may have been listeners that we were to serve: the slot needs another worker.
                self._log.error("message_lost", error=str(error))
                self._leave("a message of the master was lost")
                continue
            if received is None:
                break
            self._obey(received)
        self._accepting.close_listeners()
        # Nobody watches over this process any more but itself: past the deadline it shows in the
        # log where it hangs, and exits.
        faulthandler.dump_traceback_later(_ORPHAN_TIMEOUT + _ORPHAN_WINDOW, exit=True)
        self._log.warning("master_gone", hint="closing listeners, then connections")
        if self._engine is not None:
            self._engine.end_handoffs()
        window = min(_ORPHAN_WINDOW, self._settings.drain_window)
        self._drain(Drain(_SERVICE_RESTART, "service restart", window, _ORPHAN_TIMEOUT))

    def _obey(self, received: Received) -> None:
        if self._joining.hear(received):
            return
        match received.message:
            case Accept(on=on):
                if self._order is None:
                    self._switch(on=on)
            case Listen() | Unlisten() as order:
                self._listen(order, received.descriptors)
            case Drain() as order:
                self._drain(order)
            case HandOver() | TakeOver() | Recall() as order:
                self._move(order, received.descriptors)
            case Inspect() | CloseConnections() as question:
                if self._engine is not None:
                    self._nursery.start_soon(self._engine.answer, question, self._post)
            case other:
                self._log.error("unexpected_message", kind=type(other).__name__)

    def _listen(self, order: Listen | Unlisten, descriptors: list[int]) -> None:
        """Accept from more listeners, or from fewer."""
        if isinstance(order, Unlisten):
            for address in order.addresses:
                self._accepting.remove((order.slot, address))
            return
        for address, descriptor in zip(order.addresses, descriptors, strict=True):
            if self._order is None:
                self._accepting.add((order.slot, address), descriptor)
            else:
                os.close(descriptor)

    def _move(self, order: HandOver | TakeOver | Recall, descriptors: list[int]) -> None:
        """Connections go to another worker, or come from one."""
        engine = self._engine
        pair_ends = ends(descriptors)
        match order:
            case HandOver(session=session):
                if engine is not None:
                    engine.hand_over(order, pair_ends.pop(), self._post)
                else:
                    self._post(HandedOver(session, 0, "it has not started up"))
            case TakeOver(session=session):
                if engine is not None and self._order is None:
                    engine.take_over(order, pair_ends.pop(), self._post)
                else:
                    self._post(TookOver(session, 0, 0))
            case Recall(session=session):
                if engine is not None:
                    engine.recall(session)
        for end in pair_ends:
            end.close()

    def _switch(self, *, on: bool) -> None:
        self._accepting.switch(on=on)
        if self._engine is not None:
            self._engine.accept(on=on)

    def _own_order(self) -> Drain:
        settings = self._settings
        return Drain(
            _SERVICE_RESTART, "service restart", settings.drain_window, settings.drain_timeout
        )

    def _drain(self, order: Drain) -> None:
        """Begin to drain; a later order replaces an earlier one."""
        self._order = order
        if order.final and self._engine is not None:
            self._accepting.empty_queues()
        self._accepting.close_listeners()
        if self._engine is not None:
            self._engine.accept(on=False)
            # What is not acknowledged is the other worker's, which knows better what to do with it.
            self._engine.take_no_more()
        else:
            # Still starting up, with nobody to say goodbye to.
            self._starting.cancel()
            return
        if self._draining is not None:
            self._draining.cancel()
            self._engine.keep_all()
        self._draining = trio.CancelScope()
        self._nursery.start_soon(self._let_go, order, self._engine, self._draining)

    async def _let_go(self, order: Drain, engine: Engine, scope: trio.CancelScope) -> None:
        reason = _REASONS.get(order.code, ClosedReason.DRAIN)
        deadline = trio.current_time() + order.timeout
        # The last clients need time to answer, too.
        window = min(order.window, _SPREAD_SHARE * order.timeout)
        # Of one that has no connection, what follows says enough.
        tell = self._log.info if engine.count else self._log.debug
        tell("draining", open=engine.count, window=order.window, timeout=order.timeout)
        with scope:
            # A later order may have come before this task had its first turn.
            await trio.lowlevel.checkpoint_if_cancelled()
            with trio.move_on_at(deadline):
                last = deadline - order.timeout * (1 - _SPREAD_SHARE) - window
                unmoved = HandoffRefusal[order.unmoved.upper()] if order.unmoved else None
                close = partial(engine.close_all, order.code, order.reason, reason, window, unmoved)
                if not order.wait:
                    # What moves is not closed; a session that does not get on is not waited for.
                    with trio.move_on_at(max(last, trio.current_time() + order.timeout / 2)):
                        await engine.wait_swept()
                if not order.wait and engine.is_moving:
                    close(spares=True)
                if order.wait or engine.is_moving:
                    with trio.move_on_at(last):
                        await engine.wait_empty()
                close()
                await engine.wait_empty()
            if engine.count:
                self._log.warning("drain_deadline", left=engine.count)
                engine.abort_all(ClosedReason.DEADLINE)
                await engine.wait_empty()
            engine.end_handoffs()
            engine.flush()
            self._drained.set()

    def _fail(self, message: str, traceback: str) -> None:
        self._status = 1
        self._log.error("application_failed", error=message, exception=traceback or None)
        self._post(Failed(message, traceback))

    def _post(self, message: Message) -> None:
        try:
            self._channel.post(message)
        except ChannelFull:
            self._log.error("master_does_not_read", message=type(message).__name__)


@asynccontextmanager
async def _lifespan(app: Application) -> AsyncIterator[None]:
    if app.lifespan is None:
        yield
        return
    async with app.lifespan():
        yield
