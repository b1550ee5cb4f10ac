"""What an application may do to its worker: raise, exit, refuse, fail at start or in between."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wssup
from tests.harness import processes
from tests.harness.instance import ECHO, Instance
from tests.harness.raw import Raw, endings, request, spread_clients

Start = Callable[..., Instance]

#: Each path is a way to be a handler.
WAYS = """\
import os
import sys
import trio

def deeper():
    raise ValueError("of its own")

async def die(code):
    sys.exit(code)

async def crash(request):
    await request.accept()
    deeper()

async def crash_in_nursery(request):
    await request.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        deeper()

async def crash_before_accept(request):
    deeper()

async def leave(request):
    await request.accept()
    sys.exit(3)

async def leave_in_nursery(request):
    await request.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(die, 3)
        await trio.sleep_forever()

async def forget(request):
    pass

async def forbid(request):
    await request.reject(403)

async def done(request):
    await request.accept()

async def echo(request):
    ws = await request.accept()
    while True:
        await ws.send_message(str(os.getpid()) + await ws.get_message())

async def echo_in_nursery(request):
    ws = await request.accept()

    async def read():
        while True:
            await ws.send_message(await ws.get_message())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(trio.sleep_forever)

async def app(request):
    await globals()[request.path[1:]](request)
"""
_JOURNAL = """\
import os
import wssup
from contextlib import asynccontextmanager
from pathlib import Path

import trio

journal = Path(__file__).with_name("journal")

def note(what):
    with journal.open("a") as file:
        file.write(what + "\\n")
"""


def _pid(address: str) -> int:
    """The worker's process id, from a new connection of :data:`WAYS`."""
    with Raw(address) as client:
        pid = int(client.open("/echo").ask(""))
        client.close()
    return pid


def _counts(status: dict[str, Any]) -> dict[str, int]:
    """How connections ended, without the reasons that did not occur."""
    counts = status["connections"]
    by_reason = counts["closed_by_reason"] | {
        f"handshake {reason}": count
        for reason, count in counts["handshake_failures_by_reason"].items()
    }
    return {reason: count for reason, count in by_reason.items() if count}


def _wait_counts(instance: Instance, expected: dict[str, int]) -> dict[str, Any]:
    """Wait until all connections are closed; they must have ended in these ways."""
    status = instance.wait(
        lambda s: (
            s["connections"]["open"] == 0 and s["connections"]["accepted"] >= sum(expected.values())
        ),
        "the end of the connections",
    )
    assert _counts(status) == expected
    connections: dict[str, Any] = status["connections"]
    return connections


@pytest.mark.parametrize("way", ["crash", "crash_in_nursery"])
def test_an_exception_ends_its_connection_alone(start: Start, way: str) -> None:
    """An exception out of a handler, bare or in a nursery's group, closes that connection with 1011
    and is logged once, with a traceback that begins in the application; the worker lives on.
    """
    instance = start(WAYS, workers=1)
    instance.running()
    address = instance.address()
    pid = instance.workers()[0]
    with Raw(address) as bystander, Raw(address) as client:
        bystander.open("/echo")
        assert client.open(f"/{way}").ending().code == 1011
        assert bystander.ask(" lives") == f"{pid} lives"
        bystander.close()
    connections = _wait_counts(instance, {"error": 1, "client": 1})
    assert connections["handler_errors"] == 1
    assert _pid(address) == pid
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    [event] = instance.events("handler_failed")
    assert (event["error"], event["pid"]) == ("ValueError: of its own", pid)
    frames = [line for line in event["exception"].splitlines() if " File " in line]
    assert str(instance.source) in frames[0]
    assert "in deeper" in event["exception"]
    assert f"{Path(wssup.__file__).parent}/" not in event["exception"]
    # The group's own, and that of what is in it.
    tracebacks = 2 if way == "crash_in_nursery" else 1
    assert instance.logged().count("Traceback (") == tracebacks


def test_an_exception_before_accepting(start: Start) -> None:
    """A handler that raises before it accepts is answered for with status 500 and counted."""
    instance = start(WAYS, workers=1)
    instance.running()
    with Raw(instance.address()) as client:
        client.socket.sendall(request("/crash_before_accept"))
        assert client.head().startswith(b"HTTP/1.1 500 ")
        client.rest()
    assert _wait_counts(instance, {"handshake error": 1})["handler_errors"] == 1
    assert "in deeper" in instance.wait_logged("handler_failed")[0]["exception"]


def test_connection_closed_is_no_error(start: Start) -> None:
    """A handler that lets ConnectionClosed escape, also in a nursery's group, has simply ended,
    whether the client said goodbye or vanished.
    """
    instance = start(WAYS, workers=1)
    instance.running()
    for path in ("/echo", "/echo_in_nursery"):
        with Raw(instance.address()) as polite, Raw(instance.address()) as rude:
            assert polite.open(path).close().code == 1000
            rude.open(path)
    connections = _wait_counts(instance, {"client": 2, "lost": 2})
    assert (connections["handler_runs"], connections["handler_errors"]) == (4, 0)
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    assert {e["level"] for e in instance.entries()} <= {"debug", "info"}


@pytest.mark.parametrize("way", ["leave", "leave_in_nursery"])
def test_system_exit_ends_its_connection_alone(start: Start, way: str) -> None:
    """sys.exit() in a handler closes its own connection with 1011, and neither the worker nor
    another connection of it.
    """
    instance = start(WAYS, workers=1)
    instance.running()
    address = instance.address()
    pid = instance.workers()[0]
    with Raw(address) as bystander, Raw(address) as client:
        bystander.open("/echo")
        assert client.open(f"/{way}").ending().code == 1011
        assert bystander.ask(" lives") == f"{pid} lives"
        bystander.close()
    _wait_counts(instance, {"error": 1, "client": 1})
    [event] = instance.wait_logged("handler_failed")
    assert event["error"] == "SystemExit: 3"
    assert _pid(address) == pid


def test_a_handler_that_returns(start: Start) -> None:
    """A handler that returns closes with 1000; one that returns without an answer ends the
    connection and counts as a rejection.
    """
    instance = start(WAYS, workers=1)
    instance.running()
    with Raw(instance.address()) as client:
        assert client.open("/done").ending().code == 1000
    with Raw(instance.address()) as client:
        client.socket.sendall(request("/forget"))
        assert b"101" not in client.head()
        client.rest()
    _wait_counts(instance, {"server": 1, "handshake rejected": 1})


def test_a_rejection(start: Start) -> None:
    """What a handler rejects is answered with its status and counted as rejected, not as an
    error.
    """
    instance = start(WAYS, workers=1)
    instance.running()
    with Raw(instance.address()) as client:
        client.socket.sendall(request("/forbid"))
        assert client.head().startswith(b"HTTP/1.1 403 ")
        client.rest()
    assert _wait_counts(instance, {"handshake rejected": 1})["handler_errors"] == 0


def test_the_lifespan_encloses_the_service(start: Start) -> None:
    """The lifespan is entered before the worker is ready, and left after its last connection when
    the instance stops.
    """
    instance = start(
        f"""{_JOURNAL}
@asynccontextmanager
async def lifespan():
    note("entered")
    while not journal.with_name("go").exists():
        await trio.sleep(0.01)
    yield
    note("left")

async def app(request):
    ws = await request.accept()
    note("connected")
    try:
        await ws.get_message()
    finally:
        note("disconnected")
""",
        workers=1,
    )
    journal = instance.home / "journal"
    processes.until(journal.exists, 60, "the lifespan")
    status = instance.status()
    assert status["state"] == "starting"
    assert [w["state"] for s in status["slots"] for w in s["workers"]] == ["starting"]
    with Raw(instance.address()) as client:
        # Nobody is ready to accept it: it waits in the kernel.
        client.socket.sendall(request())
        (instance.home / "go").touch()
        assert client.head().startswith(b"HTTP/1.1 101 ")
        instance.running()
        instance.signal(signal.SIGTERM)
        assert client.ending().code == 1001
    assert instance.exited() == 0
    assert journal.read_text().split() == ["entered", "connected", "disconnected", "left"]


def test_a_lifespan_that_fails_at_start(start: Start) -> None:
    """When the lifespan raises on the way in, the slots fail once their budget is spent, and the
    log has the application's own traceback.
    """
    instance = start(
        f"""{_JOURNAL}
def connect():
    raise OSError("no database")

@asynccontextmanager
async def lifespan():
    connect()
    yield

{ECHO}""",
        workers=1,
        failure_budget=2,
        backoff_min=0.01,
    )
    assert instance.exited() == 1
    failures = instance.events("application_failed")
    assert len(failures) == 2
    for event in failures:
        assert event["error"] == "its lifespan raised OSError: no database"
        assert str(instance.source) in event["exception"].splitlines()[1]
        assert "in connect" in event["exception"]
        assert f"{Path(wssup.__file__).parent}/" not in event["exception"]
    assert [e["slot"] for e in instance.events("slot_failed")] == [0]
    assert "OSError: no database" in instance.events("cannot_start")[0]["reason"]


def test_a_lifespan_that_fails_while_serving(start: Start) -> None:
    """When a task of the lifespan raises, the worker's clients are closed with 1011 and the worker
    is replaced; other workers' clients stay.
    """
    instance = start(
        f"""{_JOURNAL}
poisoned = trio.Event()

async def watch():
    await poisoned.wait()
    raise OSError("the database is gone")

@asynccontextmanager
async def lifespan():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield
        nursery.cancel_scope.cancel()

async def app(request):
    ws = await request.accept()
    while True:
        if await ws.get_message() == "poison":
            poisoned.set()
        else:
            await ws.send_message(f"{{wssup.current_worker().slot}} {{os.getpid()}}")
"""
    )
    instance.running()
    victim, survivor = instance.workers()[0], instance.workers()[1]
    with spread_clients(instance.address(), 2, 5) as clients:
        clients[0][0].say("poison")
        assert {ending.code for ending in endings(clients[0])} == {1011}
        instance.wait(
            lambda s: (
                s["slots"][0]["state"] == "ready"
                and victim not in [w["pid"] for w in s["slots"][0]["workers"]]
            ),
            "the worker's successor",
        )
        assert {client.ask("who") for client in clients[1]} == {f"1 {survivor}"}
        assert _counts(instance.status()).get("error") == len(clients[0])
    [event] = instance.events("application_failed")
    assert event["error"] == "its lifespan raised OSError: the database is gone"
    assert "in watch" in event["exception"]


def test_a_message_over_the_limit(start: Start) -> None:
    """A message larger than limits.message_bytes, whole or in fragments, closes its connection with
    1009 and is counted as too_big; one of just that size is fine.
    """
    instance = start(WAYS, workers=1, limits={"message_bytes": 1000})
    instance.running()
    pid = str(instance.workers()[0])
    with Raw(instance.address()) as whole, Raw(instance.address()) as fragments:
        assert whole.open("/echo").ask("x" * 1000) == pid + "x" * 1000
        whole.say("x" * 1001)
        assert whole.ending().code == 1009
        fragments.open("/echo").fragments("x" * 500, "x" * 501)
        assert fragments.ending().code == 1009
    _wait_counts(instance, {"too_big": 2})
