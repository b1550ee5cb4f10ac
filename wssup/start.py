"""What processes of an instance begin with: the channel to the master, and what a zygote gives a
newborn worker.
"""

from __future__ import annotations

import socket
from typing import Final

import msgspec

from wssup.application import Application
from wssup.messages import Fork, Load
from wssup.scoreboard import Scoreboard

__all__ = ["CHANNEL", "WorkerStart"]

#: The descriptor that the master lays the channel of a zygote or a bridge on.
CHANNEL: Final = 3


class WorkerStart(msgspec.Struct, frozen=True):
    """All that a worker begins with; it owns the descriptors.

    :ivar load: the generation: instance, application, settings.
    :ivar fork: the worker: slot, serial number, scoreboard row.
    :ivar channel: to the master.
    :ivar listeners: descriptor by address.
    :ivar scoreboard: attached before the fork.
    :ivar application: imported before the fork; ``None`` with ``preload = false``.
    :ivar app_dir: resolved directory of the application.
    """

    load: Load
    fork: Fork
    channel: socket.socket
    listeners: dict[str, int]
    scoreboard: Scoreboard
    application: Application | None
    app_dir: str
