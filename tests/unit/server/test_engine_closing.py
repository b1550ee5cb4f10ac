"""The engine closes its connections: over a window, at once, or without a word; each ends once."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import trio
import trio.testing
from trio_websocket import WebSocketConnection, WebSocketRequest

from tests.harness import raw
from tests.harness.served import Served, code_of, echo, served
from wssup.scoreboard import ClosedReason


async def test_close_all_spreads(tmp_path: Path) -> None:
    """Every connection is closed with the code and reason given, each in its own part of the
    window.
    """
    count, window = 20, 1.0
    async with served(tmp_path) as server:
        clients = [await server.connect() for _ in range(count)]
        ends: list[float] = []

        async def watch(ws: WebSocketConnection) -> None:
            assert await code_of(ws) == (1012, "service restart")
            ends.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            for ws in clients:
                nursery.start_soon(watch, ws)
            server.engine.close_all(1012, "service restart", ClosedReason.DRAIN, window)
        await server.ended(drain=count)
        for part, end in enumerate(sorted(ends)):
            assert end >= window * part / count, "too early"


async def test_close_all_at_once(tmp_path: Path) -> None:
    """Without a window all are closed together."""
    async with served(tmp_path) as server:
        clients = [await server.connect() for _ in range(10)]
        async with trio.open_nursery() as nursery:
            for ws in clients:
                nursery.start_soon(code_of, ws)
            server.engine.close_all(1001, "", ClosedReason.STOP, 0)
        await server.ended(stop=10)


async def test_close_all_without_connections(tmp_path: Path) -> None:
    """Nothing to close takes no time, whatever the window."""
    async with served(tmp_path) as server:
        server.engine.close_all(1001, "", ClosedReason.STOP, 1000)
        await server.engine.wait_empty()


async def test_a_handshake_that_is_complete_after_close_all_began(tmp_path: Path) -> None:
    """Who comes through its handshake while connections are being closed is closed as well."""
    may_accept = trio.Event()

    async def handler(request: WebSocketRequest) -> None:
        await may_accept.wait()
        await echo(request)

    async with served(tmp_path, handler) as server:
        async with trio.open_nursery() as nursery:

            async def client() -> None:
                assert await code_of(await server.connect()) == (1012, "restart")

            nursery.start_soon(client)
            await server.until(lambda c: c.handler_runs)
            server.engine.close_all(1012, "restart", ClosedReason.DRAIN, 0.1)
            assert server.counts.open == 1
            may_accept.set()
        await server.ended(drain=1)


async def test_a_client_that_does_not_answer_the_close(tmp_path: Path) -> None:
    """Who gets a close frame and says nothing is cut off after a while, and counted as what it was
    closed for.
    """
    async with served(tmp_path, close_timeout=0.1) as server:
        stream, answer = await server.send(raw.request())
        assert answer.startswith(b"HTTP/1.1 101 ")
        await server.until(lambda c: c.active)
        server.engine.close_all(1012, "restart", ClosedReason.DRAIN, 0)
        await server.ended(drain=1)
        await stream.aclose()


async def test_abort_all(tmp_path: Path) -> None:
    """What is left at a deadline is cut off without a close frame: WebSockets, handshakes, a
    handler that does not end; and whatever comes out of the accept queue later.
    """

    async def handler(request: WebSocketRequest) -> None:
        if request.path == "/slow":
            await trio.sleep_forever()
        await echo(request)

    async with served(tmp_path, handler) as server:
        ws = await server.connect()
        begun = await server.open()
        waiting = await server.open()
        await waiting.send_all(raw.request("/slow"))
        await server.until(lambda c: c.accepted == 3 and c.handler_runs == 2)
        server.engine.abort_all(ClosedReason.DEADLINE)
        assert (await code_of(ws))[0] == 1006
        await server.ended(deadline=1, draining=2)
        late = await server.open()
        await server.until(lambda c: c.accepted == 4)
        await server.ended(deadline=1, draining=3)
        for stream in (begun, waiting, late):
            await stream.aclose()


async def test_two_can_wait_for_the_end(tmp_path: Path) -> None:
    """Everybody who waits for the last connection's end is woken by it."""
    async with served(tmp_path) as server:
        ws = await server.connect()
        await server.until(lambda c: c.active)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.engine.wait_empty)
            nursery.start_soon(server.engine.wait_empty)
            await trio.testing.wait_all_tasks_blocked()
            await ws.aclose()


async def test_each_connection_ends_once(tmp_path: Path) -> None:  # noqa: C901 - many fates
    """Of 100 connections of all fates together, each ends exactly once, and nothing stays open."""
    fates = ["leave", "raise", "reset", "garbage", "half", "return"]

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        while True:
            message = await ws.get_message()
            if message == "raise":
                raise ValueError
            if message == "return":
                return
            await ws.send_message(message)

    async def live(server: Served, fate: str) -> None:
        if fate in {"garbage", "half"}:
            stream = await server.open()
            await stream.send_all(b"garbage\r\n\r\n" if fate == "garbage" else b"GET ")
            await stream.aclose()
            return
        stream, _ = await server.send(raw.request())
        if fate in {"raise", "return"}:
            await stream.send_all(raw.frame(raw.TEXT, fate.encode()))
            await stream.receive_some()
        if fate == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fate == "leave":
            await stream.send_all(raw.frame(raw.CLOSE, b"\x03\xe8"))
        await stream.aclose()

    async with served(tmp_path, handler) as server:
        async with trio.open_nursery() as nursery:
            for number in range(96):
                nursery.start_soon(live, server, fates[number % len(fates)])
        counts = await server.until(lambda c: c.accepted == 96 and not c.open)
        assert counts.closed == counts.upgraded == 64
        assert counts.handshake_failures == 32
        assert counts.closed_by_reason["error"] == 16
        assert counts.closed_by_reason["server"] == 16
        assert server.engine.count == 0
