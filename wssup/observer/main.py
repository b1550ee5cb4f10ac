"""The process: hears from the master what there is to show, and ends with it."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from typing import NoReturn

import setproctitle

from wssup import logs
from wssup.errors import MessageError, WssupError
from wssup.start import CHANNEL
from wssup.status import lines

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
#: Whoever asks must not take from those who serve.
_NICE = 5


def main() -> None:
    """Run the observer; exits the process. The last argument is the number of status sockets, which
    lie after the channel.
    """
    # As in the zygote: the master decides who ends, by closing the channel, and if it is killed the
    # kernel does (prctl(2)).
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    faulthandler.enable()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A sandbox may refuse it.
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    channel = socket.socket(fileno=CHANNEL)
    sockets = [socket.socket(fileno=CHANNEL + 1 + n) for n in range(int(sys.argv[-1]))]
    for inherited in (channel, *sockets):
        inherited.set_inheritable(False)
    received = bytearray()
    begin = _first(channel, received)
    if begin is None:
        sys.exit(0)
    setproctitle.setproctitle(f"wssup: observer {begin.instance}")
    logs.configure(begin.log_level, begin.log_format)
    logs.bind(process="observer", pid=os.getpid())
    for noisy in ("uvicorn", "uvicorn.error", "asyncio"):
        # What clients do wrong is told to them, and is no news.
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if begin.version != lines.VERSION:
        why = f"the master speaks version {begin.version}, this wssup {lines.VERSION}; restart it"
        _fail(channel, why)
    try:
        # It brings much, and errors can be told from here on.
        from wssup.observer.process import run  # noqa: PLC0415

        run(begin, channel, sockets, received)
    except WssupError as error:
        _fail(channel, str(error))
    except Exception as error:  # noqa: BLE001 - the master says it, and starts another
        logs.get().error("observer_failed", exc_info=error)
        _fail(channel, f"{type(error).__name__}: {error}")


def _fail(channel: socket.socket, why: str) -> NoReturn:
    channel.setblocking(True)
    with contextlib.suppress(OSError):
        channel.sendall(lines.encode(lines.Failed(why[:1000])))
    sys.exit(1)


def _first(channel: socket.socket, received: bytearray) -> lines.Begin | None:
    """The master's first line, if it says one; what came behind it stays in ``received``."""
    while b"\n" not in received:
        chunk = channel.recv(64 * 1024)
        if not chunk:
            return None
        received += chunk
    end = received.index(b"\n")
    begin = lines.to_observer(bytes(received[:end]))
    del received[: end + 1]
    if not isinstance(begin, lines.Begin):
        raise MessageError(f"{type(begin).__name__} where Begin is expected")
    return begin
