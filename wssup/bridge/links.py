"""One connection to one server: commands in batches, each with a deadline, and what it pushes.

The connection is coredis' (RESP3, so one connection both subscribes and publishes).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from coredis.connection import TCPConnection, TCPLocation

from wssup.bridge.faults import Away, away
from wssup.scoreboard import BridgeFault

__all__ = ["Command", "Link", "Place"]

#: Seconds that a server may take for an answer, and for a whole connect.
DEADLINE: Final = 5.0
#: Bytes per second that the way to a server carries at least: a long message takes its time.
_SLOWEST: Final = 1 << 20
#: Seconds between two looks at a server that is asked nothing.
_IDLE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and how it is spoken to.

    :ivar options: of coredis' connections: user, password, database, TLS context.
    """

    host: str
    port: int
    options: dict[str, Any] = field(repr=False)

    def at(self, host: str, port: int) -> Place:
        """Another server that is spoken to the same way."""
        return replace(self, host=host, port=port)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Command:
    """A command with its arguments, as the library's batches take it."""

    __slots__ = ("name", "serialized_arguments")
    #: Answers are wanted as bytes.
    decode: Final = False

    def __init__(self, name: bytes, *arguments: bytes | int) -> None:
        self.name = name
        self.serialized_arguments = arguments

    def __repr__(self) -> str:
        return self.name.decode()


class Link:
    """A connection that stands."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._connection = TCPConnection(
            TCPLocation(place.host, place.port),
            socket_keepalive=True,
            connect_timeout=DEADLINE,
            **place.options,
        )
        self._asked = 0
        self._answered_at = 0.0

    @classmethod
    async def make(cls, place: Place, nursery: trio.Nursery) -> Link:
        """Connect and say who we are; the connection lives in the nursery.

        :raises Away: it cannot be had within the deadline.
        """
        link = cls(place)
        scope = trio.move_on_after(DEADLINE)
        try:
            with scope:
                await nursery.start(link._connection.run)
        except Exception as error:
            link._clear()
            # The library says its own error when it is cancelled.
            if not scope.cancel_called:
                raise away(error) from error
        if scope.cancel_called:
            link._clear()
            raise link._silent(DEADLINE)
        return link

    def _clear(self) -> None:
        """Close what the library leaves to the collector, with a warning, if it cannot connect."""
        for part in vars(self._connection).values():
            if isinstance(part, MemoryObjectSendStream | MemoryObjectReceiveStream):
                part.close()

    async def call(self, commands: Sequence[Command], size: int = 0) -> list[Any]:
        """Say commands in one go; returns the answers, errors among them.

        :param size: the bytes of it all, if they are many.
        :raises Away: the server is gone, or did not answer in time.
        """
        patience = DEADLINE + size / _SLOWEST
        self._asked += 1
        answers: list[Any] = []
        scope = trio.move_on_after(patience)
        try:
            with scope:
                answers = await self._connection.create_request_batch(cast("Any", commands))
        except Exception as error:
            if not scope.cancel_called:
                raise away(error) from error
        finally:
            self._asked -= 1
        if scope.cancel_called:
            raise self._silent(patience)
        self._answered_at = time.monotonic()
        if answers and not self._connection.usable and isinstance(answers[-1], Exception):
            raise away(answers[-1])
        return answers

    def tell(self, name: bytes, *arguments: bytes) -> None:
        """Say a command that is answered by what the server pushes.

        :raises Away: the server is gone.
        """
        try:
            self._connection.send_command(name, *arguments)
        except Exception as error:
            raise away(error) from error

    async def pushes(self) -> AsyncGenerator[list[Any], None]:
        """What the server says of its own accord.

        :raises Away: the server is gone.
        """
        try:
            async with aclosing(self._connection.push_messages) as messages:
                async for message in messages:
                    yield message
        except Exception as error:
            raise away(error) from error

    async def watch(self) -> None:
        """See that the server answers, also when there is nothing to say to it.

        :raises Away: it does not.
        """
        while True:
            await trio.sleep(_IDLE)
            if not self._asked and time.monotonic() - self._answered_at >= _IDLE / 2:
                await self.ping()

    async def ping(self) -> None:
        """Ask for a sign of life.

        :raises Away: there is none, or the server says that something before it was refused.
        """
        (answer,) = await self.call([Command(b"PING")])
        if isinstance(answer, Exception):
            raise away(answer) from answer

    def _silent(self, seconds: float) -> Away:
        return Away(BridgeFault.TIMEOUT, f"{self.place} has not answered for {seconds:.3g} s")
