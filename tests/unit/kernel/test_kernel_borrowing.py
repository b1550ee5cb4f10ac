"""What sockets of another process say of themselves."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys

import pytest

from tests.harness.descriptors import open_descriptors
from tests.harness.tracing import may_ask
from wssup.kernel.borrowing import End, own_end

#: Has one socket of each kind: reset, never connected, IPv6, unix, and none at all.
CODE = """
import os, socket, sys
reset, fresh = socket.create_connection(("127.0.0.1", int(sys.argv[1]))), socket.socket()
try:
    reset.recv(1)
except ConnectionResetError:
    pass
six = socket.socket(socket.AF_INET6)
local = socket.socket(socket.AF_UNIX)
print(reset.getsockname()[1], *(f"{s.fileno()} {os.fstat(s.fileno()).st_ino}"
    for s in (reset, fresh, six, local)), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not may_ask(), reason="sockets of other processes may not be asked")
def test_own_ends() -> None:
    """A socket that was reset knows its address, one that was never connected has none; others are
    not asked, and neither is one that is another by now.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with subprocess.Popen(
            [sys.executable, "-c", CODE, str(listener.getsockname()[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            served, _ = listener.accept()
            served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            served.close()
            port, *numbers = map(int, other.stdout.readline().split())
            pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
            found = [own_end(other.pid, *pair) for pair in pairs]
            assert found == [End(b"\x7f\0\0\1", port), End(bytes(4), 0), End(bytes(16), 0), None]
            assert own_end(other.pid, pairs[0][0], pairs[1][1]) is None
            assert own_end(other.pid, 9999, pairs[0][1]) is None
            before = open_descriptors()
            own_end(other.pid, *pairs[0])
            assert open_descriptors() == before
        assert own_end(other.pid, *pairs[0]) is None
