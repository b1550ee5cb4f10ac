"""Real Redis servers, each with a port and a folder of its own. `make e2e` installs Debian's."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.harness import processes
from tests.harness.ports import free_port

PATIENCE = 20.0


class RedisServer:
    """One server.

    :param home: its folder.
    :param options: of its command line, as ``--name value`` pairs.
    """

    def __init__(self, home: Path, *options: str, port: int = 0, plain: bool = True) -> None:
        self.home = home
        self.port = port or free_port()
        self.options = options
        self.plain = plain
        home.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, again too, and wait until it answers."""
        program = shutil.which("redis-server")
        assert program is not None, "there is no redis-server: run make e2e"
        port = ("--port", str(self.port)) if self.plain else ()
        self.process = subprocess.Popen(
            [
                *(program, *port, "--bind", "127.0.0.1", "--dir", str(self.home)),
                *("--save", "", "--appendonly", "no", "--logfile", "redis.log", *self.options),
            ]
        )
        processes.until(self._listens, PATIENCE, "Redis to listen")

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self.home / "redis.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def ask(self, *command: str) -> list[str]:
        """A command over redis-cli; the lines of its answer."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return done.stdout.splitlines()

    @contextmanager
    def stalled(self) -> Iterator[Self]:
        """Stop it as a network that lets nothing through does."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield self
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.wait(PATIENCE)


@contextmanager
def redis_server(
    home: Path, *options: str, port: int = 0, plain: bool = True
) -> Iterator[RedisServer]:
    """A server until the end of the block."""
    server = RedisServer(home, *options, port=port, plain=plain)
    try:
        yield server
    finally:
        server.kill()
