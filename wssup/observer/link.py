"""The observer's end of what it and the master say to each other (status/lines.py)."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Final

from wssup import logs
from wssup.errors import MessageError
from wssup.observer.state import State
from wssup.status import lines

__all__ = ["Link", "NotPublishedError"]

#: Seconds that the master gets to answer: more than it gives a worker.
_PATIENCE: Final = 5.0
#: Messages that are being published at a time; as many as the master takes.
_MOST: Final = 32


class NotPublishedError(Exception):
    """A message was not published.

    :ivar code: why, as a code of the control protocol.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Link:
    """The channel to the master."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._writer: asyncio.StreamWriter | None = None
        self._question = 0
        self._asked: dict[int, asyncio.Future[lines.Published]] = {}

    async def run(self, channel: socket.socket, received: bytearray) -> None:
        """Hear the master until it closes the channel.

        :param received: what came already.
        """
        reader, self._writer = await asyncio.open_connection(sock=channel)
        while True:
            for line in lines.split(received):
                self._hear(line)
            try:
                chunk = await reader.read(256 * 1024)
            except OSError:
                return
            if not chunk:
                return
            received += chunk

    def ready(self) -> None:
        """Tell the master that whoever asks is answered."""
        if self._writer is not None:
            self._writer.write(lines.encode(lines.Ready()))

    async def publish(self, topic: str, data: bytes, *, text: bool) -> int:
        """Have a message published; returns how many subscribers the topic has in the instance.

        :raises NotPublishedError: it was not, or nobody knows.
        """
        if len(self._asked) >= _MOST or self._writer is None:
            raise NotPublishedError("busy", "too many messages are being published; try again")
        self._question += 1
        question = self._question
        answer = self._asked[question] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(lines.encode(lines.Publish(question, topic, text, data)))
            async with asyncio.timeout(_PATIENCE):
                await self._writer.drain()
                published = await answer
        except (TimeoutError, OSError):
            raise NotPublishedError(
                "timeout", "the master does not answer; it may have been published, or not"
            ) from None
        finally:
            del self._asked[question]
        if published.code:
            raise NotPublishedError(published.code, published.error)
        return int(published.subscribers)

    def _hear(self, line: bytes) -> None:
        state = self._state
        state.heard_at = time.monotonic()
        try:
            said = lines.to_observer(line)
        except MessageError as error:
            logs.get().error("observer_message_lost", error=str(error))
            return
        match said:
            case lines.News(facts=facts):
                state.facts = facts
                state.known.set()
            case lines.Happened(event=event):
                state.events.append(event)
                state.changed()
            case lines.Ping(number=number):
                if self._writer is not None:
                    self._writer.write(lines.encode(lines.Pong(number)))
            case lines.Published(question=question):
                waiting = self._asked.get(question)
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)
            case lines.Begin():
                logs.get().error("observer_message_lost", error="Begin a second time")
