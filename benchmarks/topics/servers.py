"""The servers of topics, each alone on its processor."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from benchmarks.engine import servers
from benchmarks.engine.machine import favour, pinned, processors
from benchmarks.engine.native import BUILD, MeasureError
from benchmarks.engine.servers import Server, accepts
from tests.harness import processes
from tests.harness.ports import free_port

_APP = {"topics": "topics_event:app"}
FLOOR = "floor"
#: What bars are about: two workers on one processor, and on both.
OURS, BOTH = "wssup", "wssup-both"
SERVERS = (
    Server(FLOOR, "a C loop of send(), no checks"),
    Server(OURS, "wssup, 2 workers", app=_APP, settings={"workers": 2}),
    Server(BOTH, "wssup, 2 workers, on both", app=_APP, settings={"workers": 2}),
    Server("wssup-one", "wssup, 1 worker", app=_APP),
    Server("uvicorn", "uvicorn websockets-sansio, uvloop, a loop", peer="topics_uvicorn.py"),
    Server("websockets", "websockets, uvloop, `broadcast`", peer="topics_websockets.py"),
)
BY_NAME = {server.name: server for server in SERVERS}
#: Seconds until the floor must accept connections.
_START = 10.0


@contextmanager
def serving(server: Server) -> Iterator[int]:
    """Run a server, all of its processes on the first processor, or on all; the port.

    :raises MeasureError: if it does not start.
    """
    if server.name == FLOOR:
        with _floor() as port:
            yield port
        return
    with servers.serving(server, "topics") as running:
        if server.name == BOTH:
            for pid in processes.descendants():
                os.sched_setaffinity(pid, os.sched_getaffinity(0))
        favour()
        yield running.port


def beside(server: Server) -> AbstractContextManager[None]:
    """Where its clients run: on the second processor, or on all."""
    return nullcontext() if server.name == BOTH else pinned(processors()[1])


@contextmanager
def _floor() -> Iterator[int]:
    port = free_port()
    with pinned(processors()[0]):
        process = subprocess.Popen([BUILD / "topics_floor", str(port)], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise MeasureError("it does not start")
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()
