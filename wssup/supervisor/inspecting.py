"""Asks the workers about single connections: which ones there are, and to close some.

It is the one thing that a worker is asked for the sake of somebody who looks. So it is bounded: one
question at a time, so many connections in an answer, so long a wait; a worker that stalls is not
asked at all.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from wssup.errors import CommandError
from wssup.messages import CloseConnections, ConnectionsClosing, Inspect, Inspected, Message
from wssup.questions import ConnectionSeen
from wssup.supervisor.children import Worker

__all__ = ["Inspecting"]

#: Seconds that the workers get to answer, and that a question waits for its turn: together fewer
#: than a client of the control socket waits.
_PATIENCE: Final = 2.5
_TURN: Final = 1.5
#: Seconds after which connections that are between two workers are looked for again.
_AGAIN: Final = 0.1

Post = Callable[..., None]
_KEYS: Final[dict[str, Callable[[ConnectionSeen], float]]] = {
    "oldest": lambda seen: -seen.age,
    "newest": lambda seen: seen.age,
    "idle": lambda seen: -seen.idle,
    "queue": lambda seen: -seen.queue_bytes,
}


class _Round:
    """One question to some workers.

    :ivar answers: by worker, in the order in which they came.
    """

    def __init__(self, workers: Iterable[Worker]) -> None:
        self.answers: dict[Worker, Message] = {}
        self.left = set(workers)
        self.over = trio.Event()
        self._look()

    def answer(self, worker: Worker, message: Message) -> None:
        """A worker has answered."""
        if worker in self.left:
            self.answers[worker] = message
            self.drop(worker)

    def drop(self, worker: Worker) -> None:
        """Do not wait for a worker any more."""
        self.left.discard(worker)
        self._look()

    def _look(self) -> None:
        if not self.left:
            self.over.set()


class Inspecting:
    """The questions.

    :param workers: all there are, by serial number.
    :param post: sends a message to a worker.
    :param moves: whether connections are being moved now.
    """

    def __init__(
        self, workers: Mapping[int, Worker], *, post: Post, moves: Callable[[], bool]
    ) -> None:
        self._workers = workers
        self._post = post
        self._moves = moves
        self._number = 0
        self._rounds: dict[int, _Round] = {}
        self._lock = trio.Lock()

    async def connections(self, order: str, limit: int, slot: int | None) -> dict[str, Any]:
        """The first connections in an order, and who did not say.

        :param order: one of ``wssup.questions.ORDERS``.
        :param limit: connections at most.
        :param slot: of this slot's workers only; ``None``: of all.
        :raises CommandError: ``busy``.
        """
        async with self._turn():
            answers = await self._ask(
                [w for w in self._able() if slot is None or w.slot == slot],
                lambda question: Inspect(question, order, limit),
                trio.current_time() + _PATIENCE,
            )
        found = [
            (seen, worker)
            for worker, answer in answers.items()
            if isinstance(answer, Inspected)
            for seen in answer.connections
        ]
        key = _KEYS[order]
        first = heapq.nsmallest(limit, found, key=lambda pair: key(pair[0]))
        return {
            "order": order,
            "connections": [msgspec.to_builtins(s) | _whose(worker) for s, worker in first],
            "unanswered": self._silent(answers, slot),
        }

    async def close(self, ids: list[int], code: int, reason: str) -> dict[str, Any]:
        """Close connections; which were found, and which were not.

        One that is between two workers is looked for again, as long as there is time.

        :param code: to close with (RFC 6455 section 7.4); ``reason`` is told, too.
        :raises CommandError: ``busy``; ``bad_argument`` if nobody may send that code.
        """
        closing: dict[int, Worker] = {}
        left = list(dict.fromkeys(ids))
        async with self._turn():
            until = trio.current_time() + _PATIENCE
            while True:
                moves = self._moves()
                answers = await self._ask(
                    self._able(),
                    lambda question, left=left: CloseConnections(  # type: ignore[misc]
                        question, left, code, reason
                    ),
                    until,
                )
                moving = _closed(answers, closing)
                left = [number for number in left if number not in closing]
                between = moving or moves or self._moves()
                if not left or not between or trio.current_time() + _AGAIN >= until:
                    break
                await trio.sleep(_AGAIN)
        return {
            "closing": [{"id": number, **_whose(worker)} for number, worker in closing.items()],
            "moving": [number for number in left if number in moving],
            "missing": [number for number in left if number not in moving],
            "unanswered": self._silent(answers, None),
        }

    def hear(self, worker: Worker, message: Message) -> bool:
        """A worker's message; whether it was about this."""
        if not isinstance(message, Inspected | ConnectionsClosing):
            return False
        asked = self._rounds.get(message.question)
        # Otherwise it answers too late.
        if asked is not None:
            asked.answer(worker, message)
        return True

    def gone(self, worker: Worker) -> None:
        """A worker is gone."""
        for asked in self._rounds.values():
            asked.drop(worker)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One question at a time: workers have other things to do."""
        with trio.move_on_after(_TURN) as patience:
            await self._lock.acquire()
        if patience.cancelled_caught:
            raise CommandError(
                "busy", "others ask the workers about their connections now", "try again"
            )
        try:
            yield
        finally:
            self._lock.release()

    async def _ask(
        self, workers: Iterable[Worker], question: Callable[[int], Message], until: float
    ) -> dict[Worker, Message]:
        """The answers of those who answer in time."""
        self._number += 1
        number = self._number
        asked = self._rounds[number] = _Round(workers)
        try:
            for worker in list(asked.left):
                self._post(worker, question(number))
            with trio.move_on_at(until):
                await asked.over.wait()
        finally:
            del self._rounds[number]
        return asked.answers

    def _able(self) -> list[Worker]:
        """Those who can answer, also those that drain: theirs are the connections to look for."""
        return [w for w in self._workers.values() if w.ready and not w.stalled]

    def _silent(self, answers: Mapping[Worker, Message], slot: int | None) -> list[dict[str, Any]]:
        """Those who have connections and did not say."""
        return [
            _whose(w)
            for w in self._workers.values()
            if w.ready and w not in answers and (slot is None or w.slot == slot)
        ]


def _closed(answers: Mapping[Worker, Message], closing: dict[int, Worker]) -> set[int]:
    """Take what workers close into ``closing``; returns those that move.

    :raises CommandError: if a worker refuses.
    """
    moving: set[int] = set()
    for worker, answer in answers.items():
        assert isinstance(answer, ConnectionsClosing)
        if answer.error:
            raise CommandError("bad_argument", answer.error)
        closing.update(dict.fromkeys(answer.closing, worker))
        moving.update(answer.moving)
    return moving


def _whose(worker: Worker) -> dict[str, Any]:
    return {"slot": worker.slot, "generation": worker.generation.number, "pid": worker.pid}
