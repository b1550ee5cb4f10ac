"""A peer for the command line's tests: it holds an instance's lock and answers on its socket.

What it answers is a script per command: documents to send, raw bytes, and functions to call.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

Step = dict[str, Any] | bytes | Callable[[], object]

DEADLINE = 20.0


class Peer:
    """A directory with a lock, and a thread that answers every connection by the script."""

    def __init__(self) -> None:
        # A unix socket's path is short, and pytest's own directories are not.
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="wssup-", dir="/tmp"))
        self.directory = self.runtime_dir / "default"
        self.directory.mkdir()
        self.script: dict[str, list[Step]] = {}
        self.requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self.hung_up: queue.Queue[str] = queue.Queue()
        self._lock = -1
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    @property
    def socket_path(self) -> Path:
        return self.directory / "control.sock"

    @property
    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("WSSUP_")}
        return clean | {"WSSUP_RUNTIME_DIR": str(self.runtime_dir)}

    def lock(self) -> Self:
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def unlock(self) -> None:
        # Taken first: who waits for the lock goes on, and may come here, before close() returns.
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def listen(self, *, answer: bool = True, backlog: int = 16) -> Self:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.socket_path))
        self._listener.listen(backlog)
        if answer:
            self._start(self._accept)
        return self

    def stop_listening(self) -> None:
        if self._listener is not None:
            # Wakes the thread that waits in accept().
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self.socket_path.unlink(missing_ok=True)

    def die(self) -> None:
        self.stop_listening()
        self.unlock()

    def close(self) -> None:
        self.die()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a peer's thread still runs"
        if self._listener is not None:
            self._listener.close()
        shutil.rmtree(self.runtime_dir)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._answer, connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            line = lines.readline()
            if not line:
                return
            request = json.loads(line)
            self.requests.put(request)
            for step in self.script[request["command"]]:
                if callable(step):
                    step()
                    continue
                data = (
                    step
                    if isinstance(step, bytes)
                    else json.dumps({"v": 1} | step).encode() + b"\n"
                )
                try:
                    connection.sendall(data)
                except (BrokenPipeError, ConnectionResetError):
                    break
            self.hung_up.put(request["command"])
