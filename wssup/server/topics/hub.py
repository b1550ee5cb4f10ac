"""The topics of a worker: who is subscribed here, what they are sent, and what moves with them.

What is published comes here from this worker's applications and from the bus, one message after
the other, and each goes to all its subscribers at once. So a connection has been sent exactly what
its worker has seen, and where it is (its *position*) need not be kept for each: when it moves, the
position of its worker goes with it, and the next worker continues from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from wssup.config.bus import EMBEDDED
from wssup.config.topics import Topics as Settings
from wssup.server.connection import Connection
from wssup.server.handoff.record import Joined
from wssup.server.topics.delivering import Delivering
from wssup.server.topics.delivery import Delivery
from wssup.server.topics.lately import Lately
from wssup.server.topics.returning import Returning
from wssup.server.topics.subscription import Subscription, SubscriptionLimitError
from wssup.server.topics.threads import FromThreads
from wssup.server.topics.topic import Topic, raised
from wssup.topics import names
from wssup.topics.message import Message

if TYPE_CHECKING:
    from wssup.scoreboard import RowWriter
    from wssup.server.pump import Pump

__all__ = ["Hub"]

#: Bytes that a published message may have at most, whatever clients may send: what is larger takes
#: too long between two workers.
_LARGEST: Final = 32 << 20


class Hub(Delivering):
    """A worker's topics. Publishing works from its first moment on; the rest once it has a pump.

    :param serial: the worker's number in its instance.
    :param node: the instance's random name.
    :param message_bytes: the largest message that can be published.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        serial: int = 0,
        node: str = "00000000",
        message_bytes: int = _LARGEST,
    ) -> None:
        super().__init__(settings, serial, node)
        self._message_bytes = min(message_bytes, _LARGEST)
        self._subscriptions = 0
        self._lately = Lately()
        self.bus.members = self._members
        self._tell_epoch()
        self._pump: Pump
        self._returning: Returning
        self._published = FromThreads(self._publish)

    def begin(self, pump: Pump) -> None:
        """Serve the connections of a pump, which exists from now on."""
        self._pump = pump
        self._delivery = Delivery(pump, self.tally)
        self._returning = Returning(
            pump,
            self.bus,
            self._history,
            self._delivery,
            self.tally,
            asks=self._settings.bus_history,
            node=self._node if self._settings.bus == EMBEDDED else "",
        )
        self._published.begin(pump.chores)
        self.bus.begin(pump.chores)

    def close(self) -> None:
        """Give back all descriptors; nothing may be called afterwards."""
        self.bus.close()
        self._published.close()

    # Publishing.

    def publish(self, topic: str, data: object, exclude: Connection | None = None) -> None:
        """Send a message to all subscribers of a topic.

        :raises TypeError: ``data`` is neither str nor bytes, or ``topic`` is no str.
        :raises ValueError: ``topic`` is no name (`names.check`), or the message is too large.
        """
        if topic not in self._topics:
            names.check(topic)
        text = isinstance(data, str)
        if isinstance(data, str):
            payload = data.encode()
        elif isinstance(data, bytes | bytearray | memoryview):
            payload = bytes(data)
        else:
            raise TypeError(f"a message is str or bytes, not {type(data).__name__}")
        if len(payload) > self._message_bytes:
            raise ValueError(
                f"a message of {len(payload)} bytes; {self._message_bytes} are the most "
                f"(limits.message_bytes, and never more than {_LARGEST >> 20} MiB)"
            )
        self._published.put(topic, text, payload, exclude.id if exclude is not None else 0)

    def _publish(self, topic: str, text: bool, data: bytes, exclude: int) -> None:  # noqa: FBT001 - as the queue has it
        self.bus.publish(topic, text=text, data=data, exclude=exclude)

    def when_sent(self, then: Callable[[], None]) -> None:
        """Call back once all that was published here is on its way to the others."""
        self._published.drain()
        self.bus.when_sent(then)

    # Subscribing.

    def subscribe(
        self,
        connection: Connection,
        name: str,
        *,
        since: str | None,
        positions: bool,
        member: str | None,
    ) -> Subscription:
        """See ``Connection.subscribe``."""
        names.check(name)
        if member is not None:
            names.check(member, "member")
        if connection.closed is not None:
            raise connection.gone()
        before = self._lately.when(connection, name)
        if not self._leave(connection, name):
            before = time.monotonic()
        joined = Joined(name, positions, member)
        topic = self._join(connection, joined, limited=True)
        # With a history this worker is sent everything, and the position that this returns promises
        # all that comes after it, also what is on its way already.
        if before is not None and not self._history.configured:
            self._lately.joined(connection, {name: before})
        if since is None:
            floors = self._floors.of(connection)
            return Subscription(
                name, self._token_of(connection, topic) if floors else self.token(name)
            )
        if self._floors.of(connection):
            topic.asks_anew(connection)
        return self._returning.catch_up(connection, topic, joined, since)

    def unsubscribe(self, connection: Connection, name: str) -> bool:
        """Whether it was subscribed."""
        return self._leave(connection, name)

    def _join(self, connection: Connection, joined: Joined, *, limited: bool = False) -> Topic:
        name = joined.topic
        topic = self._topics.get(name)
        there = connection.joined
        if limited:
            settings = self._settings
            if there is not None and len(there) >= settings.per_connection:
                raise SubscriptionLimitError(
                    f"connection {connection.id} has {len(there)} topics, all that "
                    f"topics.per_connection allows"
                )
            if topic is None and len(self._topics) >= settings.per_worker:
                raise SubscriptionLimitError(
                    f"this worker has {len(self._topics)} topics, all that topics.per_worker allows"
                )
        if topic is None:
            topic = self._topics[name] = Topic(name)
        topic.add(connection, positions=joined.positions, member=joined.member)
        if there is None:
            connection.joined = [topic]
        else:
            there.append(topic)
        self._subscriptions += 1
        self.bus.subscribed(name, len(topic))
        return topic

    def _leave(self, connection: Connection, name: str) -> bool:
        topic = self._topics.get(name)
        if topic is None or connection not in topic:
            return False
        assert connection.joined is not None
        connection.joined.remove(topic)
        connection.joined = connection.joined or None
        self._lately.left(connection, name)
        self._out_of(topic, connection)
        return True

    def _out_of(self, topic: Topic, connection: Connection) -> None:
        self._returning.gone(connection, topic)
        topic.remove(connection)
        self._subscriptions -= 1
        count = len(topic)
        if not count:
            del self._topics[topic.name]
        self.bus.subscribed(topic.name, count)

    def left(self, connection: Connection) -> None:
        """A connection is closed, or being closed: it gets no messages any more."""
        joined, connection.joined = connection.joined, None
        self._floors.drop(connection)
        self._lately.drop(connection)
        for topic in joined or ():
            self._out_of(topic, connection)

    # What moves.

    def hurry(self, connection: Connection) -> None:
        """Send what is to be sent before a connection leaves; it may show that it is lost. Threads
        may have published, too: what it publishes elsewhere must not overtake that.
        """
        self._published.drain()
        for topic in tuple(connection.joined or ()):
            if connection in topic:
                self._returning.hurry(connection, topic)

    def suspend(
        self, connection: Connection
    ) -> tuple[list[Joined], dict[int, int], dict[str, float]]:
        """What a connection is subscribed to that leaves this worker now, where it is, and to what
        it subscribed lately, and when (``time.monotonic()``, seconds); after `hurry`.
        """
        # What it published here must not be overtaken by what it publishes elsewhere.
        self.bus.mark()
        if connection.joined is None:
            return [], {self.bus.serial: self.bus.number} if self.bus.number else {}, {}
        here = self.bus.position()
        floors = dict(self._floors.of(connection))
        further: dict[str, int] = {}
        if any(connection in (topic.asked_anew or ()) for topic in connection.joined):
            # What it has of the others goes along with each; a bridge's numbers say nothing there.
            further = self._sources({c: n for c, n in floors.items() if not self._carries(c)})
        for carrier, number in floors.items():
            if f"{self._node}.{carrier}" not in further:
                here[carrier] = max(number, here.get(carrier, 0))
        joined = [
            Joined(
                topic.name,
                connection in topic.posed,
                topic.members.get(connection) if topic.members is not None else None,
                self._ahead(connection, topic, further),
            )
            for topic in connection.joined
        ]
        lately = dict(self._lately.of(connection))
        self.left(connection)
        return joined, here, lately

    def _carries(self, carrier: int) -> bool:
        return self._settings.bus != EMBEDDED and self.bus.may_carry(carrier)

    def _ahead(
        self, connection: Connection, topic: Topic, further: Mapping[str, int]
    ) -> dict[str, int]:
        """What it has of a topic that is still to come here."""
        ahead = dict((topic.ahead or {}).get(connection, {}))
        if connection not in (topic.asked_anew or ()):
            raised(ahead, further)
        return ahead

    def resume(
        self,
        connection: Connection,
        joined: Sequence[Joined],
        there: Mapping[int, int],
        lately: Mapping[str, float],
    ) -> None:
        """Go on with a connection where it was: it is sent what was published since, and not again
        what is still on its way to this worker.
        """
        if not joined:
            return
        topics = {each.topic: self._join(connection, each) for each in joined}
        has = {each.topic: each.ahead for each in joined}
        for each in joined:
            if each.ahead:
                self._returning.is_ahead(connection, topics[each.topic], each.ahead)
        self._lately.joined(connection, lately)
        floor = self.bus.floor(there)
        self._floors.raised(connection, floor, time.monotonic())
        missed: dict[str, list[Message]] = {}
        # In the order in which they came: one publisher's messages to two topics keep theirs.
        found = [
            message
            for message in self.bus.since(there, topics.keys(), lately)
            if message.sequence > has[message.topic].get(message.source, 0)
        ]
        for message in found:
            missed.setdefault(message.topic, []).append(message)
        marks = {name: self._marks_before(name, missed[name]) for name in missed}
        for name, of_topic in marks.items():
            self._raise(of_topic, floor)
            raised(of_topic, has[name])
        for message in found:
            name = message.topic
            self._delivery.replay(connection, topics[name], [message], marks[name])

    def _marks_before(self, name: str, messages: Sequence[Message]) -> dict[str, int]:
        """Where a subscriber was that got everything but these."""
        marks = self._history.marks(name)
        for message in reversed(messages):
            marks[message.source] = message.sequence - 1
        return marks

    # What is asked.

    def _members(self, name: str, limit: int) -> tuple[list[str], int]:
        topic = self._topics.get(name)
        return (topic.listed(limit), len(topic)) if topic is not None else ([], 0)

    @property
    def pump(self) -> Pump:
        """What it serves."""
        return self._pump

    def beat(self, now: float) -> None:
        """From time to time: what is due, and what need not be remembered any more."""
        self.bus.beat(now)
        self._tell_epoch()
        self._floors.tidy(self.bus.seen, now)
        self._returning.beat(now)
        if not self.bus.moves:
            self._lately.turn()

    def _tell_epoch(self) -> None:
        """The clock of the day may be set."""
        if self._settings.bus_history:
            self._history.epoch = time.time() - time.monotonic()

    def flush(self, row: RowWriter) -> None:
        """Write the counters to the scoreboard."""
        self.tally.flush(
            row,
            subscriptions=self._subscriptions,
            topics=len(self._topics),
            queued=self.bus.queued,
        )
