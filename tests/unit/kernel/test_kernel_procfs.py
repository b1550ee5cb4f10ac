"""What /proc tells of processes, on real ones."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wssup.kernel import procfs
from wssup.kernel.procfs import Descriptor, Limit

CODE = """
import os, select, socket, subprocess, sys
held = [socket.socket() for _ in range(3)], os.pipe(), select.epoll(), open("/dev/null")
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", "a child"])
print(child.pid, held[0][0].fileno(), flush=True)
child.wait()
"""
#: Says what another user, if we may become one, is told of a process.
ENDED = """
import os, sys
from wssup.kernel import procfs
if not os.geteuid():
    os.setuid(65534)
try:
    print(procfs.descriptors(int(sys.argv[1])))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def other() -> Iterator[tuple[int, int, int]]:
    """A process with descriptors of all kinds and a child: its id, the child's, a socket of it."""
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child, descriptor = map(int, process.stdout.readline().split())
        yield process.pid, child, descriptor


def test_descriptors_by_kind(other: tuple[int, int, int]) -> None:
    """Sockets and pipes have their inodes, others the kernel's name; all are there."""
    pid, _, number = other
    found = procfs.descriptors(pid)
    assert found is not None
    assert set(found) == {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    kinds = [kind for kind, _ in found.values()]
    assert kinds.count("socket") == 3
    assert kinds.count("eventpoll") == 1
    assert "file" in kinds
    assert kinds.count("pipe") >= 4
    assert found[number] == Descriptor("socket", Path(f"/proc/{pid}/fd/{number}").stat().st_ino)


def test_a_process_that_ends_meanwhile() -> None:
    """A process that was reaped between the opening of its directory and the listing is gone, and
    so is one that waits to be reaped, whoever looks.
    """
    with subprocess.Popen(["sleep", "600"]) as process:
        directory = os.open(f"/proc/{process.pid}/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with pytest.raises(ProcessLookupError):
                procfs.descriptors(process.pid)
            as_another = subprocess.run(
                [sys.executable, "-c", ENDED, str(process.pid)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert "ProcessLookupError" in as_another.stdout, as_another
            process.wait()
            with pytest.raises(FileNotFoundError):
                procfs._listed(directory)
        finally:
            os.close(directory)
    with pytest.raises(ProcessLookupError):
        procfs.descriptors(process.pid)


def test_a_socket_of_no_table(other: tuple[int, int, int]) -> None:
    """The protocol of a socket that was never connected; nothing if the number is another one's."""
    pid, _, number = other
    inode = Path(f"/proc/{pid}/fd/{number}").stat().st_ino
    assert procfs.protocol(pid, number, inode) == "TCP"
    assert procfs.protocol(pid, number, inode + 1) == ""
    assert procfs.protocol(pid, 9999, inode) == ""
    with socket.socket(socket.AF_UNIX) as local:
        inode = os.fstat(local.fileno()).st_ino
        assert procfs.protocol(os.getpid(), local.fileno(), inode).startswith("UNIX")


def test_who_has_sockets(other: tuple[int, int, int]) -> None:
    """Each socket's process; one that nobody has, or an inode of something else, is missing."""
    pid, _, number = other
    theirs = Path(f"/proc/{pid}/fd/{number}").stat().st_ino
    pipe = Path(f"/proc/{pid}/fd/0").stat().st_ino
    with socket.socket() as sock:
        ours = os.fstat(sock.fileno()).st_ino
        assert procfs.owners([theirs, ours, pipe]) == {theirs: [pid], ours: [os.getpid()]}
    assert procfs.owners([ours]) == {}


def test_limits_and_status(other: tuple[int, int, int]) -> None:
    """Limits as getrlimit(2) has them, unlimited as ``None``; memory, threads, parent and user."""
    pid, child, _ = other
    limits = procfs.limits(pid)
    assert limits is not None
    wanted = [
        None if value == resource.RLIM_INFINITY else value
        for value in resource.getrlimit(resource.RLIMIT_NOFILE)
    ]
    assert limits["Max open files"] == Limit(*wanted)
    assert limits["Max cpu time"].soft is None or limits["Max cpu time"].soft > 0
    status = procfs.status(child)
    assert status is not None
    assert (status.parent, status.threads, status.uid) == (pid, 1, os.geteuid())
    assert status.rss > 1 << 20


def test_families(other: tuple[int, int, int]) -> None:
    """A child, and all descendants with the process first; command lines."""
    pid, child, _ = other
    assert procfs.children(pid) == [child]
    assert procfs.family(pid) == [pid, child]
    assert set(procfs.family(os.getpid())) >= {pid, child}
    line = procfs.command_line(child)
    assert line is not None
    assert line.endswith("a child")


def test_a_process_that_is_gone() -> None:
    """Every question about a process that is not there is a ProcessLookupError."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    for ask in (
        procfs.descriptors,
        procfs.limits,
        procfs.status,
        procfs.children,
        procfs.family,
        procfs.command_line,
    ):
        with pytest.raises(ProcessLookupError):
            ask(process.pid)


def test_counters_of_the_network() -> None:
    """Counters of TCP by their names, those of extensions, too; they only grow."""
    before = procfs.counters()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socket.create_connection(listener.getsockname()).close()
    after = procfs.counters(os.getpid())
    assert after["Tcp.ActiveOpens"] > before["Tcp.ActiveOpens"]
    assert after["TcpExt.ListenOverflows"] >= before["TcpExt.ListenOverflows"]


def test_what_is_cheap_to_know() -> None:
    """Resident memory and the number of descriptors; a process that is gone has none."""
    mine = procfs.resident(os.getpid())
    assert mine is not None
    assert 1 << 20 < mine < 1 << 40
    before = procfs.open_descriptors(os.getpid())
    assert before is not None
    with socket.socket():
        assert procfs.open_descriptors(os.getpid()) == before + 1
    assert procfs.resident(2**22 + 1) == 0
    assert procfs.open_descriptors(2**22 + 1) is None
