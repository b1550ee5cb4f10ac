"""What the service manager gives this process: a socket to tell it things, a watchdog, a place for
descriptors, and descriptors. All of it is taken out of the environment, so that no child mistakes
it for its own.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import NamedTuple, Self

from wssup.config.addresses import TcpAddress
from wssup.supervisor.activation import Found, Passed, passed
from wssup.supervisor.fdstore import Store
from wssup.supervisor.notify import Notifier, address_of

__all__ = ["Manager", "describe"]


class Manager(NamedTuple):
    """The service manager, as far as there is one.

    :ivar watchdog: seconds within which it wants to hear from us; ``None`` if it does not care.
    :ivar store: ``None`` if it takes no descriptors.
    """

    notifier: Notifier
    watchdog: float | None
    store: Store | None
    passed: list[Passed]

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Self:
        """Take what the environment says (sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)).

        Systemd says the size of the store (``$FDSTORE``) from version 254 on; wssup's unit says it
        for older ones.
        """
        pid = os.getpid()
        notifier = Notifier(address_of(environ.pop("NOTIFY_SOCKET", "")))
        limit = _number(environ.pop("FDSTORE", ""))
        usec = _number(environ.pop("WATCHDOG_USEC", ""))
        ours = environ.pop("WATCHDOG_PID", str(pid)) == str(pid)
        descriptors = passed(environ, pid)
        for one in list(descriptors):
            try:
                # A worker that had one would keep the address open for ever.
                os.set_inheritable(one.descriptor, False)
            except OSError:
                # Only said to be there: somebody between the manager and us has closed it.
                descriptors.remove(one)
        return cls(
            notifier,
            usec / 1e6 if usec and ours and notifier else None,
            Store(notifier, limit) if limit and notifier else None,
            descriptors,
        )

    @classmethod
    def none(cls) -> Self:
        """There is none."""
        return cls(Notifier(None), None, None, [])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def describe(one: Passed) -> Found:
    """What a descriptor is that was passed."""
    try:
        with socket.socket(fileno=os.dup(one.descriptor)) as sock:
            listens = (
                sock.family in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
                and sock.type == socket.SOCK_STREAM
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            )
            if not listens:
                return Found(one.descriptor, one.name)
            name = sock.getsockname()
    except OSError as error:
        return Found(one.descriptor, one.name, problem=f"it is no socket ({error.strerror})")
    if sock.family == socket.AF_UNIX:
        path = os.fsdecode(name)
        if not path.startswith("/"):
            return Found(one.descriptor, one.name, problem="its address has no path")
        return Found(one.descriptor, one.name, f"unix:{path}", _unreachable(path))
    return Found(one.descriptor, one.name, str(TcpAddress(name[0], name[1])))


def _unreachable(path: str) -> str:
    """Why nobody can connect to a unix socket whose file should be there; empty if one can."""
    try:
        is_socket = stat.S_ISSOCK(Path(path).lstat().st_mode)
    except OSError:
        return "its file is gone"
    return "" if is_socket else "its file is another by now"
