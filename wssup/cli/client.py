"""The control socket's client: one command, its events, its result.

The protocol is one JSON object per line. The client sends ``{"v": 1, "command": …}``; the master
answers with any number of events and then one result or one error. Everything here blocks, with
deadlines; an event that this version does not know is passed on like the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from wssup.config.loading import CONTROL_SOCKET
from wssup.config.values import format_duration
from wssup.errors import CommandError

__all__ = ["ANSWER_TIMEOUT", "Conversation", "Document", "Target", "peer_of"]

Document = dict[str, Any]

ANSWER_TIMEOUT: Final = 5.0
"""Seconds within which a running master answers."""

_VERSION: Final = 1
_LOCK: Final = "lock"
_UCRED: Final = "=iII"
"""struct ucred: pid, uid, gid."""
_LONGEST_LINE: Final = 16 << 20
# flock(2) has no timeout, and a socket that is to appear has no event here: both are asked again.
_AGAIN: Final = 0.02


def _ignore(_event: Document) -> None:
    """What to do with events that nobody wants to see."""


def peer_of(connection: socket.socket) -> int:
    """The process id of who made a unix socket listen that we are connected to; 0 if it is in
    another pid namespace (SO_PEERCRED, unix(7)).
    """
    size = struct.calcsize(_UCRED)
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack(_UCRED, found)[0]
    return pid


class Target(msgspec.Struct, frozen=True):
    """The instance that a command is for.

    :ivar directory: its runtime directory (``<runtime_dir>/<name>``).
    :ivar answer_timeout: seconds within which it must answer.
    """

    name: str
    directory: Path
    answer_timeout: float = ANSWER_TIMEOUT

    def connect(self) -> Conversation:
        """A conversation with the master; waits for one that has its lock but no socket yet.

        :raises CommandError: ``not_running``, ``no_answer`` or ``forbidden``.
        """
        deadline = time.monotonic() + self.answer_timeout
        while True:
            connection = self._try_to_connect()
            if connection is not None:
                return Conversation(self, connection)
            if not self.locked():
                raise CommandError(
                    "not_running",
                    f"no instance named {self.name!r} runs (looked in {self.directory})",
                    "start one with wssup serve, or name another with --name or --runtime-dir",
                )
            if time.monotonic() > deadline:
                raise self.no_answer("is there but has no control socket")
            time.sleep(_AGAIN)

    def ask(self, command: str, **arguments: object) -> Document:
        """The result of a command that answers at once.

        :raises CommandError: if it does not, or refuses.
        """
        with self.connect() as conversation:
            conversation.send(command, **arguments)
            return conversation.result()

    def locked(self) -> bool:
        """Whether a living process holds the instance's lock (flock(2)).

        :raises CommandError: ``forbidden`` if the lock may not be looked at.
        """
        path = self.directory / _LOCK
        try:
            lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._forbidden(path, error) from None
        try:
            # Shared: two who look at the same time do not take each other for a master.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def wait_until_gone(self, deadline: float) -> bool:
        """Whether the instance's lock is free before `deadline` (of ``time.monotonic()``)."""
        while self.locked():
            if time.monotonic() > deadline:
                return False
            time.sleep(_AGAIN)
        return True

    def no_answer(self, what: str) -> CommandError:
        """The error that says that the master does not answer."""
        return CommandError(
            "no_answer",
            f"instance {self.name!r} {what} (waited {format_duration(self.answer_timeout)})",
            f"look at its log; its lock {self.directory / _LOCK} names its pid",
        )

    def _try_to_connect(self) -> socket.socket | None:
        path = self.directory / CONTROL_SOCKET
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # While the backlog is full, connect(2) on a unix socket blocks for SO_SNDTIMEO; it
            # fails at once on a non-blocking socket, which settimeout() would make of this one.
            whole, part = divmod(self.answer_timeout, 1)
            timeout = struct.pack("@ll", int(whole), max(1, int(part * 1_000_000)))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            connection.connect(str(path))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            connection.close()
            return None
        except BlockingIOError:
            connection.close()
            raise self.no_answer("does not take connections on its control socket") from None
        except OSError as error:
            connection.close()
            raise self._forbidden(path, error) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _forbidden(self, path: Path, error: OSError) -> CommandError:
        return CommandError(
            "forbidden",
            f"{path}: {error.strerror}",
            "run as root, or as the service's user or group",
        )


class Conversation:
    """One connection to the control socket, for one command; a context manager that closes it."""

    def __init__(self, target: Target, connection: socket.socket) -> None:
        self._target = target
        self._socket = connection
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    @property
    def peer(self) -> int:
        """The master's process id, as `peer_of` has it."""
        return peer_of(self._socket)

    def send(self, command: str, **arguments: object) -> None:
        """Send the command.

        :raises CommandError: ``no_answer`` if the master does not take it.
        """
        line = json.dumps({"v": _VERSION, "command": command, **arguments}).encode() + b"\n"
        self._socket.settimeout(self._target.answer_timeout)
        try:
            self._socket.sendall(line)
        except TimeoutError:
            raise self._target.no_answer("does not read its control socket") from None
        except (BrokenPipeError, ConnectionResetError):
            # A master that refuses us says why before it closes: result() reads it.
            return

    def result(
        self,
        on_event: Callable[[Document], None] = _ignore,
        on_silence: Callable[[], None] | None = None,
    ) -> Document:
        """The command's result, after its events.

        :param on_silence: called after each `answer_timeout` without a message; it may raise. By
            default silence is an error.
        :raises CommandError: what the master refused; ``no_answer``; ``ended`` if it went away;
            ``bad_answer`` for what is not the protocol. The application's traceback is its note.
        """
        while True:
            message = self._next(on_silence)
            if message is None:
                raise CommandError(
                    "ended",
                    f"instance {self._target.name!r} ended the conversation without a result",
                    "see wssup status, and its log",
                )
            if "event" in message:
                on_event(message)
            elif isinstance(message.get("result"), dict):
                result: Document = message["result"]
                return result
            elif isinstance(message.get("error"), dict):
                raise _refusal(message["error"])
            else:
                raise _not_the_protocol("neither event, result nor error")

    def wait_for_end(
        self, on_event: Callable[[Document], None], on_silence: Callable[[], None]
    ) -> None:
        """Read on until the master closes the connection: it is (nearly) gone."""
        while (message := self._next(on_silence)) is not None:
            if "event" in message:
                on_event(message)

    def _next(self, on_silence: Callable[[], None] | None) -> Document | None:
        """The next message; None at the end of the connection."""
        while True:
            try:
                line = self._line()
            except TimeoutError:
                if on_silence is None:
                    raise self._target.no_answer("does not answer") from None
                on_silence()
                continue
            return None if line is None else _decoded(line)

    def _line(self) -> bytes | None:
        """The next line; None at the end of the connection.

        :raises TimeoutError: if it is not there after `answer_timeout`.
        """
        deadline = time.monotonic() + self._target.answer_timeout
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > _LONGEST_LINE:
                raise _not_the_protocol("a line of more than 16 MiB")
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            try:
                chunk = self._socket.recv(1 << 16)
            except ConnectionResetError:
                # The master died with our command unread (unix(7)).
                chunk = b""
            if not chunk:
                return None
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _decoded(line: bytes) -> Document:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise _not_the_protocol("not JSON") from None
    if not isinstance(message, dict):
        raise _not_the_protocol("not a JSON object")
    if message.get("v") != _VERSION:
        raise _not_the_protocol(f"version {message.get('v')!r} of the protocol")
    return message


def _refusal(error: Document) -> CommandError:
    refusal = CommandError(
        str(error.get("code", "refused")),
        str(error.get("message", "refused")),
        str(error.get("remedy") or ""),
    )
    if error.get("traceback"):
        refusal.add_note(str(error["traceback"]))
    return refusal


def _not_the_protocol(what: str) -> CommandError:
    return CommandError(
        "bad_answer",
        f"the control socket answers with what this wssup does not understand: {what}",
        "use the wssup that the instance runs",
    )
