"""Connections come: from an accepted socket to a WebSocket, or to an answer why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from wssup.scoreboard import HandshakeFailure, HttpEnd, Label, RefusedReason
from wssup.server import handshake, sockets
from wssup.server.admission import retry_after
from wssup.server.connection import Connection, State
from wssup.server.forwarded import TrustedProxies
from wssup.server.frames import Unfinished
from wssup.server.request import Request

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["HttpSocket", "Opening"]

#: Seconds at most that a client has to read why it is turned away: meanwhile it takes the place of
#: another one.
_REFUSAL = 2.0


class HttpSocket(NamedTuple):
    """A socket on which HTTP is spoken. It is open, and counted among its address's, until
    `Opening.http_ended`.

    :ivar fd: its descriptor, which does not block.
    :ivar peer: the packed address of the other end.
    :ivar number: what would be the WebSocket's ``id``.
    :ivar data: what was received and is not answered: a head, and what came behind it.
    :ivar head: the same head, parsed.
    """

    fd: int
    peer: bytes
    number: int
    data: bytes
    head: handshake.Head | None = None


class Opening:
    """The handshakes of a worker.

    :param serial: the worker's number, from which connections get theirs.
    :param keep_headers: names of request headers that are kept; ``None`` for all.
    :ivar accepting: what health checks are told.
    :ivar trusted: proxies that are believed where a client comes from.
    :ivar hurry: the worker ends now: nobody is let in any more.
    :ivar turned_away: called for each connection of `turn_away` before it is closed.
    :ivar http: called with each request that asks for no WebSocket; owns the descriptor until it
        calls one of `from_http`, `leave_http` and `http_ended`. ``None``: the answers for those who
        have gone astray.
    """

    def __init__(self, pump: Pump, *, serial: int, keep_headers: Collection[str] | None) -> None:
        self._pump = pump
        self._limits = pump.limits
        self._any_origin = "*" in pump.limits.origins
        self._keep_headers = keep_headers
        # 21 bits of workers and 32 of connections are a whole number in JavaScript, too.
        self._number = serial << 32
        self._per_address: dict[bytes, int] = {}
        self._refusals: set[Connection] = set()
        self.trusted = TrustedProxies()
        self.accepting = False
        self.hurry = False
        self.http: Callable[[HttpSocket], None] | None = None
        self.turned_away: Callable[[], None] = lambda: None

    def adopt(self, fd: int, address: object) -> None:
        """Take over an accepted socket, which does not block.

        :param address: as ``socket.accept()`` gives it.
        """
        pump = self._pump
        connection, now = self._take(fd, address)
        count = self._count(connection.peer)
        if self.hurry:
            pump.closing.lose(connection, HandshakeFailure.DRAINING)
            return
        try:
            pump.watch(connection)
        except OSError:  # no memory for one more, or its limit is reached (epoll(7))
            pump.closing.lose(connection, RefusedReason.DESCRIPTORS)
            return
        pump.schedule(connection, now + self._limits.handshake_timeout)
        if count > self._limits.connections_per_address > 0:
            self._refuse_one_more(connection)

    def turn_away(self, fd: int, address: object, reason: RefusedReason) -> None:
        """Take over an accepted socket as `adopt` does, to say that there is no room for it."""
        pump = self._pump
        connection, now = self._take(fd, address)
        self._refusals.add(connection)
        seconds = retry_after(reason, pump.random.random())
        limit = "connections at a time" if reason is not RefusedReason.RATE else "handshakes"
        answer = handshake.text_response(
            503, f"too many {limit}, come again later", [(b"Retry-After", b"%d" % seconds)]
        )
        try:
            self.respond(connection, answer, reason)
        except OSError:  # as in adopt()
            pump.closing.lose(connection)
            return
        pump.schedule(connection, now + _REFUSAL, sooner=True)

    def _take(self, fd: int, address: object) -> tuple[Connection, float]:
        """A new connection, and the time."""
        pump = self._pump
        self._number += 1
        now = time.monotonic()
        peer = sockets.packed(address)
        connection = pump.connections[fd] = Connection(pump, fd, peer, self._number, now)
        return connection, now

    def _refuse_one_more(self, connection: Connection) -> None:
        answer = handshake.text_response(429, "too many connections")
        self.respond(connection, answer, RefusedReason.ADDRESS)

    def _count(self, peer: bytes) -> int:
        """Count a connection of an address, if that is limited; how many there are then. A proxy's
        are those of many clients, and are counted when these are known.
        """
        if not self._limits.connections_per_address or not peer or self.trusted.trusts(peer):
            return 0
        # Behind the address stands the port, which tells connections apart, not clients.
        count = self._per_address[peer[:-2]] = self._per_address.get(peer[:-2], 0) + 1
        return count

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection in self._refusals:
            self._refusals.discard(connection)
            self.turned_away()
        else:
            self._uncount(connection.peer)

    def _uncount(self, peer: bytes) -> None:
        address = peer[:-2]
        if address in self._per_address:
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]

    def read_head(self, connection: Connection) -> None:
        """Read of a connection that has not said what it wants, or not to the end."""
        pump = self._pump
        if connection.unfinished is not None:
            # It came behind an HTTP request that is answered now.
            connection.head, connection.unfinished = connection.unfinished.rest, None
            self._look(connection, 0)
            return
        size = sockets.read(connection.fd, pump.buffers)
        if size == 0:
            pump.closing.lose(connection)
        if size <= 0:
            return
        if not connection.head and connection.status is State.KEPT:
            pump.schedule(connection, time.monotonic() + self._limits.handshake_timeout)
        seen = max(0, len(connection.head) - len(handshake.HEAD_END) + 1)
        connection.head += pump.view[:size]
        self._look(connection, seen)

    def _look(self, connection: Connection, seen: int) -> None:
        """Whether the head is complete.

        :param seen: where its end cannot begin before.
        """
        end = connection.head.find(handshake.HEAD_END, seen)
        length = end + len(handshake.HEAD_END) if end >= 0 else len(connection.head)
        if length > self._limits.header_bytes:
            self._refuse(connection, handshake.BadRequestError("the head is too long", 431))
        elif end >= 0:
            rest = connection.head[length:]
            connection.head = connection.head[:length]
            if rest:
                connection.unfinished = Unfinished(rest)
            self._take_request(connection)
        elif not handshake.could_be_head(connection.head):
            self._refuse(connection, handshake.BadRequestError("not an HTTP request"))
        elif connection.head.count(b"\n") != connection.head.count(b"\r\n"):
            # Its end might never be found (RFC 9112 section 2.2).
            self._refuse(connection, handshake.BadRequestError("a line ends without CR"))

    def _take_request(self, connection: Connection) -> None:
        """The head is there."""
        try:
            head = handshake.examine(connection.head, self._limits.headers)
        except handshake.BadRequestError as error:
            self._refuse(connection, error)
            return
        except handshake.PlainHttpError as plain:
            if self.http is not None:
                self.http(self._let_go(connection, plain.head))
                return
            answer = handshake.plain_response(plain.head, accepting=self.accepting)
            self.respond(connection, answer, HandshakeFailure.PLAIN_HTTP)
            return
        if not (
            self._any_origin
            or handshake.is_origin_allowed(head.get(b"origin"), self._limits.origins)
        ):
            answer = handshake.text_response(403, "this origin may not connect")
            self.respond(connection, answer, RefusedReason.ORIGIN)
            return
        client = self.trusted.client(connection.peer, head.headers)
        if client is not None:
            connection.peer, connection.secure = client
            if self._count(client.peer) > self._limits.connections_per_address > 0:
                self._refuse_one_more(connection)
                return
        connection.status = State.PENDING
        connection.tick = 0
        self._pump.style.requested(Request(connection, head))

    # HTTP.

    def _let_go(self, connection: Connection, head: handshake.Head) -> HttpSocket:
        """Give a connection's descriptor away; its object is dead from now on."""
        pump = self._pump
        rest = connection.unfinished.rest if connection.unfinished is not None else b""
        pump.unwatch(connection)
        fd, connection.fd = connection.fd, -1
        del pump.connections[fd]
        connection.status = State.ENDED
        connection.unfinished = None
        return HttpSocket(fd, connection.peer, connection.id, connection.head + rest, head)

    def from_http(self, socket: HttpSocket) -> None:
        """A request was answered; take the socket back for the next one, of which ``data`` may be
        there: more HTTP, or a WebSocket's handshake.
        """
        pump = self._pump
        now = time.monotonic()
        connection = self._taken(socket, State.KEPT, now)
        draining = pump.closing.leave is not None and not socket.data
        if self.hurry or draining:
            pump.closing.lose(connection)
            return
        try:
            pump.watch(connection)
        except OSError:  # as in adopt()
            pump.closing.lose(connection)
            return
        if socket.data:
            # Looked at in a turn, as one of many.
            connection.unfinished = Unfinished(socket.data)
            pump.schedule(connection, now + self._limits.handshake_timeout)
            pump.again(connection)
        else:
            pump.schedule(connection, now + self._limits.keep_alive_timeout)

    def leave_http(self, socket: HttpSocket) -> None:
        """Say no more on a socket, wait until its client has nothing more to say, and close it."""
        connection = self._taken(socket, State.FLUSHING, time.monotonic())
        connection.decide(HttpEnd.CLOSED)
        try:
            self._pump.closing.linger(connection)
        except OSError:  # as in adopt()
            self._pump.closing.lose(connection)

    def http_ended(self, peer: bytes) -> None:
        """A socket that had been given away is closed."""
        self._uncount(peer)
        self._pump.row.http_closed()
        self._pump.closing.closed_one()

    def _taken(self, socket: HttpSocket, status: State, now: float) -> Connection:
        pump = self._pump
        connection = Connection(pump, socket.fd, socket.peer, socket.number, now)
        connection.status = status
        pump.connections[socket.fd] = connection
        return connection

    # WebSockets.

    def upgrade(self, connection: Connection, answer: bytes) -> None:
        """Make a WebSocket of a connection whose request was accepted."""
        pump = self._pump
        connection.status = State.OPEN
        connection.opened = connection.heard = time.monotonic()
        pump.row.upgraded()
        if self._keep_headers is not None:
            connection.head = handshake.trimmed(connection.head, self._keep_headers)
        if connection.unfinished is not None:
            # Sent before the answer to the handshake, which is early but not forbidden.
            connection.unfinished.more = True
            pump.again(connection)
        pump.watch(connection)
        pump.transmit(connection, answer)
        pump.heartbeat.begin(connection, connection.opened)
        self._is_open(connection)

    def take_over(self, connection: Connection, now: float) -> None:
        """Go on with a WebSocket that was made by another worker."""
        pump = self._pump
        pump.connections[connection.fd] = connection
        self._count(connection.peer)
        try:
            if connection.unfinished is not None and connection.unfinished.more:
                pump.again(connection)
            if connection.outbox is not None:
                pump.must_flush(connection)
            else:
                pump.watch(connection)
        except OSError:  # as in adopt()
            pump.closing.lose(connection)
            return
        pump.heartbeat.begin(connection, now)
        self._is_open(connection)

    def _is_open(self, connection: Connection) -> None:
        self._pump.closing.is_open(connection)
        self._pump.handoff.opened(connection)

    def _refuse(self, connection: Connection, error: handshake.BadRequestError) -> None:
        """Tell a client what is wrong with its request."""
        answer = handshake.text_response(error.status, str(error), error.headers)
        self.respond(connection, answer, HandshakeFailure.BAD_REQUEST)

    def respond(self, connection: Connection, answer: bytes, verdict: Label) -> None:
        """Give a request its last answer, and end."""
        connection.decide(verdict)
        connection.unfinished = None
        connection.status = State.FLUSHING
        self._pump.transmit(connection, answer)
        self._pump.closing.linger(connection)
