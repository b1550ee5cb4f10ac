"""Accompanies each worker from its fork to its exit: asks for it, hears it, ends it, sees it gone.

What a worker's messages and its end mean for its slot is decided by its owner (fleet.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import trio

from wssup import logs
from wssup.channel import Channel, ChannelFull
from wssup.errors import MessageError
from wssup.messages import PROTOCOL, Fork, Hello, Message
from wssup.scoreboard import Scoreboard
from wssup.supervisor.children import Worker
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.process import Processes

__all__ = ["Attendant"]

#: Seconds between the end of a worker's channel and the report of its pid.
_NAME_GRACE = 5.0
#: Seconds for which a worker may leave its messages unread when the channel is full.
_READ_GRACE = 30.0
#: Seconds for what a worker has said by the end of ready_timeout to be taken.
_LAST_WORD = 0.1


class Attendant:
    """All workers there are.

    :ivar workers: by serial number.
    :param asked: told of each worker that its zygote was asked for. Who is asked for together is
        told of together, before any of them runs.
    :param hear: told of each message from a worker but the first, which only says its pid.
    :param gone: told of each worker's end with the reason in words, once, when it is over.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        processes: Processes,
        scoreboard: Scoreboard,
        listeners: Listeners,
        asked: Callable[[Worker], None],
        hear: Callable[[Worker, Message], None],
        gone: Callable[[Worker, str], None],
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self._nursery = nursery
        self._processes = processes
        self._scoreboard = scoreboard
        self._listeners = listeners
        self._asked = asked
        self._hear = hear
        self._on_gone = gone

    def begin(self, worker: Worker, theirs: Channel) -> None:
        """Have a worker forked; ``theirs`` is its end of the channel."""
        self.workers[worker.serial] = worker
        self._nursery.start_soon(self._boot, worker, theirs)
        self._nursery.start_soon(self._listen, worker)

    def post(self, worker: Worker, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message, at once or, while the channel is full, in turn.

        :raises OSError: if there is no descriptor left to keep those of a message that has to wait.
        """
        first = not worker.outbox
        if first:
            try:
                worker.channel.post(message, descriptors)
            except ChannelFull:
                pass
            else:
                return
        # The descriptors may be closed before it is their turn.
        kept: list[int] = []
        try:
            kept.extend(os.dup(d) for d in descriptors)
        except OSError:
            for descriptor in kept:
                os.close(descriptor)
            raise
        worker.outbox.append((message, kept))
        if first:
            self._nursery.start_soon(self._empty_outbox, worker)

    def kill(self, worker: Worker) -> None:
        """End a worker now, with its stacks in the log."""
        if worker.asked_for and worker.pid is None:
            # Its row may not be given away while somebody could still be born to it.
            worker.generation.kill()
        elif not worker.aborted and worker.pid is not None:
            worker.aborted = True
            self._nursery.start_soon(self._processes.abort, worker.pid)

    def end_within(self, worker: Worker, seconds: float) -> None:
        """Kill a worker that has not ended by itself by then."""
        self._nursery.start_soon(self._enforce, worker, seconds)

    def give_up(self, worker: Worker, reason: str) -> None:
        """A worker that its zygote was not asked for yet is not wanted any more."""
        assert not worker.asked_for
        self._gone(worker, reason)

    def forked(self, serial: int, pid: int) -> None:
        """A zygote says that a worker was born."""
        worker = self.workers.get(serial)
        if worker is not None:
            self._identify(worker, pid)

    def fork_failed(self, serial: int, reason: str) -> None:
        """A zygote says that a worker was not born; the end of its channel confirms it."""
        worker = self.workers.get(serial)
        if worker is not None:
            worker.failure = worker.failure or reason
            worker.named.set()

    async def _boot(self, worker: Worker, theirs: Channel) -> None:
        settings = worker.generation.settings
        try:
            with worker.boot, trio.move_on_after(settings.ready_timeout):
                async with worker.generation.births:
                    await self._ask_for(worker, theirs)
                await worker.booted.wait()
                return
        finally:
            theirs.close()
        if worker.gone.is_set():
            return
        # What it said while this process itself was put aside lies in the channel.
        with trio.move_on_after(_LAST_WORD):
            await worker.booted.wait()
        if worker.gone.is_set() or worker.booted.is_set():
            return
        worker.failure = f"it was not ready within ready_timeout ({settings.ready_timeout:g} s)"
        if worker.generation.error:
            worker.failure = f"its zygote cannot start: {worker.generation.error}"
        if worker.asked_for:
            self.kill(worker)
        else:
            self._gone(worker, worker.failure)

    async def _ask_for(self, worker: Worker, theirs: Channel) -> None:
        while not worker.asked_for:
            await worker.generation.available()
            if worker.gone.is_set():
                return  # given up in the same pass of the loop, and its row is another's
            texts, listeners = self._listeners.of(worker.slot)
            fork = Fork(worker.serial, worker.slot, worker.row, texts)
            worker.asked_for = worker.generation.fork(fork, [theirs.fileno(), *listeners])
        self._asked(worker)
        # Only the worker has that end from now on: its end of file is the worker's.
        theirs.close()
        await worker.named.wait()

    async def _empty_outbox(self, worker: Worker) -> None:
        """Send what waits; a worker that reads nothing for long is ended."""
        while worker.outbox and not worker.gone.is_set():
            message, descriptors = worker.outbox[0]
            try:
                worker.channel.post(message, descriptors)
            except ChannelFull:
                with trio.move_on_after(_READ_GRACE) as patience:
                    await worker.channel.writable()
                if patience.cancelled_caught:
                    worker.failure = "it does not read the master's messages"
                    self.kill(worker)
                    break
            else:
                worker.outbox.popleft()
                for descriptor in descriptors:
                    os.close(descriptor)
        for _, descriptors in worker.outbox:
            for descriptor in descriptors:
                os.close(descriptor)
        worker.outbox.clear()

    async def _listen(self, worker: Worker) -> None:
        while True:
            try:
                received = await worker.channel.receive()
            except MessageError as error:
                logs.get(**worker.noun).error("message_lost", error=str(error))
                continue
            except trio.ClosedResourceError:
                return
            if received is None:
                break
            self._take(worker, received.message)
        # Not a death notice: that is its exit. But without a pid there is no exit to wait for.
        if worker.asked_for:
            with trio.move_on_after(_NAME_GRACE):
                await worker.named.wait()
        if worker.pid is None:
            self._gone(worker, worker.failure or "it ended before it said its name")

    def _take(self, worker: Worker, message: Message) -> None:
        if not isinstance(message, Hello):
            self._hear(worker, message)
            return
        self._identify(worker, message.pid)
        if message.protocol != PROTOCOL:
            worker.failure = f"it speaks protocol {message.protocol}, this master {PROTOCOL}"
            self.kill(worker)

    def _identify(self, worker: Worker, pid: int) -> None:
        if worker.pid is None:
            worker.pid = pid
            self._processes.adopt(pid)
            self._scoreboard.identify(worker.row, pid=pid)
            self._nursery.start_soon(self._await_exit, worker, pid)
            worker.named.set()

    async def _await_exit(self, worker: Worker, pid: int) -> None:
        ended = worker.ended = await self._processes.wait(pid)
        # Its last words may still be in the channel: why it failed.
        while True:
            try:
                received = worker.channel.receive_nowait()
            except MessageError:
                continue
            except OSError:
                break
            if received is None:
                break
            self._take(worker, received.message)
        self._gone(worker, worker.failure or str(ended))

    def _gone(self, worker: Worker, reason: str) -> None:
        if worker.gone.is_set():
            return
        worker.gone.set()
        worker.boot.cancel()
        worker.channel.close()
        del self.workers[worker.serial]
        self._on_gone(worker, reason)

    async def _enforce(self, worker: Worker, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await worker.gone.wait()
            return
        logs.get(**worker.noun).error("worker_overdue", seconds=seconds)
        self.kill(worker)
