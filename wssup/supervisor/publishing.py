"""Has a worker publish a message that somebody sends to the control socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from wssup.errors import CommandError
from wssup.messages import Message, Publish, PublishDone
from wssup.supervisor.children import Worker
from wssup.topics import names

__all__ = ["LONGEST", "Publishing"]

#: Bytes of a message at most: it goes through a channel, whose datagrams are bounded.
LONGEST: Final = 64 * 1024
#: Seconds that a worker gets to answer: fewer than a client of the control socket waits.
_PATIENCE: Final = 3.0

Post = Callable[..., None]


class Publishing:
    """The messages under way.

    :param workers: all there are, by serial number.
    :param post: sends a message to a worker.
    """

    def __init__(self, workers: Mapping[int, Worker], *, post: Post) -> None:
        self._workers = workers
        self._post = post
        self._question = 0
        self._asked: dict[int, tuple[Worker, trio.Event]] = {}
        self._answers: dict[int, PublishDone] = {}

    async def publish(self, topic: str, data: bytes, *, text: bool) -> int:
        """Publish a message; returns how many subscribers the topic has in the whole instance.

        :param text: whether ``data`` is text, as UTF-8.
        :raises CommandError: if it is none that can be published, no worker is there to do it, or
            that does not answer.
        """
        try:
            names.check(topic)
        except ValueError as error:
            raise CommandError("bad_argument", str(error)) from None
        if len(data) > LONGEST:
            raise CommandError(
                "bad_argument",
                f"the message has {len(data)} bytes, more than {LONGEST}",
                "publish larger ones from the application",
            )
        worker = self._choose()
        self._question += 1
        question, done = self._question, trio.Event()
        self._asked[question] = (worker, done)
        try:
            self._post(worker, Publish(question, topic, text, data))
            with trio.move_on_after(_PATIENCE):
                await self._answered(worker, done)
        finally:
            del self._asked[question]
            answer = self._answers.pop(question, None)
        if answer is None:
            what = "ended" if worker.gone.is_set() else "does not answer"
            raise CommandError(
                "no_worker",
                f"the worker that was to publish it {what} (slot {worker.slot}, pid {worker.pid})",
                "the message may have been published, or not; see wssup status",
            )
        if answer.error:
            raise CommandError("refused", answer.error)
        return answer.subscribers

    def hear(self, worker: Worker, message: Message) -> bool:
        """A worker's message; whether it was about something published."""
        if not isinstance(message, PublishDone):
            return False
        asked = self._asked.get(message.question)
        # Otherwise it answers too late.
        if asked is not None and asked[0] is worker:
            self._answers[message.question] = message
            asked[1].set()
        return True

    def _choose(self) -> Worker:
        """The newest worker that serves: one that is likely to have long to live."""
        able = [w for w in self._workers.values() if w.able and not w.stalled]
        if not able:
            raise CommandError(
                "no_worker", "no worker is ready to publish it", "see wssup status, and try again"
            )
        return max(able, key=lambda worker: worker.serial)

    async def _answered(self, worker: Worker, done: trio.Event) -> None:
        """Wait until a worker has answered, or is gone."""
        async with trio.open_nursery() as nursery:

            async def end_with(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_with, done)
            nursery.start_soon(end_with, worker.gone)
