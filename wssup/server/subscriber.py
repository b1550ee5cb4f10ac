"""The part of a connection that is about topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from wssup.server.described import Described

if TYPE_CHECKING:
    from wssup.server.connection import Connection
    from wssup.server.pump import Pump
    from wssup.server.topics.subscription import Subscription
    from wssup.server.topics.topic import Topic

__all__ = ["Subscriber"]


class Subscriber(Described):
    """A client that is sent what is published to topics."""

    __slots__ = ("joined",)

    wire: Pump
    #: Its topics.
    joined: list[Topic] | None

    def subscribe(
        self,
        topic: str,
        *,
        since: str | None = None,
        positions: bool = False,
        member: str | None = None,
    ) -> Subscription:
        """Have every message sent to this client that is published to a topic from now on, in any
        worker. The subscription moves with the connection. Another one to the same topic replaces
        it.

        :param topic: 1 to 255 bytes of UTF-8, without control characters.
        :param since: a position that a client had before: what was published after it is sent
            first, as far as it is kept (``topics.history``). ``""`` for all that is kept.
        :param positions: have messages come with their positions: as JSON text ``{"topic": …,
            "position": …, "data": …}``, with ``base64`` in the place of ``data`` for binary ones.
        :param member: the name under which `wssup.presence` lists it; ``None``: its ``id``.
        :raises ConnectionClosed: the connection is closed or being closed.
        :raises SubscriptionLimitError: it, or its worker, has as many topics as it may have.
        :raises TypeError: ``topic`` is no str.
        :raises ValueError: it is no name.
        """
        return self.wire.topics.subscribe(
            cast("Connection", self),
            topic,
            since=since,
            positions=positions,
            member=member,
        )

    def unsubscribe(self, topic: str) -> bool:
        """End a subscription; whether there was one."""
        return self.wire.topics.unsubscribe(cast("Connection", self), topic)

    @property
    def topics(self) -> tuple[str, ...]:
        """What it is subscribed to."""
        return tuple(topic.name for topic in self.joined or ())
