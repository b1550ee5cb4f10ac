"""How a worker joins the bus, and what the master has it publish."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from wssup import logs
from wssup.channel import Received
from wssup.messages import Message, Peers, Publish, PublishDone
from wssup.server.loops import Told
from wssup.server.topics.hub import Hub

__all__ = ["Joining", "ends"]

#: Seconds that the master may take to say who else there is.
_GRACE: Final = 2.0
#: Seconds for what the others have to say. The bus itself gives up earlier on one that is stopped.
_PATIENCE: Final = 15.0
#: Seconds in which the others are to read some of what was published last.
_FAREWELL: Final = 2.0


class Joining:
    """A worker's place on the bus.

    :param post: tells the master.
    :param told: the loop's.
    """

    def __init__(self, hub: Hub, post: Callable[[Message], None], told: Told) -> None:
        self._hub = hub
        self._post = post
        self._told = told
        self._is_linked = False
        self._linked: Callable[[], None] = lambda: None

    def hear(self, received: Received) -> bool:
        """A message of the master; whether it was about this."""
        match received.message:
            case Peers(serials=serials, more=more):
                for serial, end in zip(serials, ends(received.descriptors), strict=True):
                    self._hub.bus.link(serial, end)
                if not more:
                    self._is_linked = True
                    self._linked()
            case Publish() as order:
                self._publish(order)
            case _:
                return False
        return True

    def _publish(self, order: Publish) -> None:
        error = ""
        try:
            self._hub.publish(order.topic, order.data.decode() if order.text else order.data)
        except (TypeError, ValueError) as problem:
            error = str(problem)
        subscribers = self._hub.bus.subscribers(order.topic)
        self._post(PublishDone(order.question, subscribers, error))

    async def linked(self) -> None:
        """Wait until the other workers are known: what is published before that would not reach
        their subscribers.
        """
        if not await self._told(self._when_linked, _GRACE):
            logs.get().warning("bus_not_linked", hint="the master did not say who else there is")

    def _when_linked(self, tell: Callable[[], None]) -> None:
        self._linked = tell
        if self._is_linked:
            tell()

    async def complete(self) -> None:
        """Wait until the other workers have said what they are interested in, and sent their
        history: else a client that comes back would be told that it cannot have what it missed.
        """
        if not await self._told(self._hub.bus.when_complete, _PATIENCE):
            logs.get().warning("bus_incomplete", hint="a worker does not answer; see its log")

    async def leave(self, most: float) -> None:
        """Wait until what was published here is on its way to the other workers; not for long for
        one that does not read. What is left then is lost with this worker, and counted.

        :param most: seconds.
        """
        bus = self._hub.bus
        until = time.monotonic() + most
        left = bus.unsent
        while not await self._told(
            self._hub.when_sent, min(_FAREWELL, max(0.0, until - time.monotonic()))
        ):
            if bus.unsent >= left or time.monotonic() >= until:
                break
            left = bus.unsent
        bus.let_out()
        if lost := bus.unsent:
            self._hub.tally.lost_out(lost)
            logs.get().warning(
                "bus_not_brought_out",
                messages=lost,
                hint="other workers do not keep up; what waits for them ends with this one",
            )


def ends(descriptors: list[int]) -> list[socket.socket]:
    """Ends of stream pairs that the master made."""
    return [
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptor)
        for descriptor in descriptors
    ]
