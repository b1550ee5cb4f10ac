"""The sockets that the observer serves. The master makes them, and keeps them from one observer to
the next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wssup import logs
from wssup.config.addresses import TcpAddress, parse_bind
from wssup.config.settings import Settings
from wssup.errors import InstanceError, ListenError, UserError
from wssup.kernel.listeners import describe_listener
from wssup.status.hosts import is_loopback

__all__ = ["SHORTEST_TOKEN", "check_token_file", "opened"]

#: Clients that may wait while there is no observer; it asks for as many (observer/server.py).
_BACKLOG = 1024
#: Bytes of a token for publishing.
SHORTEST_TOKEN = 16
#: How often, and after how many seconds, an address is asked for again that a dead master's
#: observer may still have: it dies with its master, but not in the same instant.
_TRIES = 20
_PAUSE = 0.05


@contextmanager
def opened(path: Path, settings: Settings, *, patient: bool) -> Iterator[list[socket.socket]]:
    """The listening status sockets, the unix one first; none if there is to be no observer.

    :param path: of the unix socket; what is there is left over from a dead instance.
    :param patient: whether an instance of this name has just died.
    :raises InstanceError: if the unix socket cannot be made.
    :raises ListenError: if ``status_bind`` cannot be had.
    """
    if not settings.status:
        yield []
        return
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(_unix(path, int(settings.status_mode, 8)))]
        stack.callback(path.unlink, missing_ok=True)
        if settings.status_bind:
            where = parse_bind(settings.status_bind)
            assert isinstance(where, TcpAddress)  # the setting's kind sees to it
            made.append(stack.enter_context(_tcp(where, patient=patient)))
        yield made


def check_token_file(settings: Settings) -> None:
    """See that the token for publishing is there, and is a secret. It is read by the observer.

    :raises UserError: it cannot be used; says why.
    """
    text = settings.publish_token_file
    if not text:
        return
    if not settings.status:
        raise UserError(
            "publish_token_file is set, and status = false: nothing takes what is published",
            "remove one of the two",
        )
    try:
        found = Path(text).stat()
    except OSError as error:
        raise UserError(
            f"publish_token_file {text}: {error.strerror}",
            f"make one: (umask 077; openssl rand -hex 32 > {text})",
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"publish_token_file {text} is no file", "name a file with one line")
    if found.st_mode & 0o007:
        raise UserError(
            f"publish_token_file {text} is open to everybody (mode"
            f" {stat.S_IMODE(found.st_mode):04o})",
            f"chmod o= {text}, and put another token into it",
        )
    if found.st_size < SHORTEST_TOKEN:
        raise UserError(
            f"publish_token_file {text} is shorter than {SHORTEST_TOKEN} bytes: easily guessed",
            f"make another one: openssl rand -hex 32 > {text}",
        )
    if not os.access(text, os.R_OK):
        raise UserError(
            f"publish_token_file {text} cannot be read by this user",
            f"chown it to this user: {text}",
        )


def _unix(path: Path, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        path.unlink(missing_ok=True)
        # Nobody can connect between bind() and listen(), so the mode is right before anybody can
        # use it.
        sock.bind(str(path))
        path.chmod(mode)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise InstanceError(f"the status socket {path}: {error.strerror}") from error
    return sock


def _tcp(where: TcpAddress, *, patient: bool) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(
            f"status_bind {where}: {where.host!r} cannot be resolved ({error.strerror})",
            "write an IP address: 127.0.0.1:9000",
        ) from None
    family, _, _, _, target = min(found, key=lambda f: f[0] != socket.AF_INET)
    for attempt in range(_TRIES):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(target)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            in_use = error.errno == errno.EADDRINUSE
            if not (in_use and patient and attempt + 1 < _TRIES):
                raise _refused(where, error) from error
            time.sleep(_PAUSE)
        else:
            break
    bound = sock.getsockname()
    if not is_loopback(bound[0]):
        logs.get().warning(
            "status_exposed",
            bind=str(TcpAddress(bound[0], bound[1])),
            hint="everybody who reaches this address can read the status; bind 127.0.0.1 and put"
            " a proxy before it that asks who they are",
        )
    return sock


def _refused(where: TcpAddress, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        holder = describe_listener(where.port)
        return ListenError(
            f"status_bind {where} is in use" + (f" by {holder}" if holder else ""),
            "end that process, or bind another port",
        )
    return ListenError(f"status_bind {where}: {error.strerror}", "name another address")
