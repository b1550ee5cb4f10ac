"""One ASGI application, served by wssup's class ``uvicorn`` and by uvicorn alone."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.harness import processes
from tests.harness.instance import Instance

#: Seconds for one exchange: ten times what a busy machine needs.
PATIENCE = 30.0

SIDES = ("wssup", "uvicorn")
#: uvicorn's own command line.
UVICORN = ["uvicorn", "application:app", "--no-access-log", "--fd"]


@contextmanager
def served(side: str, start: Callable[..., Instance], home: Path, source: str) -> Iterator[str]:
    """The address of an application that is served by one of the two."""
    if side == "wssup":
        instance = start(source, worker="uvicorn", workers=1)
        instance.running()
        yield instance.address()
    else:
        with elsewhere(home, source, UVICORN) as address:
            yield address


@contextmanager
def elsewhere(home: Path, source: str, command: list[str]) -> Iterator[str]:
    """The address of an application that its own server serves.

    :param command: of the server; the number of its socket is put behind.
    """
    (home / "application.py").write_text(source)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        (home / "elsewhere.log").open("wb") as log,
    ):
        os.set_inheritable(listener.fileno(), True)
        end = f"fd://{listener.fileno()}" if command[0] == "hypercorn" else str(listener.fileno())
        process = subprocess.Popen(
            [sys.executable, "-m", *command, end],
            cwd=home,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
        )
        host, port = listener.getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        process.kill()
        process.wait(10)
        processes.reap(process.pid)


def got(
    address: str, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, bytes]:
    """One HTTP request on a connection of its own; the status and the body."""
    client = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        client.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()


def asked(address: str, path: str) -> Any:
    """The JSON that a GET brings."""
    status, body = got(address, path)
    assert status == 200, (status, body)
    return json.loads(body)


def opened(address: str, path: str, **options: Any) -> ClientConnection:
    """A WebSocket."""
    return connect(f"ws://{address}{path}", proxy=None, open_timeout=PATIENCE, **options)
