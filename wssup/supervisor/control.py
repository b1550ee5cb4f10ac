"""The control socket: one JSON object per line each way; commands of the service's own people only.

A client sends ``{"v": 1, "command": NAME, …}`` and gets any number of ``{"v": 1, "event": …}``
lines, then one with ``result`` or ``error``. What a client does wrong is told to that client alone.
What commands do is in commands.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from wssup import logs
from wssup.errors import CommandError, InstanceError
from wssup.supervisor.commands import CHANGING, COMMANDS, Reply

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["VERSION", "Control"]

#: The version of the protocol.
VERSION = 1
#: Bytes of a request at most: 64 KiB to publish, each of which may be six in JSON. Seconds a client
#: has to send one, and to take a line of the answer. The former are below the patience of our own
#: commands, which may wait for a place behind others.
LONGEST_LINE = 512 * 1024
REQUEST_PATIENCE = 3.0
PATIENCE = 10.0
#: Clients served at a time; further ones wait in the backlog.
_MOST_CLIENTS = 32
#: <asm-generic/socket.h>: the supplementary groups of the peer, as of its connect(2).
_SO_PEERGROUPS = 59
#: <linux/limits.h> NGROUPS_MAX.
_MOST_GROUPS = 65536


class Control:
    """Serves ``control.sock`` of an instance."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._log = logs.get()
        self._places = trio.CapacityLimiter(_MOST_CLIENTS)
        self._clients = 0
        self._idle = trio.Event()

    async def settle(self, seconds: float) -> None:
        """Let the conversations under way come to their end, but no longer than that."""
        with trio.move_on_after(seconds):
            while self._clients:
                await self._idle.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        path = self._master.instance.control
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            try:
                # Nobody can connect between bind() and listen(), so the mode is right before
                # anybody can use it.
                await listener.bind(str(path))
                path.chmod(0o660)
            except OSError as error:
                raise InstanceError(f"the control socket {path}: {error.strerror}") from error
            listener.listen(_MOST_CLIENTS)
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    await self._places.acquire_on_behalf_of(token := object())
                    stream = None
                    while stream is None:
                        try:
                            client, _ = await listener.accept()
                            stream = trio.SocketStream(client)
                        except OSError as error:
                            # A client that went away, or no descriptors left: others may have more
                            # luck.
                            self._log.warning("control_accept_failed", error=error.strerror)
                            await trio.sleep(0.1)
                    nursery.start_soon(self._serve, stream, token)

    async def _serve(self, stream: trio.SocketStream, token: object) -> None:
        self._clients += 1
        try:
            async with stream:
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self._log.debug("control_client_gone")
        except Exception:  # noqa: BLE001 - logged with its traceback
            # A mistake of ours in one command must not end the service.
            self._log.exception("control_failed")
        finally:
            self._places.release_on_behalf_of(token)
            self._clients -= 1
            if not self._clients:
                self._idle.set()
                self._idle = trio.Event()

    async def _converse(self, stream: trio.SocketStream) -> None:
        async def say(line: Mapping[str, object]) -> None:
            with trio.fail_after(PATIENCE):
                await stream.send_all(msgspec.json.encode({"v": VERSION, **line}) + b"\n")

        async def gone() -> None:
            # What a client says after its request is not looked at.
            with contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some(LONGEST_LINE):
                    pass

        try:
            allowed(stream.socket)
            request = parse(await self._read_line(stream))
            name = request.pop("command")
            if name in CHANGING:
                pid, user, _ = _peer(stream.socket)
                self._log.info("command", name=name, uid=user, client_pid=pid)
            result = await COMMANDS[name](self._master, Reply(say, gone), request)
        except CommandError as error:
            await say(
                {"error": {"code": error.code, "message": error.message, "remedy": error.remedy}}
            )
            return
        if result is not None:
            await say({"result": result})

    async def _read_line(self, stream: trio.SocketStream) -> bytes:
        line = bytearray()
        with trio.move_on_after(REQUEST_PATIENCE):
            while (end := line.find(b"\n")) < 0 and len(line) <= LONGEST_LINE:
                chunk = await stream.receive_some(LONGEST_LINE)
                if not chunk:
                    raise CommandError("bad_json", "the request ends without a line feed")
                line += chunk
            if not 0 <= end <= LONGEST_LINE:
                raise CommandError("too_long", f"the request is longer than {LONGEST_LINE} bytes")
            return bytes(line[:end])
        raise CommandError("timeout", f"no request within {REQUEST_PATIENCE:g} s")


def parse(line: bytes) -> dict[str, Any]:
    """The request in a line.

    :raises CommandError: ``bad_json``, ``bad_version`` or ``unknown_command``.
    """
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CommandError("bad_json", f"the request is not a JSON object: {error}") from None
    version = request.pop("v", None)
    # True equals 1 and is none.
    if type(version) is not int or version != VERSION:
        raise CommandError(
            "bad_version", f"this instance speaks version {VERSION} of the protocol", 'send "v": 1'
        )
    name = request.get("command")
    if not isinstance(name, str) or name not in COMMANDS:
        raise CommandError(
            "unknown_command",
            f"there is no command {name!r}",
            f"known: {', '.join(sorted(COMMANDS))}",
        )
    return request


def allowed(client: trio.socket.SocketType) -> None:
    """Let root and the service's own user and group pass (SO_PEERCRED, SO_PEERGROUPS; unix(7),
    socket(7)).

    The socket's mode says the same; this holds when somebody changed that.

    :raises CommandError: ``forbidden``.
    """
    _, user, group = _peer(client)
    if user in (0, os.geteuid()) or group == os.getegid():
        return
    if os.getegid() in _groups(client):
        return
    raise CommandError(
        "forbidden",
        f"user id {user} may not command this instance",
        f"run it as root, as {_user()}, or as a member of group {_group()}",
    )


def _peer(client: trio.socket.SocketType) -> tuple[int, int, int]:
    """The process, user and group at the other end, as of its connect(2)."""
    form = "3i"
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(form))
    pid, user, group = struct.unpack(form, credentials)
    return pid, user, group


def _groups(client: trio.socket.SocketType) -> list[int]:
    """The supplementary groups of the peer. Python's getsockopt() takes no more than 1024 bytes."""
    groups = (ctypes.c_uint32 * _MOST_GROUPS)()
    size = ctypes.c_uint32(ctypes.sizeof(groups))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(
        client.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, groups, ctypes.byref(size)
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return groups[: size.value // ctypes.sizeof(ctypes.c_uint32)]


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())
