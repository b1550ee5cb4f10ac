"""The process: hears from the master what to join, and ends with it."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from typing import cast

import msgspec
import setproctitle

from wssup import channel, logs
from wssup.config.settings import Settings
from wssup.messages import PROTOCOL, Bridge, Failed
from wssup.start import CHANNEL

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the bridge; exits the process."""
    # As in the zygote: the master decides who ends, by closing the channel, and if it is killed the
    # kernel does (prctl(2)).
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    faulthandler.enable()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    end = socket.socket(fileno=CHANNEL)
    os.set_inheritable(CHANNEL, False)
    received = channel.receive(end)
    if received is None:
        sys.exit(0)
    sys.exit(_run(end, cast("Bridge", received.message)))


def _run(end: socket.socket, order: Bridge) -> int:
    setproctitle.setproctitle(f"wssup: bridge {order.instance}")
    if order.protocol != PROTOCOL:
        # Its settings may be others too.
        logs.configure("info", "json")
        return _fail(
            end,
            f"the running master speaks protocol {order.protocol}, this wssup speaks {PROTOCOL}",
        )
    settings = msgspec.convert(order.settings, Settings)
    logs.configure(settings.log_level, settings.log_format)
    logs.bind(process="bridge", pid=os.getpid())
    # What it says is said here, once and without what nobody should read.
    logging.getLogger("coredis").setLevel(logging.CRITICAL)
    try:
        from wssup.bridge import process  # noqa: PLC0415 - the client is there if it is wanted
    except ImportError as error:
        return _fail(
            end, f'{error.name} is missing, which topics.bus needs: pip install "wssup[redis]"'
        )
    return process.run(end, order, settings)


def _fail(end: socket.socket, text: str) -> int:
    logs.get().error("bridge_failed", error=text)
    channel.send(end, Failed(text, ""))
    return 1
