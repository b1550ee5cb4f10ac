"""The zygote: a process per generation that imports the application once and forks workers from
itself.

It runs no event loop and no thread, so a fork copies nothing half-done; what it imported is shared
with its workers copy-on-write. A worker comes through an intermediate process that exits at once,
so that its parent becomes the master (a subreaper), which is the one that reaps it. The zygote ends
on end of file from the master.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import setproctitle

from wssup import application, channel, logs
from wssup.application import Way
from wssup.errors import ApplicationError, MessageError, WssupError
from wssup.messages import PROTOCOL, Fork, Forked, ForkFailed, Load, Loaded, LoadFailed
from wssup.scoreboard import Scoreboard
from wssup.start import CHANNEL, WorkerStart

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
#: Seconds between two looks at who the parent is.
_GLANCE = 0.0002

Entry = Callable[[WorkerStart], int]


def main() -> None:
    """Run the zygote, and in each forked child the worker; exits the process."""
    # Terminal and service manager signal whole groups; the master decides who ends, and tells by
    # closing the channel. A handler that does nothing, unlike SIG_IGN, is not inherited by programs
    # the application starts.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # On SIGABRT every thread's stack goes to the log: that is how a hanging import or worker is
    # shown.
    faulthandler.enable()
    # A master that is killed cannot close the channel of a zygote that is lost in an import; the
    # kernel can (prctl(2)). Workers do not inherit this: fork(2) clears it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    end = socket.socket(fileno=CHANNEL)
    os.set_inheritable(CHANNEL, False)
    received = channel.receive(end)
    if received is None:
        sys.exit(0)
    load = cast("Load", received.message)
    try:
        zygote = _Zygote(end, load)
    except ApplicationError as error:
        channel.send(end, LoadFailed(error.message, error.remedy, error.traceback))
        sys.exit(1)
    except WssupError as error:
        channel.send(end, LoadFailed(str(error), "restart the service", ""))
        sys.exit(1)
    start = zygote.serve()
    if start is None:
        sys.exit(0)
    # The worker unwinds the zygote's stack before it begins, so that nothing of the zygote is kept
    # alive by it.
    entry = zygote.entry
    del zygote, received, end
    sys.exit(entry(start))


class _Zygote:
    def __init__(self, end: socket.socket, load: Load) -> None:
        began = time.monotonic()
        if load.protocol != PROTOCOL:
            raise WssupError(
                f"the running master speaks protocol {load.protocol}, this wssup speaks {PROTOCOL}"
            )
        self._end = end
        self._load = load
        setproctitle.setproctitle(f"wssup: zygote {load.instance} gen={load.generation}")
        logs.configure(load.settings["log_level"], load.settings["log_format"])
        self._app_dir = os.path.realpath(load.app_dir)
        # The worker's own modules are imported before the application's, so that they are shared
        # too.
        module, _, function = load.entry.partition(":")
        self.entry: Entry = getattr(importlib.import_module(module), function)
        self._scoreboard = Scoreboard.attach(load.scoreboard)
        self._application = None
        warnings: list[str] = []
        if load.preload:
            self._application = application.load(
                load.application, self._app_dir, Way.by(load.settings)
            )
            application.check_worker(self._application, load.settings["worker"])
            warnings = _check_threads(load.application)
        digest = application.digest() if load.preload else ""
        # Objects that exist now are never garbage: out of the collector's sight their pages stay
        # shared.
        gc.collect()
        gc.freeze()
        channel.send(
            end, Loaded(PROTOCOL, self._app_dir, digest, time.monotonic() - began, warnings)
        )

    def serve(self) -> WorkerStart | None:
        """Fork on request; returns ``None`` at the end, and what to start with in each child."""
        while True:
            try:
                received = channel.receive(self._end)
            except ConnectionResetError:
                continue
            except MessageError as error:
                logs.get(gen=self._load.generation, pid=os.getpid()).error(
                    "zygote_message_lost", error=str(error)
                )
                continue
            if received is None:
                return None
            if isinstance(received.message, Fork):
                start = self._fork(received.message, received.descriptors)
                if start is not None:
                    return start

    def _fork(self, fork: Fork, descriptors: list[int]) -> WorkerStart | None:
        # Whatever is buffered now would be written by every child again.
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        try:
            intermediate = os.fork()
        except OSError as error:
            answer = f"fork: {error.strerror}".encode()
            os.close(writer)
        else:
            if intermediate == 0:
                os.close(reader)
                return self._second_fork(fork, descriptors, writer)
            os.close(writer)
            answer = os.read(reader, 128)
            # Only once the intermediate is reaped is the worker the master's child; until then its
            # waitid(2) says ECHILD.
            os.waitpid(intermediate, 0)
        os.close(reader)
        for descriptor in descriptors:
            os.close(descriptor)
        if answer.isdigit():
            channel.send(self._end, Forked(fork.serial, int(answer)))
        else:
            reason = answer.decode() or "the intermediate process died"
            channel.send(self._end, ForkFailed(fork.serial, reason))
        return None

    def _second_fork(self, fork: Fork, descriptors: list[int], writer: int) -> WorkerStart:
        """In the intermediate: fork the worker, say its pid, exit. Returns in the worker only, once
        that is the master's child.
        """
        intermediate = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.write(writer, f"fork: {error.strerror}".encode())
            os._exit(1)
        if pid:
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.close(writer)
        self._end.close()
        # Who the parent is, application and hooks may ask at once. The kernel tells nobody that it
        # changed: what it does tell, that the intermediate is dead, takes a pidfd (Linux 5.3).
        while os.getppid() == intermediate:
            time.sleep(_GLANCE)
        load = self._load
        setproctitle.setproctitle(
            f"wssup: worker {load.instance} slot={fork.slot} gen={load.generation}"
        )
        end, *listeners = descriptors
        return WorkerStart(
            load=load,
            fork=fork,
            channel=socket.socket(fileno=end),
            listeners=dict(zip(fork.addresses, listeners, strict=True)),
            scoreboard=self._scoreboard,
            application=self._application,
            app_dir=self._app_dir,
        )


def _check_threads(name: str) -> list[str]:
    """Refuse Python threads, which no child would have; warn of native ones, which may hold locks
    for ever.

    :raises ApplicationError: naming the threads.
    """
    started = [t for t in threading.enumerate() if t is not threading.main_thread()]
    if started:
        named = ", ".join(f"{t.name!r} ({_origin(t)})" for t in started)
        raise ApplicationError(
            f"importing {name} started Python threads: {named}; forked workers would not have them",
            "start them in the lifespan, or import in each worker with --no-preload",
        )
    native = sum(1 for _ in Path("/proc/self/task").iterdir()) - 1
    if native:
        return [
            (
                f"importing {name} started {native} native threads (a library's pool?), which"
                " forked workers do not have, while locks they hold stay held; --no-preload"
                " avoids that"
            )
        ]
    return []


def _origin(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    return getattr(target, "__module__", None) or type(thread).__module__
