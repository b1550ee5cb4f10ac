"""A generation as the master sees it: its settings, its code, and the zygote that forks its
workers.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec
import trio

from wssup import logs
from wssup.channel import Channel, ChannelFull, pair
from wssup.config.settings import Settings, without_password
from wssup.errors import ApplicationError, MessageError
from wssup.messages import PROTOCOL, Fork, Forked, ForkFailed, Load, Loaded, LoadFailed
from wssup.start import CHANNEL
from wssup.supervisor.backoff import Backoff
from wssup.supervisor.process import Processes, program

__all__ = ["Generation"]

#: The worker's entry, by its class. A name, not an import: the supervisor never imports the server.
ENTRIES: Final = {
    "trio": "wssup.server.worker:main",
    "uvicorn": "wssup.server.uvicorn_worker.worker:main",
}
#: Forks that a zygote is asked for at a time.
_BIRTHS = 16
#: Seconds between end of file and SIGKILL for a zygote that does not end.
_END_GRACE = 5.0
#: The master's wssup is put at the end of the zygote's path: it is found when it is run from a
#: folder that is not installed, and an installed one wins. -P keeps the current directory off the
#: path.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from wssup.supervisor.zygote import main; main()"


class Generation:
    """One generation.

    :ivar number: counts rollouts from 1.
    :ivar mixed: a restarted zygote found other code on disk than the generation's first workers
        run.
    :param node: the instance's name among all there are.
    :param forked: called with a worker's serial number and pid.
    :param fork_failed: called with a worker's serial number and the reason.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        *,
        processes: Processes,
        scoreboard: str,
        node: str = "",
        forked: Callable[[int, int], None],
        fork_failed: Callable[[int, str], None],
    ) -> None:
        self.number = number
        self.settings = settings
        self.mixed = False
        self.loaded: Loaded | None = None
        self.pid: int | None = None
        self.ending = False
        self.error = ""
        self._processes = processes
        self._scoreboard = scoreboard
        self._node = node
        self._forked = forked
        self._fork_failed = fork_failed
        self._channel: Channel | None = None
        self._available = trio.Event()
        self._ended = trio.Event()
        self._attending = trio.CancelScope()
        self._asked: set[int] = set()
        #: Workers asked for at a time: a channel holds some hundred messages.
        self.births = trio.CapacityLimiter(_BIRTHS)
        self._log = logs.get(gen=number)

    async def load(self) -> None:
        """Start the zygote and wait until the application is imported.

        :raises ApplicationError: if that fails or takes longer than ``ready_timeout``.
        """
        channel, pid = self._spawn()
        try:
            answer = await self._first_answer(channel)
            if isinstance(answer, Loaded) and answer.protocol == PROTOCOL:
                self._take(answer, channel)
                return
            channel.close()
            await self._explain(pid, answer)
        except trio.Cancelled:
            # An import that hangs would not notice that nobody waits for it any more.
            channel.close()
            self._processes.signal(pid, signal.SIGKILL)
            raise

    def _spawn(self) -> tuple[Channel, int]:
        try:
            ours, theirs = pair()
        except OSError as error:
            raise ApplicationError(f"the master cannot make a channel: {error.strerror}") from error
        channel = Channel(ours)
        try:
            self.pid = self._processes.spawn(
                program(_BOOT),
                descriptors={CHANNEL: theirs.fileno()},
            )
        except OSError as error:
            channel.close()
            raise ApplicationError(
                f"{sys.executable} cannot be started: {error.strerror}"
            ) from error
        finally:
            theirs.close()
        return channel, self.pid

    async def _first_answer(self, channel: Channel) -> object:
        """What the zygote says to its first message: ``None`` if it ends, or a TimeoutError."""
        settings = self.settings
        # A restarted zygote must load the code of its generation, wherever a symbolic link points
        # by now.
        app_dir = self.loaded.app_dir if self.loaded is not None else settings.app_dir
        load = Load(
            protocol=PROTOCOL,
            instance=settings.name,
            generation=self.number,
            application=settings.app,
            app_dir=app_dir,
            preload=settings.preload,
            scoreboard=self._scoreboard,
            entry=ENTRIES[settings.worker],
            settings=msgspec.to_builtins(without_password(settings)),
            node=self._node,
        )
        with trio.move_on_after(settings.ready_timeout):
            channel.post(load)
            try:
                received = await channel.receive()
            except MessageError as error:
                return LoadFailed(
                    f"the zygote does not speak our language: {error}", "restart the service", ""
                )
            return received.message if received is not None else None
        return TimeoutError()

    async def _explain(self, pid: int, answer: object) -> NoReturn:
        """Raise what keeps the application from being imported, once its zygote is gone."""
        settings = self.settings
        if isinstance(answer, TimeoutError):
            await self._abort(pid)
            raise ApplicationError(
                f"importing {settings.app} took longer than ready_timeout "
                f"({settings.ready_timeout:g} s); its stack is in the log",
                "import less, or raise ready_timeout",
            )
        ended = "closed its channel"
        with trio.move_on_after(_END_GRACE) as patience:
            ended = str(await self._processes.wait(pid))
            self.pid = None
        if patience.cancelled_caught:
            await self._abort(pid)
        if isinstance(answer, LoadFailed):
            raise ApplicationError(answer.message, answer.remedy, answer.traceback)
        raise ApplicationError(f"the process that imports {settings.app} {ended}", "see the log")

    async def attend(self) -> None:
        """Listen to the zygote until it ends; a zygote that is killed is started again."""
        backoff = Backoff(
            self.settings.backoff_min,
            self.settings.backoff_max,
            self.settings.failure_budget,
            self.settings.failure_window,
        )
        with self._attending:
            while True:
                began = trio.current_time()
                if self.pid is not None:
                    await self._listen()
                    self._unavailable()
                    ended = await self._processes.wait(self.pid)
                    if not self.ending:
                        self._log.warning("zygote_lost", pid=self.pid, reason=str(ended))
                    self.pid = None
                    # Who was not born by now will not be; who was says so itself.
                    for serial in self._asked:
                        self._fork_failed(serial, "its zygote died")
                    self._asked.clear()
                if self.ending:
                    break
                delay = backoff.lost(at_boot=False, lived=trio.current_time() - began)
                assert delay is not None
                await trio.sleep(delay)
                await self._load_again()
        self._ended.set()

    async def _load_again(self) -> None:
        try:
            await self.load()
        except ApplicationError as error:
            self.error = str(error)
            self._log.error(
                "zygote_restart_failed",
                error=error.message,
                exception=error.traceback or None,
            )
        else:
            self._log.info("zygote_restarted", pid=self.pid)

    async def available(self) -> None:
        """Wait until there is a zygote to ask for workers."""
        await self._available.wait()

    def fork(self, fork: Fork, descriptors: list[int]) -> bool:
        """Ask for a worker; whether the zygote could be asked."""
        assert self._channel is not None
        try:
            asked = self._channel.post(fork, descriptors)
        except ChannelFull:
            self.kill()
            return False
        if asked:
            self._asked.add(fork.serial)
        else:
            self._unavailable()
        return asked

    def kill(self) -> None:
        """End a zygote that does not do its work; it is started again."""
        if self.pid is not None:
            self._log.error("zygote_stuck", pid=self.pid)
            self._unavailable()
            self._processes.signal(self.pid, signal.SIGKILL)

    async def end(self, grace: float = _END_GRACE) -> None:
        """Let the zygote go; its workers stay.

        :param grace: seconds until it is killed.
        """
        self.ending = True
        if self._channel is not None:
            self._channel.close()
        if self.pid is None or not self._available.is_set():
            # None there, or one that is only being started.
            self._attending.cancel()
            return
        with trio.move_on_after(grace):
            await self._ended.wait()
            return
        self._processes.signal(self.pid, signal.SIGKILL)

    def _unavailable(self) -> None:
        if self._available.is_set():
            self._available = trio.Event()

    def _take(self, loaded: Loaded, channel: Channel) -> None:
        for warning in loaded.warnings:
            self._log.warning("application_warning", warning=warning)
        if self.loaded is not None and loaded.digest != self.loaded.digest:
            self.mixed = True
            self._log.warning(
                "generation_mixed",
                hint="files changed since this generation was loaded; reload to have one code",
            )
        else:
            self.loaded = loaded
        self.error = ""
        self._channel = channel
        self._available.set()

    async def _listen(self) -> None:
        assert self._channel is not None
        while True:
            try:
                received = await self._channel.receive()
            except MessageError as error:
                self._log.error("zygote_message_lost", error=str(error))
                continue
            except trio.ClosedResourceError:
                return
            if received is None:
                self._channel.close()
                return
            if isinstance(received.message, Forked | ForkFailed):
                self._asked.discard(received.message.serial)
            if isinstance(received.message, Forked):
                self._forked(received.message.serial, received.message.pid)
            elif isinstance(received.message, ForkFailed):
                self._fork_failed(received.message.serial, received.message.message)

    async def _abort(self, pid: int) -> None:
        """Have the process say in the log where it is, and see its end."""
        await self._processes.abort(pid)
        await self._processes.wait(pid)
        self.pid = None
