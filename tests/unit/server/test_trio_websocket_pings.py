"""What trio-websocket's documentation, recipes and own tests promise of pings and of time, held
against this server.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketRequest

from tests.harness import raw
from tests.harness.ends import PING, PONG, both, frame, reset, with_a_bare_socket
from tests.harness.served import served
from wssup.server.connection import Connection

# Pings.


async def test_pings(tmp_path: Path) -> None:
    """ping() returns with the pong; several can be on their way, but no two with one payload."""
    async with both(tmp_path, with_a_bare_socket) as (here, there, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.ping)
            nursery.start_soon(here.ping)
            nursery.start_soon(here.ping, b"A")
            pings = [await frame(there) for _ in range(3)]
            assert {opcode for opcode, _ in pings} == {PING}
            assert len({payload for _, payload in pings}) == 3
            with pytest.raises(ValueError, match="already in flight"):
                await here.ping(b"A")
            for _, payload in pings:
                await there.send_all(raw.frame(PONG, payload))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.ping, b"A")
            assert await frame(there) == (PING, b"A")
            await there.send_all(raw.frame(PONG, b"A"))


async def test_a_pong_answers_earlier_pings(tmp_path: Path) -> None:
    """A client may answer the latest ping only: its pong wakes all pings before it, no later one.
    A pong that belongs to none does nothing.
    """
    back: list[bytes] = []

    async def ping(ws: Connection, payload: bytes) -> None:
        await ws.ping(payload)
        back.append(payload)

    async with both(tmp_path, with_a_bare_socket) as (here, there, _):
        async with trio.open_nursery() as nursery:
            for payload in (b"1", b"2", b"3", b"4"):
                nursery.start_soon(ping, here, payload)
                assert await frame(there) == (PING, payload)
            await there.send_all(raw.frame(PONG, b"0") + raw.frame(PONG, b"3"))
            while len(back) < 3:
                await trio.testing.wait_all_tasks_blocked(0.001)
            assert sorted(back) == [b"1", b"2", b"3"]
            await there.send_all(raw.frame(PONG, b"4"))
        assert back[3] == b"4"


@pytest.mark.parametrize("by", ["client", "server", "reset"])
async def test_a_ping_when_the_connection_ends(tmp_path: Path, by: str) -> None:
    """Who waits for a pong when the connection is closed, or breaks, is told."""
    told = trio.Event()

    async def ping(ws: Connection) -> None:
        with pytest.raises(ConnectionClosed):
            await ws.ping()
        told.set()

    async with both(tmp_path, with_a_bare_socket, close_timeout=0.1) as (here, there, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, here)
            assert (await frame(there))[0] == PING
            if by == "server":
                nursery.start_soon(here.aclose)
            elif by == "client":
                await there.send_all(raw.frame(raw.CLOSE, b""))
            else:
                reset(there)
                await there.aclose()
            await told.wait()
        await there.aclose()


async def test_pongs_and_pings_of_the_client(tmp_path: Path) -> None:
    """A client's ping is answered while the handler does something else; pong() sends one unasked
    and waits for nothing.
    """
    async with both(tmp_path, with_a_bare_socket) as (here, there, _):
        await there.send_all(raw.frame(PING, b"payload") + raw.frame(PING, b""))
        assert await frame(there) == (PONG, b"payload")
        assert await frame(there) == (PONG, b"")
        await here.pong(b"A")
        await here.pong()
        assert await frame(there) == (PONG, b"A")
        assert await frame(there) == (PONG, b"")


# Recipes of the documentation.


async def test_the_heartbeat_recipe(tmp_path: Path) -> None:
    """The documentation's heartbeat task in a nursery of the handler pings again and again, and
    raises TooSlowError out of it when the client stops answering, which ends that connection.
    """

    async def heartbeat(ws: Connection) -> None:
        for patience in (20, 20, 20, 0.05):
            with trio.fail_after(patience):
                await ws.ping()

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heartbeat, ws)
            while True:
                await ws.send_message(await ws.get_message())

    async with served(tmp_path, handler) as server:
        ws = await with_a_bare_socket(server)
        for _ in range(3):
            opcode, payload = await frame(ws)
            assert opcode == PING
            await ws.send_all(raw.frame(PONG, payload))
        assert (await frame(ws))[0] == PING
        assert await frame(ws) == (raw.CLOSE, b"\x03\xf3internal error")
        await ws.aclose()
        await server.ended(error=1)


async def test_a_timeout_around_a_receive(tmp_path: Path) -> None:
    """A timeout of trio's ends a wait and nothing else: the next message is there for the next
    receive.
    """
    async with both(tmp_path) as (here, there, _):
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.01):
                await here.get_message()
        await there.send_message("later")
        assert await here.get_message() == "later"


async def test_a_handler_that_outlives_its_connection(tmp_path: Path) -> None:
    """A handler that has work left when its client is gone goes on with it."""
    go, done = trio.Event(), trio.Event()

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        with pytest.raises(ConnectionClosed):
            await ws.get_message()
        await go.wait()
        assert ws.closed is not None
        done.set()

    async with served(tmp_path, handler) as server:
        async with await server.connect():
            pass
        await server.until(lambda c: c.closed == 1)
        with trio.move_on_after(0.05) as scope:
            await server.engine.wait_empty()
        assert scope.cancelled_caught, "nobody waits for the handler"
        go.set()
        await server.engine.wait_empty()
        assert done.is_set()
        await server.ended(client=1)
