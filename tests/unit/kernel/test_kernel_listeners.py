"""Who listens on a port, on real listeners."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from wssup.kernel.listeners import describe_listener, listening


def inodes(port: int) -> list[int]:
    """The sockets that listen on a port."""
    return [sock.inode for sock in listening() if sock.local_port == port]


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_listener_of_our_own(family: socket.AddressFamily, host: str) -> None:
    """A listener is found by its port, in both families, with the process that has it."""
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert inodes(port) == [os.fstat(listener.fileno()).st_ino]
        told = describe_listener(port)
        assert told.startswith(f"pid {os.getpid()} (")
        assert "pytest" in told or "python" in told
    assert describe_listener(port) == ""


def test_only_those_that_listen() -> None:
    """A bound socket, and a connection on the port, are no listeners."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            assert len(inodes(port)) == 1
            listener.close()
            assert inodes(port) == []
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert describe_listener(bound.getsockname()[1]) == ""


def test_another_process_by_its_command() -> None:
    """The process is shown with its command line, which is cut where it is long."""
    code = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, "x" * 200],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        told = describe_listener(port)
        assert told.startswith(f"pid {other.pid} ({sys.executable} -c")
        assert len(told) < 120
