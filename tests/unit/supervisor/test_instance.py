"""The runtime directory: who may be the instance, and what a dead one leaves."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wssup.errors import InstanceError
from wssup.scoreboard import Scoreboard
from wssup.supervisor.instance import LONGEST_SOCKET_PATH, Instance

SHM = Path("/dev/shm")

_HOLDER = """
import socket, sys, time
from wssup.scoreboard import Scoreboard
from wssup.supervisor.instance import Instance
with Instance(sys.argv[1], sys.argv[2]) as instance:
    board = Scoreboard.create(sys.argv[2], sys.argv[1], 1, 1)
    instance.record_segment(board.name)
    socket.socket(socket.AF_UNIX).bind(str(instance.control))
    print(board.name, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a short path, as a socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="wssup-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def name() -> Iterator[str]:
    """A name of this test alone; no segment of it stays."""
    name = f"unit.{secrets.token_hex(6)}"
    yield name
    left = list(SHM.glob(f"wssup-{name}-*"))
    for path in left:
        path.unlink()
    assert left == []


def test_a_directory_is_made_and_locked(home: Path, name: str) -> None:
    """The first instance makes the runtime directory with the directories above it, and writes its
    pid into the lock; afterwards control socket and segment note are gone and the lock is empty.
    """
    top = home / "run" / "deep"
    with Instance(str(top), name) as instance:
        assert instance.path == top / name
        assert (instance.path / "lock").read_text() == f"{os.getpid()}\n"
        assert not instance.succeeded_a_dead_one
        instance.control.touch()
        instance.record_segment("wssup-x")
        assert (instance.path / "segment").read_text() == "wssup-x\n"
    assert [p.name for p in (top / name).iterdir()] == ["lock"]
    assert (top / name / "lock").read_text() == ""


def test_a_second_instance_is_refused(home: Path, name: str) -> None:
    """While an instance runs another one of its name in its directory is refused, with the pid of
    the one that runs; it touches nothing of it.
    """
    with Instance(str(home), name) as first:
        first.control.touch()
        with (
            pytest.raises(InstanceError, match=rf"'{name}' runs already \(pid {os.getpid()}, in"),
            Instance(str(home), name),
        ):
            pytest.fail("entered")
        assert first.control.exists()
        assert (first.path / "lock").read_text() == f"{os.getpid()}\n"


def test_other_names_and_directories_are_other_instances(home: Path, name: str) -> None:
    """The same name in another directory, and another name in the same directory, may run."""
    with (
        Instance(str(home / "a"), name),
        Instance(str(home / "b"), name),
        Instance(str(home / "a"), f"{name}2"),
    ):
        pass


def test_an_instance_can_follow_itself(home: Path, name: str) -> None:
    """After a clean end the next one starts, and knows that nobody died."""
    for _ in range(2):
        with Instance(str(home), name) as instance:
            assert not instance.succeeded_a_dead_one


def test_what_a_dead_instance_left_is_removed(home: Path, name: str) -> None:
    """When an instance was killed, the next one gets the lock, removes its control socket and its
    shared memory, and knows.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(home), name], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        segment = holder.stdout.readline().strip()
        try:
            assert (home / name / "control.sock").is_socket()
            assert (SHM / segment).exists()
            with (
                pytest.raises(InstanceError, match=f"pid {holder.pid},"),
                Instance(str(home), name),
            ):
                pytest.fail("entered")
            assert (SHM / segment).exists()
        finally:
            holder.send_signal(signal.SIGKILL)
    with Instance(str(home), name) as instance:
        assert instance.succeeded_a_dead_one
        assert not instance.control.exists()
        assert not (SHM / segment).exists()
        assert (instance.path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_note_of_a_segment_that_is_gone(home: Path, name: str) -> None:
    """Shared memory that somebody else removed meanwhile is no obstacle."""
    board = Scoreboard.create(name, home, 1, 1)
    board.close()
    board.unlink()
    (home / name).mkdir()
    (home / name / "segment").write_text(board.name + "\n")
    with Instance(str(home), name) as instance:
        assert instance.succeeded_a_dead_one
    assert not (home / name / "segment").exists()


@pytest.mark.parametrize("note", ["", "passwd\n", "../../etc/passwd\n", "\xff\n"])
def test_a_damaged_note_of_a_segment(home: Path, name: str, note: str) -> None:
    """A note that names nothing of wssup's removes nothing, and does not keep an instance from
    starting.
    """
    (home / name).mkdir()
    (home / name / "segment").write_bytes(note.encode("latin-1"))
    with Instance(str(home), name) as instance:
        assert instance.succeeded_a_dead_one
        assert not (instance.path / "segment").exists()


def test_a_command_that_asks_is_not_taken_for_an_instance(home: Path, name: str) -> None:
    """A shared lock that is held for a moment, longer than a master is waited for, delays the start
    and does not refuse it.
    """
    code = """
import fcntl, sys, time
lock = open(sys.argv[1])
fcntl.flock(lock, fcntl.LOCK_SH)
print(flush=True)
time.sleep(0.5)
"""
    with Instance(str(home), name) as instance:
        lock = instance.path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE
    ) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        with Instance(str(home), name):
            pass


def test_a_long_path(home: Path) -> None:
    """A control socket's path of 107 bytes can be bound; a longer one is refused with the limit."""
    others = len(str(home)) + len("//n/control.sock")
    fits = home / ("x" * (LONGEST_SOCKET_PATH - others))
    with (
        Instance(str(fits), "n") as instance,
        socket.socket(socket.AF_UNIX) as sock,
    ):
        assert len(str(instance.control)) == LONGEST_SOCKET_PATH
        sock.bind(str(instance.control))
    with pytest.raises(InstanceError, match="too long"), Instance(f"{fits}x", "n"):
        pytest.fail("entered")
    assert not Path(f"{fits}x").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_in_tmp(home: Path, name: str) -> None:
    """A runtime directory right below /tmp that belongs to another user is refused: that user would
    own our sockets' names.
    """
    os.chown(home, 4711, 4711)
    with (
        pytest.raises(InstanceError, match=f"{home} belongs to another user"),
        Instance(str(home), name),
    ):
        pytest.fail("entered")


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_directory_that_cannot_be_made(home: Path, name: str, where: str) -> None:
    """A file where the directory should be is an error with the path and what to change."""
    (home / "file").touch()
    with pytest.raises(InstanceError) as caught, Instance(str(home / where), name):
        pytest.fail("entered")
    assert f"{home / where / name} cannot be used" in caught.value.message
    assert "--runtime-dir" in caught.value.remedy


def test_a_lock_that_is_a_link_is_not_followed(home: Path, name: str) -> None:
    """Nobody can have an instance write its pid into a file of theirs."""
    victim = home / "victim"
    victim.write_text("precious")
    (home / name).mkdir()
    (home / name / "lock").symlink_to(victim)
    with pytest.raises(InstanceError, match="cannot be used"), Instance(str(home), name):
        pytest.fail("entered")
    assert victim.read_text() == "precious"
