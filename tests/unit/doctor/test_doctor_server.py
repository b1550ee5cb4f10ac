"""Which processes of a server accept, on real ones."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness import processes
from wssup.doctor.server import look

#: Listens, accepts as many as the first argument says, and has a child that inherits everything,
#: from before or from after that. The child accepts if there is a third argument. (Where Python
#: does not buffer, print() writes a line's end by itself, and two of them would mix.)
_SERVER = """\
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
count, after = int(sys.argv[1]), sys.argv[2] == "after"
def accept():
    return [listener.accept()[0] for _ in range(count)]
kept = accept() if after else []
reading, writing = os.pipe()
if os.fork() == 0:
    os.close(writing)
    if len(sys.argv) > 3:
        kept = accept()
    os.write(1, b"ready\\n")
    os.read(reading, 1)
    os._exit(0)
if not after and len(sys.argv) == 3:
    kept = accept()
os.write(1, b"ready\\n")
sys.stdin.read()
"""


@contextmanager
def serving(count: int, *arguments: str) -> Iterator[int]:
    """Such a server with its connections."""
    command = [sys.executable, "-c", _SERVER, str(count), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        clients = []
        family: set[int] = set()
        try:
            port = int(server.stdout.readline())
            clients = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(count)]
            assert [server.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
            family = processes.descendants(server.pid)
            yield server.pid
        finally:
            for client in clients:
                client.close()
            server.stdin.close()
            server.wait(60)
            for pid in family:
                processes.until(lambda pid=pid: not processes.alive(pid), 60, f"{pid} to end")
                processes.reap(pid)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_child_for_other_work(when: str) -> None:
    """A child that inherited the listener, and the connections if there were any, does not accept
    where its parent does.
    """
    with serving(3, when) as pid:
        assert [process.pid for process in look(pid).acceptors] == [pid]


@pytest.mark.parametrize("count", [0, 3])
def test_a_parent_that_only_made_the_listener(count: int) -> None:
    """It does not accept where its child does, whether somebody is connected or not."""
    with serving(count, "before", "by the child") as pid:
        (child,) = processes.children(pid)
        assert [process.pid for process in look(pid).acceptors] == [child]
