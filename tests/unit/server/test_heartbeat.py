"""How dead connections are found, and that live ones are not taken for dead."""

from __future__ import annotations

import socket
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness import raw
from tests.harness.served import Echo, echo, served
from tests.unit.server.peer import (
    BINARY,
    OFF,
    PING,
    PONG,
    Peer,
    bystander,
    everything_read,
    flood,
    opened,
    queued,
    sent_at,
)
from wssup.config.settings import Heartbeat
from wssup.scoreboard import ROUND_TRIP_BOUNDS_US
from wssup.server.connection import Connection
from wssup.server.request import Request

STYLES = [pytest.param(echo, id="task"), pytest.param(Echo(), id="event")]


# Pings.


async def test_who_is_silent_is_pinged(tmp_path: Path) -> None:
    """A client that says nothing gets a ping in each interval and stays as long as it answers; the
    answers' times are counted.
    """
    beat = Heartbeat(ping_interval=0.2, ping_timeout=10)
    async with served(tmp_path, heartbeat=beat) as server, await Peer.open(server) as peer:
        times = []
        for number in range(1, 5):
            opcode, payload = await peer.frame()
            assert opcode == PING
            assert 0 < len(payload) <= 125
            times.append(trio.current_time())
            await peer.send(raw.frame(PONG, payload))
            counts = await server.until(lambda c, n=number: sum(c.round_trips) == n)
            assert number <= counts.pings_sent <= number + 1
        assert all(after - before >= 0.1 for before, after in pairwise(times))
        assert await peer.ask("still here") == "still here"
        await peer.close()
        await server.ended(client=1)
        assert server.counts.ping_timeouts == 0


async def test_round_trips_are_measured(tmp_path: Path) -> None:
    """A pong that takes 0.1 s is counted among those; one for another ping, or a second one, is
    not counted at all.
    """
    beat = Heartbeat(ping_interval=1.0, ping_timeout=10)
    async with served(tmp_path, heartbeat=beat) as server, await Peer.open(server) as peer:
        opcode, payload = await peer.frame()
        assert opcode == PING
        await trio.sleep(0.1)
        await peer.send(raw.frame(PONG, b"something else") + raw.frame(PONG, payload) * 2)
        await everything_read()
        trips = server.counts.round_trips
        assert sum(trips) == 1
        assert ROUND_TRIP_BOUNDS_US[trips.index(1) - 1] >= 65_536


async def test_who_talks_is_not_pinged(tmp_path: Path) -> None:
    """Whatever a client says shows that it lives: it is pinged only when it is silent."""
    beat = Heartbeat(ping_interval=1.0, ping_timeout=10)
    words = [
        raw.frame(raw.TEXT, b"x"),
        raw.frame(PONG, b""),
        raw.frame(PING, b"x"),
        # A message that is never finished.
        raw.frame(BINARY, bytes(1000))[:6],
        *[b"x"] * 10,
    ]
    async with served(tmp_path, heartbeat=beat) as server, await Peer.open(server) as peer:
        silent, spoke = 0.0, trio.current_time()
        for word in words:
            now = trio.current_time()
            await peer.send(word)
            await everything_read()
            silent, spoke = max(silent, trio.current_time() - spoke), now
            await trio.sleep(0.1)
        silent = max(silent, trio.current_time() - spoke)
        # On a machine that stands still it may have been silent after all.
        if silent < 0.5:
            assert server.counts.pings_sent == 0
        await server.until(lambda c: c.pings_sent == 1)


async def test_a_client_that_talks_and_answers_no_ping(tmp_path: Path) -> None:
    """A client that speaks after a ping lives, although it never answers one (some cannot)."""
    beat = Heartbeat(ping_interval=0.1, ping_timeout=0.5)
    async with served(tmp_path, heartbeat=beat) as server, await Peer.open(server) as peer:
        pings = 0
        while pings < 8:
            opcode, _ = await peer.frame()
            if opcode == PING:
                pings += 1
                await peer.say("I am here")
        counts = server.counts
        assert (counts.closed, counts.ping_timeouts, sum(counts.round_trips)) == (0, 0, 0)


async def test_pings_are_spread(tmp_path: Path) -> None:
    """Connections that were opened at once are not pinged at once: the first pings are spread over
    half the interval and more, whatever becomes of the clients.
    """
    count, parts = 100, 10
    beat = Heartbeat(ping_interval=8.0, ping_timeout=20)
    times: list[float] = []

    async def wait_for_ping(peer: Peer) -> None:
        assert (await peer.frame())[0] == PING
        times.append(trio.current_time())

    began = trio.current_time()
    async with (
        served(tmp_path, heartbeat=beat) as server,
        opened(server, count) as peers,
        trio.open_nursery() as nursery,
    ):
        for peer in peers:
            nursery.start_soon(wait_for_ping, peer)
    assert min(times) - began >= 1.0
    first, last = min(times), max(times)
    assert last - first >= 1.0
    in_part = [0] * (parts + 1)
    for at in times:
        in_part[int((at - first) / (last - first) * parts)] += 1
    assert max(in_part) <= count // 2


async def test_no_pings_at_all(tmp_path: Path) -> None:
    """With an interval of 0 nobody is pinged, and nobody is closed for silence."""
    async with served(tmp_path, heartbeat=Heartbeat(ping_interval=0, ping_timeout=0.1)) as server:
        async with await Peer.open(server) as peer:
            await trio.sleep(0.5)
            assert server.counts.pings_sent == 0
            assert await peer.ask("hello") == "hello"
        await server.ended(lost=1)


# Timeouts.


@pytest.mark.parametrize("handler", STYLES)
async def test_half_open_connections(tmp_path: Path, handler: object) -> None:
    """Clients that are there no more, and never said so, are closed ping_timeout after the ping,
    not before, each counted as a timeout. Others stay.
    """
    beat = Heartbeat(ping_interval=0.2, ping_timeout=0.5)
    async with served(tmp_path, handler, heartbeat=beat) as server:
        async with bystander(server), opened(server, 20) as peers:
            took: list[float] = []

            async def watch(peer: Peer) -> None:
                opcode, payload = await peer.frame()
                assert opcode == PING
                assert await peer.code() == 1011
                took.append(time.monotonic() - sent_at(payload))

            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(watch, peer)
            assert min(took) >= 0.5
            counts = await server.until(lambda c: c.closed == 20)
            assert counts.ping_timeouts == counts.closed_by_reason["timeout"] == 20
            assert counts.pings_sent >= 20
            assert counts.active == 1
        counts = await server.ended(timeout=20, client=1)
        assert counts.closes_by_code["server"] == {"1011": 20}
        assert counts.handler_errors == 0


async def test_half_open_connections_are_told_to_the_application(tmp_path: Path) -> None:
    """on_disconnect is called with 1011, and a task that waits gets ConnectionClosed."""
    codes: list[int] = []

    class App:
        def on_disconnect(self, _ws: Connection, code: int) -> None:
            codes.append(code)

    beat = Heartbeat(ping_interval=0.1, ping_timeout=0.1)
    async with served(tmp_path, App(), heartbeat=beat) as server, await Peer.open(server):
        await server.ended(timeout=1)
    assert codes == [1011]


async def test_who_is_not_read_from_is_not_judged(tmp_path: Path) -> None:
    """While an application does not take what its client has sent, a pong may lie behind it: the
    client is neither pinged nor closed. Afterwards it is, as anybody.
    """
    go = trio.Event()

    async def handler(request: Request) -> None:
        ws = await request.accept()
        await go.wait()
        async for _ in ws:
            pass

    beat = Heartbeat(ping_interval=0.1, ping_timeout=0.2)
    async with (
        served(tmp_path, handler, heartbeat=beat, inbound_messages=2) as server,
        await Peer.open(server) as peer,
    ):
        await peer.say("a", "b")
        await server.until(lambda c: c.messages_in == 2)
        await everything_read()
        before = server.counts.pings_sent
        await trio.sleep(1.0)
        assert (server.counts.pings_sent, server.counts.closed) == (before, 0)
        go.set()
        await server.ended(timeout=1)
        assert server.counts.pings_sent == before + 1


# A worker that stands still.


def _stalling(peers: list[Peer], said: bytes, seconds: float) -> Any:
    """An application that blocks the worker when told to, while its clients go on talking."""

    def was_pinged(peer: Peer) -> bool:
        try:
            return bool(peer.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    class App:
        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            if data == "stall":
                # Who was pinged comes last, behind as many as there are.
                for peer in sorted(peers, key=was_pinged):
                    assert peer.push(said) == len(said)
                time.sleep(seconds)
            ws.send_nowait(data)

    return App()


@pytest.mark.parametrize("count", [10, 300])
async def test_a_stall_blames_no_client(tmp_path: Path, count: int) -> None:
    """When the worker itself stood still for longer than ping_timeout, clients that said something
    meanwhile are not closed, however many they are.
    """
    # All of them must be open before the first is given up: this is what it takes for many.
    interval, timeout = (0.3, 4.0) if count == 10 else (3.0, 4.0)
    beat = Heartbeat(ping_interval=interval, ping_timeout=timeout)
    peers: list[Peer] = []
    app = _stalling(peers, raw.frame(PONG, b""), timeout + 0.3)
    async with (
        served(tmp_path, app, heartbeat=beat) as server,
        await Peer.open(server) as stalling,
        opened(server, count) as found,
    ):
        peers += found
        await server.until(lambda c: c.pings_sent >= 5)
        assert await _answer(stalling, "stall") == "stall"
        now = server.counts.pings_sent
        while server.counts.pings_sent == now:
            assert await _answer(stalling, "hello") == "hello"
            await trio.sleep(0.01)
        counts = server.counts
        assert counts.ping_timeouts == counts.closed == 0


async def test_a_stall_does_not_keep_the_dead(tmp_path: Path) -> None:
    """After a stall those who said nothing are found as ever."""
    beat = Heartbeat(ping_interval=0.2, ping_timeout=0.5)
    async with (
        served(tmp_path, _stalling([], b"", 0.7), heartbeat=beat) as server,
        await Peer.open(server) as stalling,
        opened(server, 10),
    ):
        await server.until(lambda c: c.pings_sent)
        await stalling.say("stall")
        counts = await server.until(lambda c: c.closed == 11)
        assert counts.closed_by_reason["timeout"] == 11


@pytest.mark.parametrize("count", [10, 300])
async def test_a_stall_blames_no_handshake(tmp_path: Path, count: int) -> None:
    """A request that came in time is answered, although the worker was too late to read it."""
    timeout = 3.0 if count == 10 else 5.0  # all are to be there before the first times out
    peers: list[Peer] = []
    app = _stalling(peers, raw.request(), timeout + 0.3)
    async with (
        served(tmp_path, app, heartbeat=OFF, handshake_timeout=timeout) as server,
        await Peer.open(server) as stalling,
        trio.open_nursery() as nursery,
    ):
        try:
            peers += [await Peer.connect(server) for _ in range(count)]
            await server.until(lambda c: c.accepted == count + 1)
            assert await stalling.ask("stall") == "stall"
            counts = await server.until(lambda c: c.upgraded + c.handshake_failures == count + 1)
            assert counts.handshake_failures == 0
        finally:
            for peer in peers:
                peer.drop()
            nursery.cancel_scope.cancel()


async def _answer(peer: Peer, text: str) -> str:
    """Ask, and be pinged meanwhile."""
    await peer.say(text)
    while True:
        opcode, payload = await peer.frame()
        if opcode != PING:
            assert opcode == raw.TEXT, (opcode, payload)
            return payload.decode()


# Code that cannot ping.


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_pings_of_a_browser(tmp_path: Path, *, is_async: bool) -> None:
    """With app_ping the JSON {"type": "ping"} is answered and not given to the application; any
    other text is, and bytes are.
    """
    received: list[str | bytes] = []

    class App:
        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            received.append(data)
            ws.send_nowait(data)

    async def handler(request: Request) -> None:
        ws = await request.accept()
        async for message in ws:
            received.append(message)
            await ws.send_message(message)

    others = [
        '{"type":"pong"}',
        '{"type":"ping","id":1}',
        '{"type":["ping"]}',
        '["type","ping"]',
        '{"type":"ping"',
        '"ping"',
        "ping",
        "",
    ]
    beat = Heartbeat(ping_interval=0, app_ping=True)
    async with served(tmp_path, handler if is_async else App(), heartbeat=beat) as server:
        async with await Peer.open(server) as peer:
            for ping in ('{"type":"ping"}', ' {\n"type" : "ping" }\n'):
                assert await peer.ask(ping) == '{"type":"pong"}'
            # In one read with others, and in pieces.
            await peer.say("before", '{"type":"ping"}', "after")
            frames = [(await peer.frame())[1].decode() for _ in range(3)]
            assert sorted(frames) == sorted(["before", '{"type":"pong"}', "after"])
            for byte in raw.frame(raw.TEXT, b'{"type":"ping"}'):
                peer.push(bytes([byte]))
                await everything_read()
            assert await peer.frame() == (raw.TEXT, b'{"type":"pong"}')
            for other in others:
                assert await peer.ask(other) == other
            await peer.send(raw.frame(BINARY, b'{"type":"ping"}'))
            assert await peer.frame() == (BINARY, b'{"type":"ping"}')
            await peer.close()
        await server.ended(client=1)
    assert received == ["before", "after", *others, b'{"type":"ping"}']


async def test_pings_of_a_browser_are_text_by_default(tmp_path: Path) -> None:
    """Without app_ping the application gets every text."""
    async with served(tmp_path) as server, await Peer.open(server) as peer:
        assert await peer.ask('{"type":"ping"}') == '{"type":"ping"}'


async def test_a_flood_of_browser_pings(tmp_path: Path) -> None:
    """Their answers are bounded like everything that waits for a client."""
    pings = raw.frame(raw.TEXT, b'{"type":"ping"}') * 1000
    beat = Heartbeat(ping_interval=0, app_ping=True)

    def look() -> None:
        assert queued(server) <= 20_000 + 100

    async with served(tmp_path, heartbeat=beat, outbound_bytes=20_000) as server:
        async with bystander(server), await Peer.open(server, buffer=4096) as peer:
            await flood(peer, pings, 8 << 20, look)
            peer.reset()
        await server.ended(lost=1, client=1)
