"""The start and the end of a worker: its lifespan, and failures in it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.worker_process import PATIENCE, Run
from wssup import channel
from wssup.messages import Drain, Failed, Hello

LIFESPAN = """
import contextlib, pathlib, trio
from trio_websocket import ConnectionClosed
here = pathlib.Path(__file__).parent

def note(text):
    with (here / "notes").open("a") as notes:
        notes.write(text + "\\n")

@contextlib.asynccontextmanager
async def lifespan():
    note("enter")
    {enter}
    async with trio.open_nursery() as nursery:
        {inside}
        yield
        nursery.cancel_scope.cancel()
    note("leave")
    {leave}

async def app(request):
    ws = await request.accept()
    note("connected")
    try:
        while True:
            await ws.get_message()
    except ConnectionClosed:
        note("closed")
"""


def lifespan(*, enter: str = "", inside: str = "", leave: str = "") -> str:
    return LIFESPAN.format(enter=enter or "pass", inside=inside or "pass", leave=leave or "pass")


def test_a_standstill_at_the_end_of_a_drain(run: Run) -> None:
    """A worker that stands still from before its first close until after its deadline, when it cuts
    off whoever is left, says why all the same.
    """
    worker = run()
    worker.ready()
    clients = [worker.client().open() for _ in range(5)]
    worker.tell(Drain(1012, "restart", 0.5, 3.0, wait=True))
    worker.until(lambda row: not row.accepting)
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        time.sleep(3.5)  # what is claimed is what happens when time goes by
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    for client in clients:
        assert client.ending().code == 1012
        client.socket.close()
    assert worker.ended() == 0
    # Who answers at once may be gone before the others are cut off.
    ends = worker.board.snapshot().total.closed_by_reason
    assert ends["deadline"] + ends["drain"] == 5


def test_the_order_of_a_life(run: Run, tmp_path: Path) -> None:
    """The lifespan is entered before the worker is ready, and left after its last connection."""
    worker = run(lifespan())
    worker.ready()
    with worker.client() as client:
        client.open()
        worker.tell(Drain(1001, "", 0, 10))
        assert client.ending().code == 1001
    assert worker.ended() == 0
    notes = (tmp_path / "notes").read_text().split()
    assert notes == ["enter", "connected", "closed", "leave"]


@pytest.mark.parametrize(
    ("application", "told"),
    [
        (lifespan(enter="raise ValueError('no database')"), "ValueError: no database"),
        ("raise ValueError('no luck')", "ValueError: no luck"),
        ("", "has no attribute 'app'"),
        ("async def app(r): ...\nlifespan = lambda: 5", "its lifespan raised"),
    ],
)
def test_a_start_that_fails(run: Run, application: str, told: str) -> None:
    """A worker whose application or lifespan cannot be had is never ready: it says why and ends
    with status 1.
    """
    worker = run(application)
    assert isinstance(worker.hear(), Hello)
    failed = worker.hear()
    assert isinstance(failed, Failed)
    assert told in failed.message
    if "ValueError" in told:
        assert "application.py" in failed.traceback
        assert "wssup/server" not in failed.traceback
    assert worker.ended() == 1


def test_a_lifespan_that_fails_under_its_clients(run: Run) -> None:
    """When a task of the lifespan fails, clients are told 1011, the master why, and the worker ends
    with status 1.
    """
    fail = "async def fail():\n            while not (here / 'fail').exists():"
    fail += "\n                await trio.sleep(0.005)\n            raise ValueError('lost it')"
    worker = run(lifespan(inside=f"{fail}\n        nursery.start_soon(fail)"))
    worker.ready()
    with worker.client() as client:
        client.open()
        (worker.log.parent / "fail").touch()
        assert client.ending().code == 1011
    failed = worker.hear()
    assert isinstance(failed, Failed)
    assert "ValueError: lost it" in failed.message
    assert worker.ended() == 1


def test_a_lifespan_that_fails_at_the_end(run: Run) -> None:
    """An error on the way out is told, and the status says it too; clients were told goodbye."""
    worker = run(lifespan(leave="raise ValueError('unsaved')"))
    worker.ready()
    with worker.client() as client:
        client.open()
        worker.tell(Drain(1001, "", 0, 10))
        assert client.ending().code == 1001
    failed = worker.hear()
    assert isinstance(failed, Failed)
    assert "ValueError: unsaved" in failed.message
    assert worker.ended() == 1


def test_not_wanted_any_more_while_it_starts(run: Run, tmp_path: Path) -> None:
    """A worker that is told to drain during its start-up leaves without being ready."""
    worker = run(lifespan(enter="await trio.sleep_forever()"))
    assert isinstance(worker.hear(), Hello)
    processes.until((tmp_path / "notes").exists, PATIENCE, "the lifespan to begin")
    worker.tell(Drain(1012, "", 0, 10))
    assert worker.ended() == 0
    assert channel.receive(worker.end) is None
