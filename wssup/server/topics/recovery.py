"""A subscriber whose missed messages a server is asked for: what is published meanwhile waits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wssup.server.handoff.record import Joined
from wssup.server.loops import Loop
from wssup.server.topics.subscription import Subscription
from wssup.topics.message import Message

__all__ = ["Recovery"]


class Recovery:
    """One subscriber of one topic.

    :ivar marks: where the subscriber was.
    :ivar answer: what it is told, and is told when it is known.
    """

    def __init__(
        self, loop: Loop, joined: Joined, marks: dict[str, int], answer: Subscription, room: int
    ) -> None:
        self.joined = joined
        self.marks = marks
        self.answer = answer
        self._loop = loop
        self._room = room
        self._waiting: list[Message] = []
        self._whole = True
        self._waiters: list[Any] = []

    def begin(self) -> None:
        """A server is asked: the answer comes later."""
        self.answer.recovered = None
        self.answer.wait = self._wait

    def keep(self, message: Message) -> None:
        """A message that was published meanwhile, as long as there is room."""
        self._room -= len(message.data)
        if self._room < 0:
            self._whole = False
        else:
            self._waiting.append(message)

    def merged(self, found: Iterable[Message]) -> list[Message]:
        """Everything the subscriber has missed, each message once.

        :param found: what the server had, in its order.
        """
        marks = dict(self.marks)
        every: list[Message] = []
        for message in (*found, *self._waiting):
            if message.sequence > marks.get(message.source, 0):
                marks[message.source] = message.sequence
                every.append(message)
        return every

    def settle(self, *, complete: bool, missed: int) -> None:
        """It is known."""
        self.answer.recovered = complete and self._whole
        self.answer.missed = missed
        self.answer.wait = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self._loop.wake(waiter, None)

    async def _wait(self) -> None:
        waiter = self._loop.waiter()
        self._waiters.append(waiter)

        def forget(_: object) -> Any:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return self._loop.forgotten

        await self._loop.park(waiter, forget)
