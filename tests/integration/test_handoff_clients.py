"""Real clients live through reloads and notice nothing: websockets' and trio-websocket's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio_websocket import open_websocket_url
from websockets.asyncio.client import connect as connect_asyncio
from websockets.sync.client import connect, unix_connect

from tests.harness.clients import aside
from tests.harness.instance import Instance
from tests.harness.oracle_apps import STYLES
from tests.harness.oracle_run import reload
from tests.harness.oracle_sockets import counts
from tests.harness.waiting import until, until_on_asyncio

Start = Callable[..., Instance]

_RELOADS = 2
_BOTH = pytest.mark.parametrize("style", ["event", "task"])


def _last(instance: Instance, clients: int) -> None:
    """Everybody has moved with each reload, and has closed by itself."""
    instance.wait(lambda s: not s["connections"]["open"], "the end of the connections")
    found = counts(instance)
    assert found.closed == found.closed_by_reason["client"] == clients
    assert found.moved_in == _RELOADS * clients
    assert found.handler_errors == 0


def _is_answer(answer: str | bytes, number: int, text: str) -> int:
    """Check an answer; the generation that gave it."""
    found, generation, _, message = str(answer).split(" ", 3)
    assert (int(found), message) == (number, text)
    return int(generation)


@_BOTH
def test_websockets_on_asyncio(start: Start, style: str) -> None:
    """Clients of websockets on asyncio, with their own keepalive pings, send and receive all the
    while.
    """
    instance = start(STYLES[style], settle=0.1)
    instance.running()
    url = instance.url()
    clients = 15

    async def talk(number: int, done: asyncio.Event) -> None:
        # It gives up a connection whose pong does not come in time.
        async with connect_asyncio(url, proxy=None, ping_interval=0.1, ping_timeout=20) as ws:
            index = generation = 0
            while not done.is_set() or generation <= _RELOADS:
                await ws.send([f"{number} ", f"{index} ", "\N{SNOWMAN}"])
                text = f"{number} {index} \N{SNOWMAN}"
                generation = _is_answer(await ws.recv(), index, text)
                index += 1
                await asyncio.sleep(0.005)

    async def everybody() -> None:
        done = asyncio.Event()
        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(talk(number, done))
            await until_on_asyncio(lambda: counts(instance).active >= clients)
            for _ in range(_RELOADS):
                await asyncio.to_thread(reload, instance)
            done.set()

    asyncio.run(everybody())
    _last(instance, clients)


def test_websockets_in_threads(start: Start, tmp_path: Path) -> None:
    """The blocking client of websockets, which sends nothing while the reload goes on: over IPv4,
    IPv6 and a unix socket.
    """
    path = tmp_path / "socket"
    instance = start(STYLES["event"], settle=0.1, bind=["127.0.0.1:0", "[::1]:0", f"unix:{path}"])
    instance.running()
    with (
        connect(instance.url(0), proxy=None) as v4,
        connect(instance.url(1), proxy=None) as v6,
        unix_connect(str(path), "ws://test/") as near,
    ):
        for number in range(_RELOADS + 1):
            for ws in (v4, v6, near):
                ws.send(f"{number}")
                assert _is_answer(ws.recv(20), number, f"{number}") == number + 1
                assert ws.ping().wait(20)
            if number < _RELOADS:
                reload(instance)
    assert [ws.close_code for ws in (v4, v6, near)] == [1000] * 3
    _last(instance, 3)


@_BOTH
async def test_trio_websocket(start: Start, style: str) -> None:
    """Clients of trio-websocket send and receive all the while, and ping."""
    instance = start(STYLES[style], settle=0.1)
    instance.running()
    url = instance.url()
    clients = 15
    done = trio.Event()

    async def talk(number: int) -> None:
        async with open_websocket_url(url) as ws:
            index = generation = 0
            while not done.is_set() or generation <= _RELOADS:
                await ws.send_message(f"{number} {index}")
                await ws.ping()
                generation = _is_answer(await ws.get_message(), index, f"{number} {index}")
                index += 1
                await trio.sleep(0.005)

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(talk, number)
            await until(lambda: counts(instance).active >= clients)
            for _ in range(_RELOADS):
                await aside(reload, instance)
            done.set()
    await aside(_last, instance, clients)
