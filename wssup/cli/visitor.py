"""The status for everybody: those who may not use the control socket get the same document from
the status socket, by HTTP.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Final, NamedTuple

from wssup.cli.client import Document, Target, peer_of
from wssup.errors import CommandError, UserError

__all__ = ["Told", "status_of", "told_by"]

_SOCKET: Final = "status.sock"
_LONGEST: Final = 16 << 20


class Told(NamedTuple):
    """What an instance says of itself.

    :ivar master: the process id of whoever listens on the socket that it was asked on, as this
        process sees it; 0 if it does not (another pid namespace, pid_namespaces(7)).
    """

    status: Document
    master: int

    def check_pids(self, command: str) -> None:
        """Refuse to take the process ids that an instance names for those of processes here.

        :param command: the one that needs them, of ``wssup``.
        :raises UserError: they are those of another pid namespace, a container's.
        """
        named = self.status.get("pid")
        if named == self.master:
            return
        there = f"nsenter --all --target {self.master} " if self.master else ""
        raise UserError(
            f"the instance's process ids (its master says {named}) are not those of processes "
            "here: it runs in a container",
            f"run it in there: {there}wssup {command}",
        )


def status_of(target: Target) -> Document:
    """The status document of an instance.

    :raises CommandError: as `Target.ask`.
    """
    return told_by(target).status


def told_by(target: Target) -> Told:
    """The status document of an instance, and who gave it.

    :raises CommandError: as `Target.ask`.
    """
    try:
        with target.connect() as conversation:
            conversation.send("status")
            return Told(conversation.result(), conversation.peer)
    except CommandError as error:
        if error.code != "forbidden":
            raise
        found = _visit(target)
        if found is None:
            raise
        return found


def _visit(target: Target) -> Told | None:
    """What the status socket says; ``None`` if there is none, or it may not be used, or says
    something else.
    """
    connection = _Unix(target.directory / _SOCKET, target.answer_timeout)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            return None
        found = json.loads(answer.read(_LONGEST))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    return Told(found, connection.peer) if isinstance(found, dict) else None


class _Unix(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self.peer = 0

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
        # The observer answers; the master has made the socket listen.
        self.peer = peer_of(self.sock)
