"""The control socket's own part, on a real unix socket: what clients do wrong is theirs alone.

What commands do is tested on real instances.
"""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tests.harness.fresh import python
from wssup.errors import CommandError, InstanceError
from wssup.supervisor import control as module
from wssup.supervisor.commands import COMMANDS
from wssup.supervisor.control import Control, parse

GOOD = b'{"v": 1, "command": "config"}\n'
PATIENCE = 20.0


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Path]:
    """A control socket over a master that has a configuration and nothing else."""
    path = tmp_path / "control.sock"
    master = SimpleNamespace(
        instance=SimpleNamespace(control=path),
        loaded=SimpleNamespace(rows=lambda: ["a row"], file=None),
    )
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(Control(master).run)  # type: ignore[arg-type]
            yield path
            nursery.cancel_scope.cancel()


async def answer(stream: trio.SocketStream) -> dict[str, Any]:
    """Everything that comes until the end, which must be one line of JSON."""
    data = bytearray()
    with contextlib.suppress(trio.BrokenResourceError):
        while chunk := await stream.receive_some():
            data += chunk
    found: dict[str, Any] = json.loads(data)
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert found.pop("v") == 1
    return found


async def ask(path: Path, request: bytes) -> dict[str, Any]:
    async with await trio.open_unix_socket(str(path)) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(request)
        return await answer(stream)


async def code(path: Path, request: bytes) -> str:
    found = await ask(path, request)
    assert set(found) == {"error"}
    assert set(found["error"]) == {"code", "message", "remedy"}
    assert found["error"]["message"]
    return str(found["error"]["code"])


async def test_a_command_and_its_result(tmp_path: Path) -> None:
    """One line brings one result, and then the end; the next client is served as well."""
    async with served(tmp_path) as path:
        for _ in range(3):
            expected = {"settings": ["a row"], "file": None}
            assert await ask(path, GOOD) == {"result": expected}


async def test_a_request_in_pieces(tmp_path: Path) -> None:
    """A request may come byte by byte; what follows its line feed is not looked at."""
    async with served(tmp_path) as path, await trio.open_unix_socket(str(path)) as stream:
        for byte in GOOD[:-1]:
            await stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()
        await stream.send_all(b"\nmore of it\n")
        assert "result" in await answer(stream)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"\n", "bad_json"),
        (b"hello\n", "bad_json"),
        (b"[1]\n", "bad_json"),
        (b"\xff\xfe\n", "bad_json"),
        (b'{"v": 1, "command": "status"', "timeout"),
        (b"{}\n", "bad_version"),
        (b'{"v": 2, "command": "status"}\n', "bad_version"),
        (b'{"v": 1}\n', "unknown_command"),
        (b'{"v": 1, "command": "stat"}\n', "unknown_command"),
        (b'{"v": 1, "command": ["status"]}\n', "unknown_command"),
        (b'{"v": 1, "command": "config", "colour": "red"}\n', "bad_argument"),
        (b'{"v": 1, "command": "scale"}\n', "bad_argument"),
        (b'{"v": 1, "command": "scale", "workers": "2"}\n', "bad_argument"),
        (b'{"v": 1, "command": "scale", "workers": true}\n', "bad_argument"),
        (b'{"v": 1, "command": "stop", "fast": 1}\n', "bad_argument"),
        (b'{"v": 1, "command": "rebalance", "now": true}\n', "bad_argument"),
        (b"x" * (module.LONGEST_LINE + 1), "too_long"),
        (b"[" * module.LONGEST_LINE + b"\n", "bad_json"),
    ],
)
async def test_what_a_client_does_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: bytes, expected: str
) -> None:
    """Each mistake is an error with its code to that client, and the next client is served."""
    if expected == "timeout":
        monkeypatch.setattr(module, "REQUEST_PATIENCE", 1.0)
    async with served(tmp_path) as path:
        assert await code(path, request_) == expected
        assert "result" in await ask(path, GOOD)


async def test_a_client_that_ends_without_a_line_feed(tmp_path: Path) -> None:
    """A request that is cut off is an error."""
    async with served(tmp_path) as path, await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(GOOD[:-1])
        await stream.send_eof()
        assert (await answer(stream))["error"]["code"] == "bad_json"


async def test_clients_that_stall_or_vanish_hold_up_nobody(tmp_path: Path) -> None:
    """While some say nothing, and others leave in the middle, others are served."""
    async with served(tmp_path) as path:
        stalling = [await trio.open_unix_socket(str(path)) for _ in range(5)]
        for part in (b"", GOOD[:5], GOOD):
            stream = await trio.open_unix_socket(str(path))
            await stream.send_all(part)
            await stream.aclose()
        assert "result" in await ask(path, GOOD)
        for stream in stalling:
            await stream.aclose()


async def test_a_mistake_of_ours_is_told_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that raises ends its conversation alone."""

    async def broken(*_: object) -> dict[str, Any]:
        raise ZeroDivisionError

    monkeypatch.setitem(COMMANDS, "stop", broken)
    async with served(tmp_path) as path:
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(b'{"v": 1, "command": "stop"}\n')
            assert await stream.receive_some() == b""
        assert "result" in await ask(path, GOOD)


async def test_many_clients(tmp_path: Path) -> None:
    """More clients at a time than are served at a time all get their answer."""
    async with served(tmp_path) as path:
        count = 2 * module._MOST_CLIENTS
        answers: list[bytes] = []

        def one() -> None:
            # A client that blocks waits when the backlog is full; one with a Python timeout does
            # not, so the kernel has to keep the time.
            with socket.socket(socket.AF_UNIX) as client:
                for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                    client.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 20, 0))
                client.connect(str(path))
                client.sendall(GOOD)
                with client.makefile("rb") as lines:
                    answers.append(lines.read())

        async with trio.open_nursery() as nursery:
            limiter = trio.CapacityLimiter(count)
            for _ in range(count):
                nursery.start_soon(partial(trio.to_thread.run_sync, one, limiter=limiter))
        assert len(answers) == count
        assert all(json.loads(line)["result"] for line in answers)


async def test_the_socket_is_for_owner_and_group(tmp_path: Path) -> None:
    """Its mode is 0660."""
    async with served(tmp_path) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


async def test_a_path_that_is_taken(tmp_path: Path) -> None:
    """A control socket that cannot be made is an error with its path."""
    (tmp_path / "control.sock").touch()
    with pytest.RaisesGroup(
        pytest.RaisesExc(InstanceError, match=r"control\.sock: Address already in use")
    ):
        async with served(tmp_path):
            pytest.fail("served")


def test_strangers_are_refused(tmp_path: Path) -> None:
    """A client of another user and group is refused by its credentials, also when the socket's mode
    would let it through; one of the service's group, main or supplementary, is not.
    """
    said = python(
        """
        from wssup.errors import CommandError
        from wssup.supervisor import control
        if os.geteuid() != 0:
            print("only root can be others")
            sys.exit(0)
        os.setgroups([])
        os.setegid(4711)
        os.seteuid(4711)

        async def main():
            listener = trio.socket.socket(socket.AF_UNIX)
            # An abstract name: no directory's permissions are in the way.
            await listener.bind("\\0wssup-test-" + str(os.getpid()))
            listener.listen(10)
            for user, group, others in (
                (4711, 1, []), (4712, 4712, []), (4712, 4711, []), (4712, 4712, [5, 4711]),
                (0, 0, []), (4712, 4712, [5]), (4712, 4712, [*range(6000, 7000), 4711]),
            ):
                # SO_PEERCRED is of the moment of connect(2).
                os.seteuid(0)
                os.setgroups(others)
                os.setegid(group)
                os.seteuid(user)
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect("\\0wssup-test-" + str(os.getpid()))
                    os.seteuid(0)
                    os.setegid(4711)
                    os.seteuid(4711)
                    peer, _ = await listener.accept()
                    with peer:
                        try:
                            control.allowed(peer)
                            print("allowed")
                        except CommandError as error:
                            print(error.code)

        trio.run(main)
        """
    )
    if said == "only root can be others\n":
        pytest.skip("only root can be others")
    yes, no = "allowed", "forbidden"
    assert said.split() == [yes, no, yes, yes, yes, no, yes]


def test_parse_gives_the_arguments() -> None:
    """The request without its version is what the command gets."""
    request = parse(b'{"v": 1, "command": "scale", "workers": 2}')
    assert request == {"command": "scale", "workers": 2}


def test_an_unknown_command_is_told_the_known_ones() -> None:
    """The error shows what was sent and names every command there is."""
    with pytest.raises(CommandError) as caught:
        parse(b'{"v": 1, "command": "reboot"}')
    assert "'reboot'" in caught.value.message
    assert set(caught.value.remedy.removeprefix("known: ").split(", ")) == set(COMMANDS)
