"""One topic in one worker: its subscribers."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from wssup.server.connection import Connection
from wssup.server.frames import BINARY, TEXT, encode
from wssup.server.topics.recovery import Recovery
from wssup.topics import position
from wssup.topics.message import Message

__all__ = ["Topic", "framed", "positioned", "raised", "token_of"]

_encode: Final = msgspec.json.Encoder().encode


class Topic:
    """The subscribers of a topic in this worker.

    :ivar plain: who gets messages as they were published.
    :ivar posed: who gets them with their positions.
    :ivar members: the names of those that are not listed by their connection's number.
    :ivar ahead: of those that came back with a position which is further than this worker: by
        source, the sequences up to which they have this topic's messages.
    :ivar waiting: those for which a server is asked what they have missed.
    :ivar asked_anew: those who came from a worker that was further than this one, and have said
        since then where in this topic they are.
    """

    __slots__ = ("ahead", "asked_anew", "members", "name", "plain", "posed", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.plain: dict[Connection, None] = {}
        self.posed: dict[Connection, None] = {}
        self.members: dict[Connection, str] | None = None
        self.ahead: dict[Connection, dict[str, int]] | None = None
        self.waiting: dict[Connection, Recovery] | None = None
        self.asked_anew: dict[Connection, None] | None = None

    def __len__(self) -> int:
        return len(self.plain) + len(self.posed) + len(self.waiting or ())

    def __contains__(self, connection: Connection) -> bool:
        return (
            connection in self.plain
            or connection in self.posed
            or (self.waiting is not None and connection in self.waiting)
        )

    def add(self, connection: Connection, *, positions: bool, member: str | None) -> None:
        """One subscriber more."""
        (self.posed if positions else self.plain)[connection] = None
        if member is not None:
            self.members = self.members or {}
            self.members[connection] = member

    def remove(self, connection: Connection) -> None:
        """One less."""
        self.plain.pop(connection, None)
        self.posed.pop(connection, None)
        if self.members is not None and self.members.pop(connection, None) is not None:
            self.members = self.members or None
        self.not_ahead(connection)
        self.not_waiting(connection)
        if self.asked_anew is not None:
            self.asked_anew.pop(connection, None)
            self.asked_anew = self.asked_anew or None

    def is_waiting(self, connection: Connection, recovery: Recovery) -> None:
        """A server is asked what a subscriber has missed: meanwhile it gets nothing."""
        self.plain.pop(connection, None)
        self.posed.pop(connection, None)
        self.waiting = self.waiting or {}
        self.waiting[connection] = recovery

    def not_waiting(self, connection: Connection) -> Recovery | None:
        """That is over."""
        if self.waiting is None:
            return None
        recovery = self.waiting.pop(connection, None)
        self.waiting = self.waiting or None
        return recovery

    def is_ahead(self, connection: Connection, marks: dict[str, int]) -> None:
        """A subscriber has these messages already, which are still to come here."""
        self.ahead = self.ahead or {}
        self.ahead[connection] = marks

    def not_ahead(self, connection: Connection) -> None:
        """It is no further than this worker any more."""
        if self.ahead is not None and self.ahead.pop(connection, None) is not None:
            self.ahead = self.ahead or None

    def asks_anew(self, connection: Connection) -> None:
        """It says itself where it is."""
        self.asked_anew = self.asked_anew or {}
        self.asked_anew[connection] = None

    def for_(
        self,
        subscribers: dict[Connection, None],
        message: Message,
        floors: dict[Connection, dict[int, int]],
    ) -> Iterable[Connection]:
        """Those of the subscribers who get a message: without the one that is excluded, and those
        who have it already.

        :param floors: of connections that came from a worker which was further than this one: the
            numbers up to which they have what each node put on the bus.
        """
        found: Iterable[Connection] = subscribers
        if message.exclude:
            found = [c for c in found if c.id != message.exclude]
        if floors:
            carrier, number = message.carrier, message.number
            anew = self.asked_anew or {}
            found = [
                c
                for c in found
                if c not in floors or c in anew or number > floors[c].get(carrier, 0)
            ]
        if self.ahead is not None:
            ahead, source, sequence = self.ahead, message.source, message.sequence
            found = [c for c in found if c not in ahead or sequence > ahead[c].get(source, 0)]
        return found

    def listed(self, limit: int) -> list[str]:
        """The names of at most ``limit`` subscribers."""
        names = self.members or {}
        found: list[str] = []
        for group in (self.plain, self.posed, self.waiting or ()):
            for connection in group:
                if len(found) >= limit:
                    return found
                found.append(names.get(connection) or str(connection.id))
        return found


def positioned(message: Message, token: str) -> bytes:
    """A message with its position, as JSON (the payload of a text message).

    :param token: where a subscriber is that got this message, and all before it.
    """
    said: dict[str, str] = {"topic": message.topic, "position": token}
    if message.text:
        said["data"] = message.data.decode()
    else:
        said["base64"] = base64.b64encode(message.data).decode("ascii")
    return _encode(said)


def token_of(marks: dict[str, int]) -> str:
    """The token of a position; empty if it would be too long to be one: messages of very many
    workers are kept.
    """
    try:
        return position.encode(marks)
    except position.PositionError:
        return ""


def raised(marks: dict[str, int], others: Mapping[str, int]) -> None:
    """Raise marks to what they are elsewhere."""
    for source, sequence in others.items():
        if sequence > marks.get(source, 0):
            marks[source] = sequence


def framed(message: Message) -> bytes:
    """A message as a frame."""
    return encode(TEXT if message.text else BINARY, message.data)
