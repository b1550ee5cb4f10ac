"""The end of an instance: every connection is closed; workers go, then the bridge and zygotes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from wssup import logs
from wssup.messages import Drain
from wssup.scoreboard import InstanceState
from wssup.supervisor.onward import SERVICE_RESTART

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["Ending"]

#: RFC 6455 section 7.4.1: the service ends.
_GOING_AWAY = 1001
#: Seconds for which connections are shed, and workers may live on, in a fast stop.
_FAST_WINDOW = 0.0
_FAST_TIMEOUT = 2.0
#: Seconds during which the listeners take no new handshakes any more before they are closed.
CLOSING = 1.0
#: Seconds that the bridge gets to end at a stop, and then each zygote.
_END_GRACE = 5.0
#: Seconds for the last lines to clients of the control socket.
_FAREWELL = 1.0


class Ending:
    """How an instance ends.

    :ivar status: the exit status it will have.
    :ivar ends_by: when that is, at the latest (``trio.current_time()``).
    :ivar finished: nothing is left of it but the master.
    """

    def __init__(self, master: Master) -> None:
        self.status = 0
        self.ends_by = 0.0
        self.finished = trio.Event()
        self._master = master
        self._grace = 0.0
        self._log = logs.get()

    def stop(self, *, fast: bool) -> float:
        """Close every connection with 1001 and end; returns the deadline in seconds."""
        settings = self._master.settings
        if fast:
            order = Drain(
                _GOING_AWAY, "server stops", _FAST_WINDOW, _FAST_TIMEOUT, final=self._final
            )
        else:
            order = Drain(
                _GOING_AWAY,
                "server stops",
                settings.drain_window,
                settings.drain_timeout,
                final=self._final,
            )
        self._begin(order, InstanceState.STOPPING, how="fast" if fast else "graceful")
        return order.timeout

    def drain(self, over: float) -> float:
        """Shed the connections over ``over`` seconds with 1012, then end; returns the deadline in
        seconds.
        """
        settings = self._master.settings
        timeout = over + max(1.0, settings.drain_timeout - settings.drain_window)
        order = Drain(SERVICE_RESTART, "server drains", over, timeout, final=self._final)
        self._begin(order, InstanceState.DRAINING, how="drain")
        return timeout

    def fail(self, reason: str, traceback: str) -> None:
        """End because it cannot be started."""
        self._log.error("cannot_start", reason=reason, exception=traceback or None)
        self.status = 1
        self._begin(
            Drain(_GOING_AWAY, "server stops", _FAST_WINDOW, _FAST_TIMEOUT, final=self._final),
            InstanceState.STOPPING,
            how="failed",
        )

    @property
    def _final(self) -> bool:
        """Whether nobody comes after us who would serve what waits in the queues."""
        return not self._master.listeners.held

    def _begin(self, order: Drain, state: InstanceState, *, how: str) -> None:
        master = self._master
        first = not master.fleet.stopping
        master.state = state
        master.reporting.stopping()
        active = master.scoreboard.snapshot().total.active
        self._log.info("stopping", how=how, seconds=order.timeout, active=active)
        master.give_up()
        self._grace = order.timeout
        self.ends_by = trio.current_time() + order.timeout + 2 * _END_GRACE
        if first:
            # Before the workers know: what they find in the queues then is all that will ever be
            # there, however long we are put aside.
            for address in master.listeners.addresses.values():
                if not address.held:
                    address.refuse_new()
            master.nursery.start_soon(self._close_listeners)
            master.nursery.start_soon(self._finish)
        master.fleet.stop(order)

    async def _close_listeners(self) -> None:
        """Once nobody accepts any more, new clients are to be refused, not ignored; but where the
        service manager holds the listeners they wait in the queue for the next master.
        """
        # The workers empty the queues before they close their copies.
        await trio.sleep(CLOSING)
        self._master.listeners.close_all()

    async def _finish(self) -> None:
        fleet = self._master.fleet
        while fleet.workers:
            await fleet.wait_changed()
        await self._master.bridging.end(min(_END_GRACE, self._grace))
        await self._master.observing.end()
        for generation in {fleet.serving, fleet.next} - {None}:
            assert generation is not None
            await generation.end(min(_END_GRACE, self._grace))
        self._master.lifecycle.end()
        await self._master.control.settle(_FAREWELL)
        self.finished.set()
