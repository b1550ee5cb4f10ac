"""Connections on the move: taken off the pump, made into records, and made from records again.

A connection is moved when it is *quiet*: its application is in the middle of nothing. From then on
(`State.HELD`) it is not read from, and closing it does nothing; what is sent to it still goes out
in order until its record is made. After that its object is dead: whoever sends to it is told
`ConnectionMoved`. In the new worker, or in this one if the move fails, a new object lives on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from wssup import logs
from wssup.application import own_traceback, summary
from wssup.scoreboard import ClosedReason, HandoffRefusal
from wssup.server.complaints import SLOW
from wssup.server.connection import Connection, State
from wssup.server.handoff import record as records
from wssup.server.handoff import state
from wssup.server.handoff.carrying import connection_of, record_of
from wssup.server.handoff.fresh import Fresh, News, Waits, place
from wssup.server.handoff.sending import Parcel, Sender
from wssup.server.handoff.sessions import Sessions

if TYPE_CHECKING:
    from wssup.server.pump import Pump

__all__ = ["Moving", "Waits"]

#: RFC 6455's registry: "service restart". The client comes again, to code that works.
_SERVICE_RESTART = 1012
#: Seconds after which an application that does not let go of a connection is not waited for.
_PATIENCE: Final = 1.0


class Moving:
    """What of a worker's connections is on the move.

    :param room: how many sockets this worker may still have.
    :param took_one: called for each socket that came.
    """

    def __init__(
        self, pump: Pump, *, room: Callable[[], int], took_one: Callable[[], None]
    ) -> None:
        self.pump = pump
        self.room = room
        self._took_one = took_one
        self.sessions = Sessions()
        self._wanted: dict[Connection, Sender] = {}
        # By connection the session, since when, and whether its application may have more time.
        self._held: dict[Connection, tuple[Sender, float, bool]] = {}
        #: Those that stay after all, and of which the application has not let go yet.
        self._recalled: set[Connection] = set()
        #: Those that are held, and have lost something that was sent to them meanwhile.
        self._too_slow: set[Connection] = set()
        self._fresh = Fresh(self._watch)
        self._news = News()
        self._log = logs.get()

    def _watch(self) -> None:
        """Have receives tell, as long as one matters: see `receives`."""
        self.pump.watchful = bool(self._wanted or self._held or self._recalled or self._fresh)

    def refuse(self, reason: HandoffRefusal) -> None:
        """Count a connection that does not move."""
        self.pump.row.not_moved(reason)

    # From here.

    def want(self, connection: Connection, sender: Sender, *, patiently: bool) -> None:
        """Move a connection if it is quiet.

        :param patiently: if it is not, move it as soon as it is.
        """
        quiet = self.pump.style.is_quiet(connection)
        if quiet or patiently:
            self._wanted[connection] = sender
            self._watch()
        if quiet:
            self.quiet(connection)

    def wants(self, connection: Connection) -> bool:
        """Whether a connection would move if it were quiet now."""
        sender = self._wanted.get(connection)
        return (
            sender is not None
            and sender.is_open
            and sender.may_take(connection)
            and connection.status is State.OPEN
            # That one will be considered anew, when the application was given it again.
            and connection not in self._recalled
        )

    def has(self, connection: Connection) -> bool:
        """Whether the application lets go of a connection because it moves, or was to."""
        return connection in self._held or connection in self._recalled

    def too_slow(self, connection: Connection) -> None:
        """The queue of a connection that is held was full, and something for it is lost: it is to
        be closed when it is let go of, and does not move.
        """
        self._too_slow.add(connection)

    def wanted_by(self, sender: Sender) -> int:
        """How many connections a session waits for."""
        return sum(1 for wanting in self._wanted.values() if wanting is sender)

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._wanted.pop(connection, None)
        held = self._held.pop(connection, None)
        if held is not None:
            held[0].dropped()
        self._recalled.discard(connection)
        self._too_slow.discard(connection)
        self._fresh.settle(connection, failed=False)
        self._watch()

    def opened(self, connection: Connection) -> None:
        """A connection opened, perhaps while others are handed over; once the application was told
        of it, it is one of them.
        """
        rest = self.sessions.rest
        if rest is not None:
            self.pump.chores.soon(lambda: rest.consider(connection))

    def left_behind(self, connection: Connection, why: HandoffRefusal | None) -> None:
        """A connection is closed so that its worker can end.

        :param why: it could not move, if not because its application is at work.
        """
        if connection in self._wanted:
            self.refuse(HandoffRefusal.BUSY)
        elif why is not None:
            self.refuse(why)

    def quiet(self, connection: Connection) -> None:
        """The application is in the middle of nothing: hold a connection, and have the application
        let go of it.
        """
        if self._hold(connection):
            self.pump.style.suspend(connection)

    def _hold(self, connection: Connection) -> bool:
        wanted = self.wants(connection)
        sender = self._wanted.pop(connection, None)
        if sender is None or not wanted:
            if sender is not None and not sender.may_take(connection):
                sender.consider(connection)  # it has subscribed meanwhile
            self._watch()
            return False
        now = time.monotonic()
        self._held[connection] = (sender, now, True)
        self._watch()
        sender.held()
        self._take_off(connection)
        self.pump.schedule(connection, now + _PATIENCE)
        return True

    def overdue(self, connection: Connection, now: float, lag: float) -> None:
        """The application does not let go of a connection for long (it shields what it does): it is
        read again meanwhile, and given to the application anew when that has let go.

        :param lag: by how many seconds this worker is late itself: its application had no time
            either, and is given it once.
        """
        held = self._held.get(connection)
        if held is not None and held[2] and lag > SLOW:
            self._held[connection] = (*held[:2], False)
            self.pump.schedule(connection, now + _PATIENCE)
            return
        self._held.pop(connection, None)
        if held is not None:
            self._recalled.add(connection)
            held[0].dropped()
        if connection in self._recalled:
            self._put_on(connection)

    def receives(self, connection: Connection) -> bool:
        """The application asks for a message: it can go on with this connection.

        :returns: whether it must not get one, because the connection moves now: what was received
            moves with it.
        """
        self._fresh.settle(connection, failed=False)
        if not self.pump.style.moves_in_receive:
            return False
        if not self._hold(connection) and not self.has(connection):
            return False
        self.pump.style.suspend(connection)
        return connection.status is State.HELD

    def suspended(self, connection: Connection, *, failed: bool = False) -> None:
        """The application has let go of a connection that is held: send it away.

        :param failed: it raised, so its state is not to be trusted.
        """
        if connection in self._recalled:
            self._recalled.discard(connection)
            self._watch()
            self._start_again(connection)
            return
        held = self._held.pop(connection, None)
        self._watch()
        if held is None:
            return
        sender, since, _ = held
        self.pump.topics.hurry(connection)
        if connection.status is not State.HELD:
            sender.dropped()  # its client has left meanwhile
        elif connection in self._too_slow:
            sender.dropped()
            self._put_on(connection)
        elif failed:
            self._leave_behind(connection, sender, HandoffRefusal.SUSPEND_FAILED)
        else:
            self._send_away(connection, sender, since)

    def _send_away(self, connection: Connection, sender: Sender, since: float) -> None:
        try:
            packed = state.pack(connection.state, self.pump.limits.state_bytes)
        except state.StateError as error:
            if self._news.is_news(str(error)):
                self._log.warning("state_cannot_move", error=str(error), connection=connection.id)
            self._leave_behind(connection, sender, HandoffRefusal.STATE)
            return
        if connection.joined is not None and sender.version < records.TOPICS:
            self._leave_behind(connection, sender, HandoffRefusal.VERSION)
            return
        if not sender.may_take(connection):
            # It has subscribed on its way out, and goes with the others that are.
            sender.dropped()
            self._start_again(connection)
            return
        found = record_of(self.pump, connection, packed, since)
        encoded = records.encode(found, sender.version)
        parcel = Parcel(self._release(connection), found, len(encoded), time.monotonic())
        if not sender.pack(parcel, encoded):
            self.take_back(parcel.fd, found)

    def _leave_behind(self, connection: Connection, sender: Sender, reason: HandoffRefusal) -> None:
        """A connection that was held cannot move: its client is asked to come again."""
        sender.dropped()
        self.refuse(reason)
        self._put_on(connection)
        if connection.status is State.OPEN:
            self.pump.closing.close(
                connection, _SERVICE_RESTART, "service restart", ClosedReason.DRAIN
            )

    def _start_again(self, connection: Connection) -> None:
        """The application has let go of a connection that is not to move any more."""
        self.pump.topics.hurry(connection)
        if connection.status in {State.OPEN, State.HELD}:
            self.pump.unwatch(connection)
            found = record_of(self.pump, connection, b"", time.monotonic())
            kept = connection.state
            self._go_on(self._release(connection), found, kept, None)

    def _take_off(self, connection: Connection) -> None:
        """Read no more of a connection, and do not close it."""
        self.pump.unwatch(connection)
        connection.status = State.HELD

    def _put_on(self, connection: Connection) -> None:
        """Take that back."""
        pump = self.pump
        connection.status = State.OPEN
        connection.paused = False
        while connection.inbox and pump.style.hand_over(connection, connection.inbox[0]):
            connection.inbox.pop(0)  # what comes now must not overtake it
        pump.watch(connection)
        pump.heartbeat.begin(connection, time.monotonic())
        if connection in self._too_slow:
            self._too_slow.discard(connection)
            pump.heartbeat.too_slow(connection)
            return
        if connection.unfinished is not None and connection.unfinished.more:
            pump.again(connection)

    def _release(self, connection: Connection) -> int:
        """Give a connection's descriptor away; its object is dead from now on."""
        fd, connection.fd = connection.fd, -1
        del self.pump.connections[fd]
        self.pump.opening.forget(connection)
        connection.drop_queue(keep_first=False)
        connection.unfinished = connection.inbox = None
        self.pump.closing.moved(connection)
        return fd

    def over(self, sender: Sender, error: str) -> None:
        """A session is over: what waits to be moved stays, or moves in another one."""
        self.sessions.over(sender, error)
        for connection in [c for c, wanting in self._wanted.items() if wanting is sender]:
            del self._wanted[connection]
            self.opened(connection)
        # The application has not let go of these yet, and will be given them again when it has.
        for connection in [c for c, (holding, *_) in self._held.items() if holding is sender]:
            del self._held[connection]
            if connection.status is State.HELD:
                self._recalled.add(connection)
        self._watch()
        self.sessions.go_on()
        self.sessions.changed()

    # To here.

    def adopt(
        self, fd: int, record: records.Record, kept: dict[str, Any], waits: Waits, sender: int
    ) -> None:
        """Go on with a connection of another worker, which is ours now.

        :param kept: its ``ws.state``.
        :param sender: that worker's serial number.
        """
        self.pump.topics.bus.after(record.position, sender)
        pause = max(0.0, time.monotonic() - record.suspended)
        self.pump.row.moved_in(pause)
        self._took_one()
        self._go_on(fd, record, kept, waits)

    def take_back(self, fd: int, record: records.Record) -> None:
        """Go on with a connection of our own that could not leave."""
        self._go_on(fd, record, state.unpack(record.state), None)

    def give_up(self, fd: int, record: records.Record, verdict: ClosedReason) -> None:
        """End a connection unread: nobody is left to go on with it, or it cannot be known whose it
        is.
        """
        # Counted first: close(2) wakes the client.
        self.pump.row.closed(verdict, time.monotonic() - record.opened, by_client=False)
        os.close(fd)
        self.pump.closing.closed_one()

    def _go_on(
        self, fd: int, record: records.Record, kept: dict[str, Any], waits: Waits | None
    ) -> None:
        pump = self.pump
        now = time.monotonic()
        connection = connection_of(pump, fd, record, kept)
        self._fresh.add(connection, waits, now)
        pump.opening.take_over(connection, now)
        if connection.status is State.OPEN:
            pump.topics.resume(connection, record.topics, record.position, record.lately)
        if connection.status is State.OPEN:
            pump.style.resume(connection, list(record.inbox))
        else:
            self._fresh.settle(connection, failed=False)

    def resumed(self, connection: Connection) -> None:
        """The application goes on with a connection."""
        self._fresh.settle(connection, failed=False)

    def failed(self, connection: Connection, error: BaseException) -> bool:
        """The application raised about a connection; whether that was while it resumed it. Then its
        client is asked to come again, and the error is told once for each kind.
        """
        if connection not in self._fresh:
            return False
        self.refuse(HandoffRefusal.RESUME_FAILED)
        told = summary(error)
        if self._news.is_news(f"{type(error).__qualname__} {place(error)}"):
            self._log.error("resume_failed", error=told, exception=own_traceback(error))
        self.pump.closing.close(connection, _SERVICE_RESTART, "service restart", ClosedReason.ERROR)
        self._fresh.settle(connection, failed=True)
        return True

    def look(self, now: float) -> None:
        """From time to time: an application that has not raised for a while goes on."""
        self.sessions.retry()
        self._fresh.look(now)
