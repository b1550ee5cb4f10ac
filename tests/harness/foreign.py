"""A server of another kind: it accepts, forks if it is told to, and may never close."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness import processes

__all__ = ["foreign_server"]

#: Serves what connects by nothing at all. Arguments: how many processes, and the backlog.
_SERVER = """\
import os, select, socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=int(sys.argv[2]))
listener.setblocking(False)
print(listener.getsockname()[1], flush=True)
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
else:
    if int(sys.argv[1]) > 1:
        sys.stdin.read()
        os._exit(0)
poll, clients = select.epoll(), {}
poll.register(listener)
poll.register(0, select.EPOLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == 0:
            os._exit(0)
        if fd == listener.fileno():
            try:
                client, _ = listener.accept()
            except OSError:
                continue
            clients[client.fileno()] = client
"""


@contextmanager
def foreign_server(
    *prefix: str, acceptors: int = 1, backlog: int = 128
) -> Iterator[tuple[int, str]]:
    """The process id and the address of a server that accepts and never closes. It ends with its
    standard input.

    :param prefix: the command through which it is started.
    :param acceptors: processes that do; besides one there is a parent, which only waits.
    """
    count = acceptors + 1 if acceptors > 1 else 1
    command = [*prefix, sys.executable, "-c", _SERVER, str(count), str(backlog)]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        yield server.pid, f"127.0.0.1:{port}"
    finally:
        family = processes.descendants(server.pid)
        server.stdin.close()
        server.wait(60)
        for pid in family:
            processes.until(lambda pid=pid: not processes.alive(pid), 60, f"{pid} to end")
            processes.reap(pid)
        server.stdout.close()
