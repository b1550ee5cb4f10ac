"""Runs the observer: the process that shows the instance to whoever asks, over HTTP.

It is a child of the master as the bridge is, and nothing waits for it: whether it runs, hangs, or
is flooded, the workers serve on. It gets the status sockets from the master, which keeps them, so
that clients who come while it is started again wait in their queues. What it is told is bounded: of
facts the newest only, of events the recent ones (lifecycle.py).
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

import wssup
from wssup import logs
from wssup.config.addresses import TcpAddress
from wssup.errors import CommandError, MessageError
from wssup.start import CHANNEL
from wssup.status import lines
from wssup.status.facts import Facts
from wssup.supervisor.backoff import Backoff
from wssup.supervisor.process import Processes
from wssup.supervisor.status import facts

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["Observing"]

#: As of a zygote (generation.py).
_BOOT: Final = (
    "import sys; sys.path.append(sys.argv[1]); from wssup.observer.main import main; main()"
)
#: Seconds between two lines to it at least, and at most.
_GAP: Final = 0.05
_TURN: Final = 1.0
#: Seconds that an observer may live on after it closed its channel, and at a stop.
_END_GRACE: Final = 5.0
_STOP_GRACE: Final = 2.0
#: Seconds between SIGABRT, which has a process dump its stacks, and SIGKILL.
_DUMP_GRACE: Final = 1.0
#: Messages that are published for it at a time, and bytes of a line from it: it is who everybody
#: talks to, and may not be trusted with more.
_MOST_PUBLISHES: Final = 32
_LONGEST_LINE: Final = 512 * 1024


class Observing:
    """The observer of an instance, if it has one.

    :ivar pid: ``None`` while there is none.
    :ivar restarts: how many have ended without being told.
    :ivar path: of the status socket; ``bind`` the TCP address that it answers to, or empty.
    :param sockets: what it serves, listening; empty: there is to be no observer.
    """

    def __init__(
        self,
        master: Master,
        sockets: Sequence[socket.socket],
        *,
        processes: Processes,
        boot: str = _BOOT,
    ) -> None:
        self.pid: int | None = None
        self.restarts = 0
        self.path, self.bind = "", ""
        for sock in sockets:
            name = sock.getsockname()
            if sock.family == socket.AF_UNIX:
                self.path = name
            else:
                self.bind = str(TcpAddress(name[0], name[1]))
        self._master = master
        self._sockets = sockets
        self._processes = processes
        self._boot = boot
        self._link: _Link | None = None
        self._failure = ""
        self._stopping = trio.Event()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Have an observer, for ever, if there is to be one."""
        settings = self._master.settings
        backoff = Backoff(settings.backoff_min, settings.backoff_max, 1, settings.failure_window)
        while self._sockets and not self._stopping.is_set():
            began = trio.current_time()
            try:
                pid, reason = await self._one()
            except Exception as error:  # noqa: BLE001 - a mistake of ours here must not end the service
                logs.get().error("observing_failed", exc_info=error)
                pid, reason = self.pid, f"{type(error).__name__}: {error}"
                if pid is not None and self._processes.alive(pid):
                    self._processes.signal(pid, signal.SIGKILL)
                    await self._processes.wait(pid)
            self.pid = None
            if self._stopping.is_set():
                break
            self.restarts += 1
            delay = backoff.lost(at_boot=False, lived=trio.current_time() - began)
            assert delay is not None
            logs.get(pid=pid).error("observer_lost", reason=reason, again_in=delay)
            with trio.move_on_after(delay):
                await self._stopping.wait()
        self._ended.set()

    async def end(self) -> None:
        """Let the observer go, as the last but the zygotes."""
        self._stopping.set()
        if self.pid is None:
            return
        if self._link is not None:
            self._link.close()
        with trio.move_on_after(_STOP_GRACE):
            await self._ended.wait()
            return
        # It has nothing that could be lost.
        self._processes.signal(self.pid, signal.SIGKILL)
        with trio.move_on_after(_END_GRACE):
            await self._ended.wait()

    # One observer.

    async def _one(self) -> tuple[int | None, str]:
        """Start an observer and accompany it to its end; its pid, and why it ended."""
        self._failure = ""
        try:
            stream, pid = self._spawn()
        except OSError as error:
            return None, f"it cannot be started: {error.strerror}"
        self.pid = pid
        link = self._link = _Link(self._master, stream)
        logs.get(pid=pid).debug("observer_started")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, link, pid)
            try:
                await link.run()
            except MessageError as error:
                self._failure = str(error)
            self._failure = self._failure or link.failure
            self._link = None
            link.close()
            nursery.start_soon(self._see_off, pid)
            ended = await self._processes.wait(pid)
            nursery.cancel_scope.cancel()
        return pid, self._failure or str(ended)

    def _spawn(self) -> tuple[trio.SocketStream, int]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        numbers = {CHANNEL: theirs.fileno()}
        numbers |= {CHANNEL + 1 + n: sock.fileno() for n, sock in enumerate(self._sockets)}
        try:
            pid = self._processes.spawn(
                [
                    *(sys.executable, "-P", "-c", self._boot, str(Path(wssup.__file__).parents[1])),
                    str(len(self._sockets)),
                ],
                descriptors=numbers,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), pid

    async def _watch(self, link: _Link, pid: int) -> None:
        """End an observer that does not answer."""
        while True:
            await trio.sleep(_TURN)
            settings = self._master.settings
            patience = settings.hang_after
            if not link.answered:
                patience = max(settings.ready_timeout, patience)
            silent = trio.current_time() - link.heard_at
            if silent > patience:
                self._failure = f"it did not answer for {silent:.1f} s"
                await self._abort(pid)
                return

    async def _see_off(self, pid: int) -> None:
        """Have an observer end that has closed its channel."""
        await trio.sleep(_END_GRACE)
        await self._abort(pid)

    async def _abort(self, pid: int) -> None:
        self._processes.signal(pid, signal.SIGABRT)
        await trio.sleep(_DUMP_GRACE)
        self._processes.signal(pid, signal.SIGKILL)


class _Link:
    """What master and one observer say to each other.

    :ivar answered: it has said something; ``heard_at``: when that was last (trio's clock).
    :ivar failure: why it ends, as it said itself.
    """

    def __init__(self, master: Master, stream: trio.SocketStream) -> None:
        self.answered = False
        self.heard_at = trio.current_time()
        self.failure = ""
        self._master = master
        self._stream = stream
        self._awake = trio.Event()
        self._told: Facts | None = None
        self._seen = 0
        self._pinged = 0
        self._pinged_at = 0.0
        self._answers: list[lines.Published] = []
        self._under_way = 0

    async def run(self) -> None:
        """Talk until the channel is closed.

        :raises MessageError: it says what is not understood.
        """
        lifecycle = self._master.lifecycle
        try:
            async with trio.open_nursery() as nursery:
                lifecycle.on_news = self._wake
                nursery.start_soon(self._tell)
                nursery.start_soon(self._notice_changes)
                await self._listen(nursery)
                nursery.cancel_scope.cancel()
        except* MessageError as group:
            raise MessageError(str(group.exceptions[0])) from None
        finally:
            lifecycle.on_news = None

    def close(self) -> None:
        """Say no more; an observer that runs ends then."""
        self._stream.socket.close()
        self._wake()

    def _wake(self) -> None:
        self._awake.set()

    async def _notice_changes(self) -> None:
        while True:
            await self._master.fleet.wait_changed()
            self._wake()

    async def _tell(self) -> None:
        """Tell what is new. While the observer does not read, nothing is kept for it here."""
        settings = self._master.settings
        begin = lines.Begin(
            lines.VERSION,
            settings.name,
            self._master.scoreboard.name,
            settings.log_level,
            settings.log_format,
            settings.publish_token_file,
        )
        news = lines.encode(begin) + self._news()
        try:
            while True:
                if news:
                    await self._stream.send_all(news)
                await trio.sleep(_GAP)
                with trio.move_on_after(_TURN - _GAP):
                    await self._awake.wait()
                self._awake = trio.Event()
                news = self._news()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def _news(self) -> bytes:
        found = bytearray()
        now = trio.current_time()
        if now >= self._pinged_at + _TURN / 2:
            self._pinged, self._pinged_at = self._pinged + 1, now
            found += lines.encode(lines.Ping(self._pinged))
        for event in self._master.lifecycle.since(self._seen):
            self._seen = event["seq"]
            found += lines.encode(lines.Happened(event))
        # After the events: from the first facts on the observer answers.
        known = public(facts(self._master))
        if known != self._told:
            self._told = known
            found += lines.encode(lines.News(known))
        for answer in self._answers:
            found += lines.encode(answer)
        self._answers.clear()
        return bytes(found)

    async def _listen(self, nursery: trio.Nursery) -> None:
        buffer = bytearray()
        while True:
            try:
                chunk = await self._stream.receive_some(64 * 1024)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not chunk:
                return
            self.answered, self.heard_at = True, trio.current_time()
            buffer += chunk
            for line in lines.split(buffer, _LONGEST_LINE):
                match lines.from_observer(line):
                    case lines.Publish() as wish:
                        self._publish(nursery, wish)
                    case lines.Failed(message=why):
                        self.failure = why
                    case lines.Pong():
                        pass

    def _publish(self, nursery: trio.Nursery, wish: lines.Publish) -> None:
        if not self._master.settings.publish_token_file:
            self._answer(wish, code="forbidden", error="nobody may publish over HTTP here")
        elif self._under_way >= _MOST_PUBLISHES:
            self._answer(wish, code="busy", error="too many messages are being published")
        else:
            self._under_way += 1
            nursery.start_soon(self._have_published, wish)

    async def _have_published(self, wish: lines.Publish) -> None:
        publishing = self._master.fleet.publishing
        try:
            count = await publishing.publish(wish.topic, wish.data, text=wish.text)
        except CommandError as error:
            self._answer(wish, code=error.code, error=error.message)
        else:
            self._answer(wish, subscribers=count)
        finally:
            self._under_way -= 1

    def _answer(
        self, wish: lines.Publish, *, subscribers: int = 0, code: str = "", error: str = ""
    ) -> None:
        self._answers.append(lines.Published(wish.question, subscribers, code, error))
        self._wake()


def public(known: Facts) -> Facts:
    """Facts as everybody may know them: without tracebacks, which show what stands in the code."""
    last = known.last_reload
    if last is None or last.traceback is None:
        return known
    return msgspec.structs.replace(known, last_reload=msgspec.structs.replace(last, traceback=None))
