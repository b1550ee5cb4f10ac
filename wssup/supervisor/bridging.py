"""Runs the bridge: the process that carries topics between this instance and a Redis server.

It is a child of the master as a zygote is, and a node of the mesh as a worker is. Nothing waits for
it: whether it connects, hangs or dies, the workers serve on, and it is started again.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from wssup import logs
from wssup.channel import Channel, ChannelFull, pair
from wssup.config.bus import EMBEDDED
from wssup.config.settings import Settings, without_password
from wssup.errors import MessageError, UserError
from wssup.messages import PROTOCOL, Bridge, Failed, Hello, Message
from wssup.scoreboard import Scoreboard
from wssup.start import CHANNEL
from wssup.supervisor.backoff import Backoff
from wssup.supervisor.mesh import Mesh, Node
from wssup.supervisor.process import Processes, program

__all__ = ["Bridging", "check"]

#: As of a zygote (generation.py).
_BOOT: Final = (
    "import sys; sys.path.append(sys.argv[1]); from wssup.bridge.main import main; main()"
)
_LIBRARY: Final = "coredis"
#: Seconds between two looks at its heartbeat.
_LOOK: Final = 1.0
#: Seconds that a bridge may live on after it closed its channel.
_END_GRACE: Final = 5.0


def check(settings: Settings) -> None:
    """See that a bridge could run, if there is to be one.

    :raises UserError: the library that speaks to the server is missing.
    """
    if settings.topics.bus != EMBEDDED and importlib.util.find_spec(_LIBRARY) is None:
        raise UserError(
            f"topics.bus names a server, and {_LIBRARY} is not installed",
            "pip install 'wssup[redis]'",
        )


class Bridging:
    """The bridge of an instance, if it has one.

    :ivar pid: ``None`` while there is none.
    :ivar restarts: how many have ended without being told.
    :ivar error: why the last one ended; empty while one runs.
    :param settings: gives those in force when a bridge is started.
    :param next_serial: gives a number that no node had before.
    :param node: the instance's name among all there are.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        processes: Processes,
        scoreboard: Scoreboard,
        mesh: Mesh,
        next_serial: Callable[[], int],
        node: str,
        boot: str = _BOOT,
    ) -> None:
        self.pid: int | None = None
        self.restarts = 0
        self.error = ""
        self._settings = settings
        self._processes = processes
        self._scoreboard = scoreboard
        self._mesh = mesh
        self._next_serial = next_serial
        self._node = node
        self._boot = boot
        self._channel: Channel | None = None
        self._begun_with: Settings | None = None
        self._renewing = False
        self._failure = ""
        self._stopping = trio.Event()
        self._ended = trio.Event()

    @property
    def wanted(self) -> bool:
        """Whether there is to be one."""
        return self._settings().topics.bus != EMBEDDED

    async def run(self) -> None:
        """Have a bridge, for ever, if there is to be one."""
        settings = self._settings()
        backoff = Backoff(settings.backoff_min, settings.backoff_max, 1, settings.failure_window)
        while self.wanted and not self._stopping.is_set():
            began = trio.current_time()
            pid, reason = await self._one()
            self.pid = None
            if self._stopping.is_set():
                break
            if self._renewing:
                logs.get(pid=pid).info("bridge_renewed", ended=reason)
                continue
            self.restarts += 1
            self.error = reason
            # Losses at boot are not counted: the workers are there, and a server may come back.
            delay = backoff.lost(at_boot=False, lived=trio.current_time() - began)
            assert delay is not None
            logs.get(pid=pid).error("bridge_lost", reason=reason, again_in=delay)
            with trio.move_on_after(delay):
                await self._stopping.wait()
        self._ended.set()

    def renew(self) -> None:
        """Put another bridge in the place of one that was started with other settings."""
        begun = self._begun_with
        if begun is not None and begun.topics != self._settings().topics and self._channel:
            self._renewing = True
            self._channel.close()

    async def end(self, grace: float) -> None:
        """Let the bridge go; call it when the workers are gone, whose last words it carries.

        :param grace: seconds until it is killed.
        """
        self._stopping.set()
        if self._channel is not None:
            self._channel.close()
        if self.pid is None:
            return
        with trio.move_on_after(grace):
            await self._ended.wait()
            return
        logs.get(pid=self.pid).error("bridge_overdue", seconds=grace)
        self._processes.signal(self.pid, signal.SIGKILL)
        with trio.move_on_after(_END_GRACE):
            await self._ended.wait()

    # One bridge.

    async def _one(self) -> tuple[int | None, str]:
        """Start a bridge and accompany it to its end; its pid, and why it ended."""
        settings = self._begun_with = self._settings()
        serial = self._next_serial()
        self._failure, self._renewing = "", False
        try:
            channel, pid = self._spawn()
        except OSError as error:
            return None, f"it cannot be started: {error.strerror}"
        self._channel, self.pid = channel, pid
        channel.post(
            Bridge(
                protocol=PROTOCOL,
                instance=settings.name,
                node=self._node,
                serial=serial,
                scoreboard=self._scoreboard.name,
                settings=msgspec.to_builtins(settings),
            )
        )
        logs.get(pid=pid).info("bridge_started", bus=without_password(settings).topics.bus)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, serial, pid)
            await self._listen(channel, serial, pid)
            self._mesh.leave(serial)
            nursery.start_soon(self._see_off, pid)
            ended = await self._processes.wait(pid)
            nursery.cancel_scope.cancel()
        self._channel = None
        channel.close()
        return pid, self._failure or str(ended)

    def _spawn(self) -> tuple[Channel, int]:
        ours, theirs = pair()
        try:
            pid = self._processes.spawn(
                program(self._boot),
                descriptors={CHANNEL: theirs.fileno()},
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return Channel(ours), pid

    async def _listen(self, channel: Channel, serial: int, pid: int) -> None:
        """Hear a bridge until it closes its channel, or we have."""
        while True:
            try:
                received = await channel.receive()
            except MessageError as error:
                logs.get(pid=pid).error("message_lost", error=str(error))
                continue
            except trio.ClosedResourceError:
                return
            if received is None:
                return
            for descriptor in received.descriptors:
                os.close(descriptor)
            match received.message:
                case Hello(protocol=protocol) if protocol != PROTOCOL:
                    self._failure = f"it speaks protocol {protocol}, this master {PROTOCOL}"
                    return
                case Hello():
                    self.error = ""
                    self._join(channel, serial, pid)
                case Failed(message=why):
                    self._failure = why
                case other:
                    kind = type(other).__name__
                    logs.get(pid=pid).error("unexpected_message", kind=kind)

    def _join(self, channel: Channel, serial: int, pid: int) -> None:
        def post(message: Message, descriptors: Sequence[int]) -> None:
            try:
                channel.post(message, descriptors)
            except ChannelFull:
                # The mesh tries again; a bridge that never reads is ended for its heartbeat.
                raise OSError(errno.EAGAIN, "the bridge does not read its messages") from None

        self._mesh.join(Node(serial, post, {"pid": pid}))

    async def _watch(self, serial: int, pid: int) -> None:
        """End a bridge whose loop does not turn. Two looks in a row must find that: if everything
        stood still it turns again before the second.
        """
        began = time.monotonic_ns()
        found = False
        while True:
            await trio.sleep(_LOOK)
            settings = self._settings()
            now = time.monotonic_ns()
            view = self._scoreboard.bridge()
            turned, patience = began, max(settings.ready_timeout, settings.hang_after)
            if view is not None and view.serial == serial and view.heartbeat_ns:
                turned, patience = view.heartbeat_ns, settings.hang_after
            age = (now - turned) / 1e9
            was_found, found = found, age > patience
            if was_found and found:
                self._failure = f"its loop did not turn for {age:.1f} s"
                await self._processes.abort(pid)
                return

    async def _see_off(self, pid: int) -> None:
        """Have a bridge end that has closed its channel; at a stop, :meth:`end` does."""
        if not self._stopping.is_set():
            await trio.sleep(_END_GRACE)
            await self._processes.abort(pid)
