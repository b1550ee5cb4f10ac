"""A WebSocket connection, as the application has it: trio-websocket's interface and a little more.

What a connection keeps is what an idle one costs, so there are slots, and nothing stands in them
that could be had otherwise. The methods only mark what is to happen; `Pump` does it.

Two rules make cancellation harmless. A message is handed over after the last point where a receive
can be cancelled: either the task is woken with it, and cannot be cancelled any more, or it is taken
from the queue between a cancel point and a schedule point. And a message to be sent is either whole
in the outbound queue or not there at all.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Self

import trio_websocket
from trio_websocket import CloseReason, ConnectionClosed

from wssup.scoreboard import Label
from wssup.server.frames import BINARY, CONTROL_BYTES, PING, PONG, close_payload
from wssup.server.subscriber import Subscriber
from wssup.server.wire import iterating, receiving, sending

if TYPE_CHECKING:
    from wssup.server.closing import Leave
    from wssup.server.loops import Scope
    from wssup.server.pump import Pump

__all__ = ["Connection", "State"]


class State(IntEnum):
    """What a connection is doing."""

    HANDSHAKE = 0  # the request head is not complete
    PENDING = 1  # the application has the request and has not answered
    OPEN = 2
    CLOSING = 3  # our close frame is sent; the peer's is awaited
    LEAVING = 4  # both close frames are said; ends when ours is written
    FLUSHING = 5  # our last words are said; lingers when they are written
    LINGERING = 6  # what still comes is thrown away until the peer ends
    ENDED = 7
    HELD = 8  # it moves to another worker: not read from, and not closed
    KEPT = 9  # an HTTP request was served, and the next one is not complete


_OPEN: Final = State.OPEN


class Connection(Subscriber):
    """A WebSocket that a client opened.

    :ivar closed: why the connection was or is being closed, a ``trio_websocket.CloseReason``;
        ``None`` while it is open. Read only.
    :ivar subprotocol: the negotiated one, or ``None``. Read only.
    :ivar id: a number that no other connection has while the instance lives.
    :ivar resumed: whether it was opened in another worker and came from there. Read only.
    """

    __slots__ = (
        "__weakref__",
        "by_client",
        "closers",
        "deadline",
        "id",
        "leave",
        "mask",
        "opened",
        "paused",
        "ping_sent",
        "pings",
        "resumed",
        "scope",
        "senders",
        "stuck",
        "subprotocol",
        "tick",
        "untaken",
        "verdict",
        "working",
    )

    wire: Pump

    def __init__(self, pump: Pump, fd: int, peer: bytes, number: int, now: float) -> None:
        self.wire = pump
        self.fd = fd
        self.peer = peer
        #: A trusted proxy says that the client uses TLS.
        self.secure = False
        self.id = number
        self.unfinished = None
        self.outbox = None
        self.out_bytes = 0
        self.status: State = State.HANDSHAKE
        self.head = b""
        self.closed: CloseReason | None = None
        self.subprotocol: str | None = None
        #: The epoll mask it is registered with; 0: it is not.
        self.mask = 0
        #: Seconds of time.monotonic(): connected, then upgraded; and when the peer last said
        #: something.
        self.opened = self.heard = now
        #: The tick of its entry in the wheel, and the close that an order has set for it.
        self.tick = 0
        self.leave: tuple[float, Leave] | None = None
        #: When the client last took something of what waits for it, and what the kernel held then.
        self.stuck = 0.0
        self.untaken = 0
        #: When the ping that the peer has not answered was sent; 0: there is none.
        self.ping_sent = 0.0
        #: How it ends, decided by what comes first.
        self.verdict: Label | None = None
        self.by_client = False
        #: Not read from: the inbound queue is full, or the outbound one.
        self.paused = False
        #: Messages that nobody has taken yet, and tasks that wait.
        self.inbox: list[Any] | None = None
        self.working = False
        self.receiver: Any = None
        #: The loop's, for the task that waits; refers back to the connection.
        self.ticket: Any = None
        self.more_receivers: list[Any] | None = None
        self.senders: list[tuple[Any, str | bytes]] | None = None
        self.pings: dict[bytes, Any] | None = None
        self.closers: list[Any] | None = None
        self._state: dict[str, Any] | None = None
        self.joined = None
        self.resumed = False
        #: What cancels its handler so that it can move.
        self.scope: Scope | None = None

    def __repr__(self) -> str:
        return f"<wssup.Connection {self.id} {self.status.name.lower()}>"

    def __str__(self) -> str:
        return f"server-{self.id}"

    def decide(self, verdict: Label) -> None:
        """Say how the connection ends; what was said first holds."""
        if self.verdict is None:
            self.verdict = verdict

    # Receiving.

    @receiving
    async def get_message(self) -> str | bytes:
        """The next message: ``str`` for text, ``bytes`` for binary.

        What came before the client closed can still be had after it.

        :raises ConnectionClosed: there is none, and none will come.
        :raises ConnectionMoved: it lives on in another worker; so of all that follow.
        """
        pump = self.wire
        moves = pump.watchful and pump.handoff.receives(self)
        if self.inbox and not moves:
            await pump.cancel_point()
            if self.inbox:
                message = self.take()
                await pump.schedule_point()
                return message
        if self.closed is not None:
            await pump.cancel_point()
            await pump.schedule_point()
            raise self.gone()
        if self.receiver is None:
            self.receiver = pump.waiter()
            return await pump.rest(self)  # type: ignore[no-any-return]
        waiter = pump.waiter()
        self.more_receivers = self.more_receivers or []
        self.more_receivers.append(waiter)
        forget = _forgetting(pump.loop.forgotten, self, waiter)
        return await pump.park(waiter, forget, self)  # type: ignore[no-any-return]

    def take(self) -> str | bytes:
        """The next message of those that nobody has taken yet: there is one."""
        assert self.inbox is not None
        message: str | bytes = self.inbox.pop(0)
        if not self.inbox and not self.working:
            self.inbox = None
        if self.paused:
            self.wire.pressure.has_room(self)
        return message

    def forget_receiver(self, told: object) -> Any:
        """The first receive in line is cancelled. (asyncio tells which: it may be too late.)"""
        if callable(told) or told is self.receiver:
            more = self.more_receivers
            self.receiver = more.pop(0) if more else None
        return self.wire.loop.forgotten

    def put_back(self, message: str | bytes) -> None:
        """A message that its task could not take any more (asyncio): it is the next one again."""
        if not self.wire.style.hand_over(self, message):
            self.inbox = [message, *(self.inbox or ())]

    def __aiter__(self) -> Self:
        """Messages until the connection is closed. (No generator: a loop may be left early.)"""
        return self

    @iterating(ConnectionClosed)
    async def __anext__(self) -> str | bytes:
        try:
            return await self.get_message()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    # Sending.

    def send_nowait(self, message: str | bytes) -> bool:
        """Send a message without waiting: ``str`` as text, ``bytes`` as binary.

        :returns: whether it is on its way. If not, the connection is closed, or its outbound queue
            is full (with ``slow_client = "close"`` that closes it).
        :raises ValueError: it is neither ``str`` nor bytes.
        """
        if self.closed is not None:
            return False
        if self.outbox is not None and self.wire.pressure.is_full(self):
            return False
        try:
            if type(message) is str:
                waits = self.send_text(message)
            elif type(message) is bytes:
                waits = self.send(BINARY, message)
            else:
                waits = self._send_other(message)
        except OSError:
            self.wire.closing.lose(self)
            return False
        if waits:
            self.wire.must_flush(self)
        return True

    def _send_other(self, message: object) -> bool:
        if isinstance(message, str):
            return self.send_text(message)
        if isinstance(message, bytes | bytearray | memoryview):
            return self.send(BINARY, bytes(message))
        raise ValueError("message must be str or bytes")

    @sending
    async def send_message(self, message: str | bytes) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary.

        Waits while more than ``limits.outbound_bytes`` wait to be sent. A call that is cancelled
        has sent nothing.

        :raises ConnectionClosed: the connection is closed or being closed.
        :raises ValueError: it is neither ``str`` nor bytes.
        """
        pump = self.wire
        await pump.cancel_point()
        if self.closed is None and self.outbox is None and type(message) is str:
            # The usual case, without a call more than it needs.
            try:
                if self.send_text(message):
                    pump.must_flush(self)
            except OSError:
                pump.closing.lose(self)
                raise self.gone() from None
        elif self.outbox is not None and self.closed is None and pump.pressure.must_wait(self):
            await self._wait_to_send(message)
            return
        elif not self.send_nowait(message):
            raise self.gone()
        await pump.schedule_point()

    async def _wait_to_send(self, message: str | bytes) -> None:
        loop = self.wire.loop
        if not isinstance(message, str | bytes | bytearray | memoryview):
            raise ValueError("message must be str or bytes")  # noqa: TRY004 - as trio-websocket does
        if isinstance(message, str):
            message.encode()  # what cannot be sent is said now, not when its turn comes
        waiter = loop.waiter()
        self.senders = self.senders or []
        entry = (waiter, message)
        self.senders.append(entry)

        def forget(_: object) -> Any:
            if self.senders is not None and entry in self.senders:
                self.senders.remove(entry)
            return loop.forgotten

        await loop.park(waiter, forget)

    async def ping(self, payload: bytes | None = None) -> None:
        """Send a ping and wait for its pong, or for that of a later one.

        :param payload: at most 125 bytes; ``None`` for four random ones.
        :raises ConnectionClosed: the connection is closed, or closes before the pong.
        :raises ValueError: a ping with this payload is on its way already, or it is too long.
        """
        pump = self.wire
        await pump.loop.cancel_point()
        if self.closed is not None:
            raise self.gone()
        if payload is None:
            payload = pump.random.randbytes(4)
        if len(payload) > CONTROL_BYTES:
            raise ValueError(f"a ping's payload has at most {CONTROL_BYTES} bytes")
        pings = self.pings = self.pings if self.pings is not None else {}
        if payload in pings:
            raise ValueError(f"Payload value {payload!r} is already in flight.")
        # Who waits is woken when the connection ends, so nobody waits before the ping is sent.
        pump.send_control(self, PING, payload)
        if self.closed is not None:
            raise self.gone()
        waiter = pings[payload] = pump.loop.waiter()

        def forget(_: object) -> Any:
            pings.pop(payload, None)
            return pump.loop.forgotten

        await pump.loop.park(waiter, forget)

    async def pong(self, payload: bytes | None = None) -> None:
        """Send a pong that nobody asked for (RFC 6455 section 5.5.3).

        :raises ConnectionClosed: the connection is closed.
        :raises ValueError: more than 125 bytes.
        """
        await self.wire.loop.cancel_point()
        if self.closed is not None:
            raise self.gone()
        if payload is not None and len(payload) > CONTROL_BYTES:
            raise ValueError(f"a pong's payload has at most {CONTROL_BYTES} bytes")
        self.wire.send_control(self, PONG, payload or b"")
        await self.wire.loop.schedule_point()

    # Closing.

    def close_nowait(self, code: int = 1000, reason: str | None = None) -> None:
        """Begin to close the connection; nothing happens if it is closed, being closed, or being
        moved to another worker, where it is the application's to close.

        :param code: RFC 6455 section 7.4: 1000, 1001… or 3000 to 4999.
        :raises ValueError: a code that nobody may send.
        """
        close_payload(code, reason)
        if self.closed is None:
            self.wire.closing.close(self, code, reason)

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection and wait until it is, ``limits.close_timeout`` at most. When the
        wait is cancelled the connection is cut off.

        :raises ValueError: a code that nobody may send.
        """
        pump = self.wire
        self.close_nowait(code, reason)
        if self.status is State.ENDED or self.status is State.HELD:
            await pump.loop.cancel_point()
            await pump.loop.schedule_point()
            return
        waiter = pump.loop.waiter()
        self.closers = self.closers or []
        self.closers.append(waiter)

        def forget(_: object) -> Any:
            if self.closers is not None and waiter in self.closers:
                self.closers.remove(waiter)
            pump.closing.lose(self)
            return pump.loop.forgotten

        await pump.loop.park(waiter, forget)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


# trio-websocket's class is an abstract one (trio.abc.AsyncResource), which can be told of others.
trio_websocket.WebSocketConnection.register(Connection)


def _forgetting(forgotten: Any, connection: Connection, waiter: Any) -> Any:
    """How a receive that is not the first in line is forgotten."""

    def forget(_: object) -> Any:
        more = connection.more_receivers
        if more is not None and waiter in more:
            more.remove(waiter)
        elif connection.receiver is waiter:
            connection.receiver = more.pop(0) if more else None
        return forgotten

    return forget
