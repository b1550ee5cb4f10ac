"""The status for everybody: those who may not use the control socket get the same document from
the status socket, by HTTP.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Final

from wssup.cli.client import Document, Target
from wssup.errors import CommandError

__all__ = ["status_of"]

_SOCKET: Final = "status.sock"
_LONGEST: Final = 16 << 20


def status_of(target: Target) -> Document:
    """The status document of an instance.

    :raises CommandError: as `Target.ask`.
    """
    try:
        return target.ask("status")
    except CommandError as error:
        if error.code != "forbidden":
            raise
        found = _visit(target)
        if found is None:
            raise
        return found


def _visit(target: Target) -> Document | None:
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
    return found if isinstance(found, dict) else None


class _Unix(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
