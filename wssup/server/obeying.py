"""What a worker is on every loop: it obeys the master, and lets go in order.

Order of the end: accept no more, close the connections over the window, leave the lifespan, exit.
When the master dies (end of file on the channel: nobody but it has the other end) the listeners go
first, so that a new master can have the addresses at once.
"""

from __future__ import annotations

import faulthandler
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from wssup import logs
from wssup.application import Application, own_traceback, summary
from wssup.channel import Channel, ChannelFull, Received
from wssup.config.settings import Settings
from wssup.errors import ApplicationError
from wssup.messages import (
    Accept,
    Admit,
    CloseConnections,
    Drain,
    Failed,
    HandedOver,
    HandOver,
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
from wssup.scoreboard import ClosedReason
from wssup.server import gunicorn_hooks
from wssup.server.admission import Admission
from wssup.server.collecting import Collecting
from wssup.server.draining import farewell, let_go
from wssup.server.engine import Engine
from wssup.server.fairness import Fairness
from wssup.server.forwarded import TrustedProxies
from wssup.server.handoff.record import VERSIONS
from wssup.server.listening import Listening
from wssup.server.loops import Loop, Told, Within
from wssup.server.topics.api import set_hub
from wssup.server.topics.hub import Hub
from wssup.server.topics.joining import Joining, ends
from wssup.start import WorkerStart

__all__ = ["FAREWELL", "BaseWorker"]

#: RFC 6455 section 7.4.1 and its registry: "internal error", "service restart".
_INTERNAL_ERROR = 1011
_SERVICE_RESTART = 1012
#: Seconds over which clients are told when the master died, and after which the worker ends
#: whatever is left.
_ORPHAN_WINDOW = 5.0
_ORPHAN_TIMEOUT = 10.0
#: What clients are told when the lifespan fails under them: all at once, the process ends.
FAREWELL: Final = Drain(_INTERNAL_ERROR, "internal error", window=0.0, timeout=2.0)
#: Seconds between two heartbeats; a stall is noticed after ``stall_after``, so there must be
#: several in it.
_HEARTBEAT = 0.5


class BaseWorker:
    """A worker; subclasses run it on their loop.

    :param accepting: makes what accepts from the limits and two counters.
    :param told: the loop's.
    :param within: the loop's.
    """

    def __init__(
        self,
        start: WorkerStart,
        settings: Settings,
        *,
        accepting: Callable[..., Listening],
        told: Told,
        within: Within,
    ) -> None:
        self._start = start
        self._settings = settings
        self._channel = Channel(start.channel)
        self._row = start.scoreboard.writer(start.fork.row)
        #: The rows of the slot's other workers.
        self._mates: tuple[int, ...] = ()
        admission = Admission(
            os.sysconf("SC_OPEN_MAX") - settings.reserve_fds,
            reserve=settings.reserve_fds,
            refuses=settings.overflow == "refuse",
            per_worker=settings.worker_connections,
        )
        self._listening = accepting(
            admission=admission, accepted=self._row.accepted, gauge=self._row.accepting
        )
        self._listening.elsewhere = self._elsewhere
        self._listening.fairness = Fairness(
            start.scoreboard.glance, start.fork.row, settings.stall_after
        )
        self._topics = Hub(
            settings.topics,
            serial=start.fork.serial,
            node=start.load.node,
            message_bytes=settings.limits.message_bytes,
        )
        set_hub(self._topics)
        self._joining = Joining(self._topics, self._post, told)
        self._within = within
        self._engine: Engine | None = None
        self._collecting: Collecting | None = None
        self._log = logs.get()
        self._order: Drain | None = None
        self._ordered = math.inf
        self._status = 0

    # What subclasses do on their loop.

    def _stop_starting(self) -> None:
        """The worker is to end before it is ready."""
        raise NotImplementedError

    def _begin_to_let_go(self, order: Drain, engine: Engine) -> None:
        """Run `_let_go` in a task, in the place of an earlier one."""
        raise NotImplementedError

    def _is_drained(self) -> None:
        """No connection is left."""
        raise NotImplementedError

    # Start.

    def _hooks(self) -> AbstractContextManager[None]:
        """What gunicorn's configuration has to do around a worker's life."""
        start = self._start
        return gunicorn_hooks.called(
            self._settings.gunicorn_config, start.fork.serial, start.app_dir
        )

    def _listen_to_own(self) -> None:
        for address, descriptor in self._start.listeners.items():
            self._listening.add((self._start.fork.slot, address), descriptor)

    def _make_engine(self, app: Application, loop: Loop | None = None) -> Engine:
        settings = self._settings
        self._engine = Engine(
            app,
            limits=settings.limits,
            heartbeat=settings.heartbeat,
            row=self._row,
            accepting=self._listening,
            serial=self._start.fork.serial,
            keep_headers=None if settings.keep_headers == "all" else settings.keep_headers,
            topics=self._topics,
            trusted=TrustedProxies(settings.trusted_proxies, settings.proxy_headers),
            loop=loop,
        )
        return self._engine

    def _become_ready(self, began: float, engine: Engine) -> None:
        """Accept and say so; or end, if that was ordered meanwhile."""
        if self._order is not None:
            self._drain(self._order)
            return
        self._collecting = Collecting()
        self._row.heartbeat(time.monotonic_ns(), 0)
        self._switch(on=True)
        self._post(Ready(time.monotonic() - began, engine.is_resumable, VERSIONS))

    @property
    def _pause(self) -> float:
        """Seconds between two heartbeats."""
        return min(_HEARTBEAT, self._settings.stall_after / 4)

    def _beats(self, lag: float) -> None:
        """Say that the loop turns, and by how many seconds it is late."""
        # Whoever sees the heartbeat sees the traffic until then, too.
        if self._engine is not None:
            self._engine.flush()
        self._row.heartbeat(time.monotonic_ns(), int(lag * 1e9))
        # Some links are among what the reserve is for.
        links = self._topics.bus.links - self._settings.reserve_fds // 2
        self._listening.leave(max(0, links))
        self._look_for_mates()
        if self._collecting is not None:
            self._collecting.look(self._listening.open, self._listening.closed)

    # The limit, which is one for all workers of the slot.

    def _look_for_mates(self) -> None:
        before = self._mates
        if self._listening.is_shared or before:
            self._mates = self._start.scoreboard.mates(self._start.fork.row)
            # The last of them may have gone with all that it had.
            if self._mates or before:
                self._listening.look()

    def _elsewhere(self) -> int:
        """How many sockets the slot's other workers have."""
        views = map(self._start.scoreboard.read, self._mates)
        return sum(view.counts.open for view in views if view is not None)

    # What the master says.

    def _leave(self, reason: str) -> None:
        """Drain although the master did not ask for it."""
        if self._order is None:
            self._post(Leaving(reason))
            self._drain(self._own_order())

    def _lost_message(self, error: Exception) -> None:
        # It may have been listeners that we were to serve: the slot needs another worker.
        self._log.error("message_lost", error=str(error))
        self._leave("a message of the master was lost")

    def _is_orphaned(self) -> None:
        """The master is gone."""
        self._listening.close_listeners()
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
                    self._look_for_mates()
                    self._switch(on=on)
            case Admit() as order:
                self._listening.limit(order.connections, order.handshakes_per_second)
                self._row.admits(order.connections)
                self._look_for_mates()
            case Listen() | Unlisten() as order:
                self._listen(order, received.descriptors)
            case Drain() as order:
                self._drain(order)
            case HandOver() | TakeOver() | Recall() as order:
                self._move(order, received.descriptors)
            case Inspect() | CloseConnections() as question:
                if self._engine is not None:
                    self._engine.ask(question, self._post)
            case other:
                self._log.error("unexpected_message", kind=type(other).__name__)

    def _listen(self, order: Listen | Unlisten, descriptors: list[int]) -> None:
        """Accept from more listeners, or from fewer."""
        if isinstance(order, Unlisten):
            for address in order.addresses:
                self._listening.remove((order.slot, address))
            return
        for address, descriptor in zip(order.addresses, descriptors, strict=True):
            if self._order is None:
                self._listening.add((order.slot, address), descriptor)
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
        self._listening.switch(on=on)
        if self._engine is not None:
            self._engine.accept(on=on)

    # The end.

    def _own_order(self) -> Drain:
        settings = self._settings
        return Drain(
            _SERVICE_RESTART, "service restart", settings.drain_window, settings.drain_timeout
        )

    def _drain(self, order: Drain) -> None:
        """Begin to drain; a later order replaces an earlier one."""
        if order is not self._order:
            self._order, self._ordered = order, time.monotonic()
        if order.final and self._engine is not None:
            self._listening.empty_queues()
        self._listening.close_listeners()
        if self._engine is None:
            # Still starting up, with nobody to say goodbye to.
            self._stop_starting()
            return
        self._engine.accept(on=False)
        # What is not acknowledged is the other worker's, which knows better what to do with it.
        self._engine.take_no_more()
        self._begin_to_let_go(order, self._engine)

    async def _let_go(self, order: Drain, engine: Engine) -> None:
        await let_go(order, engine, within=self._within, cut_off=partial(self._abort, engine))
        self._is_drained()

    async def _bring_out(self) -> None:
        """The last thing: have others get what was published here."""
        if self._engine is not None:
            order = self._order or FAREWELL
            # Later it is killed, and nobody knows what was lost.
            await self._joining.leave(farewell(order, self._ordered, time.monotonic()))
            self._engine.flush()

    def _abort(self, engine: Engine) -> None:
        """Cut off what is left at the deadline."""
        engine.abort_all(ClosedReason.DEADLINE)

    def _failed(self, error: Exception) -> None:
        """The application's start-up or shutdown failed."""
        if isinstance(error, ApplicationError):
            self._fail(error.message, error.traceback)
        else:
            self._fail(f"its lifespan raised {summary(error)}", own_traceback(error))

    def _fail(self, message: str, traceback: str) -> None:
        self._status = 1
        self._log.error("application_failed", error=message, exception=traceback or None)
        self._post(Failed(message, traceback))

    def _post(self, message: Message) -> None:
        try:
            self._channel.post(message)
        except ChannelFull:
            self._log.error("master_does_not_read", message=type(message).__name__)
