"""Runs the observer: the process that shows the instance to whoever asks, over HTTP.

It is a child of the master as the bridge is, and nothing waits for it: whether it runs, hangs, or
is flooded, the workers serve on. It gets the status sockets from the master, which keeps them, so
that clients who come while it is started again wait in their queues. What it is told is bounded: of
facts the newest only, of events the recent ones (lifecycle.py).
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import trio

from wssup import logs
from wssup.config.addresses import TcpAddress
from wssup.errors import MessageError
from wssup.start import CHANNEL
from wssup.supervisor.backoff import Backoff
from wssup.supervisor.observer_link import Link
from wssup.supervisor.process import Processes, program

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["Observing"]

#: As of a zygote (generation.py).
_BOOT: Final = (
    "import sys; sys.path.append(sys.argv[1]); from wssup.observer.main import main; main()"
)
#: Seconds between two looks at whether it answers.
_LOOK: Final = 1.0
#: Seconds that an observer may live on after it closed its channel, and at a stop.
_END_GRACE: Final = 5.0
_STOP_GRACE: Final = 2.0


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
        self._link: Link | None = None
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
            # It harms nobody who is served.
            logs.get(pid=pid).warning("observer_lost", reason=reason, again_in=delay)
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
        began = trio.current_time()

        def ready() -> None:
            seconds = round(trio.current_time() - began, 3)
            log = logs.get(pid=pid)
            log.info("observer_ready", socket=self.path, bind=self.bind or None, seconds=seconds)

        link = self._link = Link(self._master, stream, ready)
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
                program(self._boot, str(len(self._sockets))),
                descriptors=numbers,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), pid

    async def _watch(self, link: Link, pid: int) -> None:
        """End an observer that does not answer. Two looks in a row must find that: if it was this
        process that stood still, the answer lies in the socket and is taken before the second.
        """
        found = False
        while True:
            await trio.sleep(_LOOK)
            settings = self._master.settings
            patience = settings.hang_after
            if not link.answered:
                patience = max(settings.ready_timeout, patience)
            silent = trio.current_time() - link.heard_at
            was_found, found = found, silent > patience
            if was_found and found:
                self._failure = f"it did not answer for {silent:.1f} s"
                await self._processes.abort(pid)
                return

    async def _see_off(self, pid: int) -> None:
        """Have an observer end that has closed its channel."""
        await trio.sleep(_END_GRACE)
        await self._processes.abort(pid)
