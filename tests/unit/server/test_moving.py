"""Live handoff between two workers' engines: nothing of a connection is lost, doubled or torn."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import wssup
from tests.harness import raw
from tests.harness.descriptors import no_descriptors_left
from tests.harness.moving import (
    STYLE_NAMES,
    STYLES,
    Async,
    Plain,
    Two,
    begin,
    move,
    move_now,
    two,
)
from tests.harness.waiting import until
from tests.unit.server.peer import (
    BINARY,
    OFF,
    PING,
    PONG,
    Peer,
    close_frame,
    everything_read,
    opened,
    small_buffer,
)
from wssup.server.connection import Connection
from wssup.server.frames import apply_mask
from wssup.server.request import Request

Make = Callable[[], object]
each_style = pytest.mark.parametrize("make", STYLES, ids=STYLE_NAMES)


@each_style
async def test_under_load(tmp_path: Path, make: Make) -> None:
    """Half of 60 clients talk without pause and half are silent: all move, every answer has the
    number that follows, every count is exact, and no descriptor is left in the end.
    """
    talkers, count = 30, 60
    asked = [0] * count
    stop = False

    async def talk(peers: list[Peer], index: int) -> None:
        while not stop:
            asked[index] += 1
            assert await peers[index].ask("x") == f"{asked[index]} x"

    with no_descriptors_left():
        async with two(tmp_path, make()) as both:
            async with opened(both.old, count) as peers:
                async with trio.open_nursery() as nursery:
                    for index in range(talkers):
                        nursery.start_soon(talk, peers, index)
                    await until(lambda: min(asked[:talkers]) >= 5)
                    session = begin(both.old, both.new)
                    swept = await session.swept()
                    await both.old.engine.wait_empty()
                    before = list(asked)
                    await until(lambda: all(asked[i] >= before[i] + 5 for i in range(talkers)))
                    stop = True
                for index in range(count):
                    assert await peers[index].ask("x") == f"{asked[index] + 1} x"
                given, taken = await session.recall()
                assert (given.moved, given.error) == (count, "recalled")
                assert (taken.taken, taken.failed) == (count, 0)
                assert (swept.kept, swept.moved + swept.busy) == (0, count)
                assert both.moved() == (count, count)
                assert both.active() == (0, count)
                assert sum(both.new.counts.pauses) == count
                assert 0 < both.old.counts.handoff_bytes < 1000 * count
                assert both.new.counts.handoff_bytes == 0
                for peer in peers:
                    await peer.close()
            counts = await both.new.until(lambda c: not c.active)
            assert (counts.closed, counts.closed_by_reason["client"]) == (count, count)
            assert (both.old.counts.closed, both.old.counts.handler_errors) == (0, 0)
            await both.new.engine.wait_empty()


@pytest.mark.parametrize("make", [Plain, Async])
async def test_hooks_of_a_move(tmp_path: Path, make: Callable[[], Plain]) -> None:
    """on_suspend is called in the old worker, on_resume in the new one, once each; on_connect and
    on_disconnect are not.
    """
    old, new = make(), make()
    async with two(tmp_path, old, new) as both, await Peer.open(both.old, "/a") as peer:
        assert await peer.ask("x") == "1 x"
        assert await move(both.old, both.new) == 1
        assert await peer.ask("x") == "2 x"
        await peer.close()
        await both.new.engine.wait_empty()
    assert old.log == [("connect", "/a"), ("suspend", "/a")]
    assert new.log == [("resume", "/a"), ("disconnect 1000", "/a")]


async def test_what_the_application_knows(tmp_path: Path) -> None:
    """Id, path, kept headers, subprotocol, address and state are the same in the new worker."""
    seen = []

    @wssup.resumable
    async def application(request: Request) -> None:
        ws = await request.accept(subprotocol="chat", extra_headers=[(b"x-y", b"z")])
        if not ws.resumed:
            ws.state["deep"] = {"list": [1, 2.5, None, b"\xff", "\N{SNOWMAN}"]}
        ends = (str(ws.remote), str(ws.local))
        facts = (ws.id, ws.path, ws.handshake_headers, ws.subprotocol, ends)
        seen.append((*facts, dict(ws.state), request.path, request.get("x-kept")))
        await ws.get_message()

    kept = ("x-kept",)
    async with (
        two(tmp_path, application, keep_headers=kept) as both,
        await Peer.connect(both.old) as peer,
    ):
        further = (b"X-Kept: yes", b"X-Other: no", b"Sec-WebSocket-Protocol: chat")
        await peer.send(raw.request("/path?a=b", *further))
        assert b"101" in await peer.head()
        await everything_read()
        assert await move(both.old, both.new) == 1
        await everything_read()
        assert len(seen) == 2
        assert seen[0] == seen[1]
        assert seen[0][2] == ((b"x-kept", b"yes"),)


# What the client had begun to say.


def masked(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """A frame as clients send it."""
    data = bytearray(raw.frame(opcode, payload))
    mask = b"\x9a\x03\xf1\x5c"
    start = len(data) - len(payload)
    data[start - 4 :] = mask + apply_mask(payload, mask)
    if not last:
        data[0] &= 0x7F
    return bytes(data)


SNOW = "a\N{SNOWMAN}b\N{GRINNING FACE}".encode()
STREAM = b"".join(
    [
        masked(raw.TEXT, b"one"),
        masked(raw.TEXT, SNOW[:2], last=False),
        masked(PING, b"in between"),
        masked(0, SNOW[2:6], last=False),
        masked(0, SNOW[6:]),
        masked(BINARY, bytes(range(130))),
        masked(raw.TEXT, b""),
        masked(BINARY, b"last"),
    ]
)


def said(n: int, data: bytes, opcode: int = raw.TEXT) -> tuple[int, bytes]:
    return opcode, b"%d %s" % (n, data)


ANSWERS = [
    said(1, b"one"),
    (PONG, b"in between"),
    said(2, SNOW),
    said(3, bytes(range(130)), BINARY),
    said(4, b""),
    said(5, b"last", BINARY),
]


@each_style
@pytest.mark.parametrize("hops", [1, 3])
async def test_a_stream_cut_at_every_offset(tmp_path: Path, make: Make, hops: int) -> None:
    """Frames, fragments and characters of UTF-8 that a move cuts anywhere, or several moves byte
    after byte, are the same messages as without it.
    """
    async with two(tmp_path, make()) as both, opened(both.old, len(STREAM) + 1) as peers:
        for offset, peer in enumerate(peers):
            await peer.send(STREAM[:offset])
        here, there = both
        for hop in range(hops):
            await everything_read()
            assert await move(here, there) == len(peers)
            for offset, peer in enumerate(peers):
                at = offset + hop
                await peer.send(STREAM[at:] if hop == hops - 1 else STREAM[at : at + 1])
            here, there = there, here
        for peer in peers:
            await peer.send(close_frame())
            # A pong overtakes answers that async applications are at work on.
            found = sorted(await peer.frames())
            assert found == sorted([*ANSWERS, (raw.CLOSE, b"\x03\xe8"), (-1, b"")])
        assert both.old.counts.handler_errors == both.new.counts.handler_errors == 0


async def test_a_large_message_in_the_middle(tmp_path: Path) -> None:
    """Half a MiB of an unfinished frame moves with the connection, back and forth."""
    payload = os.urandom(1 << 20)
    data = masked(BINARY, payload)
    parts = [data[:500_000], data[500_000:900_001], data[900_001:]]
    async with two(tmp_path, Plain()) as both, await Peer.open(both.old) as peer:
        here, there = both
        for part in parts:
            await peer.send(part)
            await everything_read()
            assert await move(here, there) == 1
            here, there = there, here
        assert await peer.frame() == (BINARY, b"1 " + payload)


async def test_early_data(tmp_path: Path) -> None:
    """Messages that came together with the handshake are answered, if the connection moves at the
    same moment.
    """
    async with two(tmp_path, Plain()) as both:
        session = begin(both.old, both.new)
        async with await Peer.connect(both.old) as peer:
            words = [masked(raw.TEXT, b"%d" % n) for n in range(200)]
            await peer.send(raw.request() + b"".join(words))
            await peer.head()
            for n in range(200):
                assert await peer.frame() == said(n + 1, b"%d" % n)
            await both.old.engine.wait_empty()
            assert (await session.recall())[0].moved == 1


# Which connections move, and when.


@each_style
async def test_a_part_of_them(tmp_path: Path, make: Make) -> None:
    """A quota moves exactly so many; the session ends by itself and all are served."""
    async with two(tmp_path, make()) as both, opened(both.old, 10) as peers:
        await everything_read()
        assert await move(both.old, both.new, quota=3) == 3
        assert both.moved() == (3, 3)
        assert both.active() == (7, 3)
        assert (both.old.engine.count, both.new.engine.count) == (7, 3)
        for n in (1, 2):
            for peer in peers:
                assert await peer.ask("x") == f"{n} x"
        # What is asked for beyond what there is, is what there is.
        assert await move(both.old, both.new, quota=100) == 7


@each_style
async def test_opened_meanwhile(tmp_path: Path, make: Make) -> None:
    """A connection that is opened while a session goes on moves, too, after the application was
    told of it.
    """
    application = make()
    async with two(tmp_path, application) as both:
        session = begin(both.old, both.new)
        assert (await session.swept()).moved == 0
        async with await Peer.open(both.old, "/late") as peer:
            await both.old.engine.wait_empty()
            assert await peer.ask("x") == "1 x"
            assert both.moved() == (1, 1)
            assert (await session.recall())[0].moved == 1
    if isinstance(application, Plain):
        assert application.log[:3] == [(x, "/late") for x in ("connect", "suspend", "resume")]


async def test_half_a_handshake_stays(tmp_path: Path) -> None:
    """A handshake that is not finished stays where it is, and is finished there."""
    async with two(tmp_path, Plain()) as both, await Peer.connect(both.old) as peer:
        head = raw.request()
        await peer.send(head[:50])
        await everything_read()
        session = begin(both.old, both.new)
        assert await session.swept()
        await session.recall()
        await peer.send(head[50:])
        assert b"101" in await peer.head()
        assert await peer.ask("x") == "1 x"
        assert both.moved() == (0, 0)


async def test_there_and_back(tmp_path: Path) -> None:
    """Connections that move to and fro ten times, while they talk, are what they were."""
    rounds = 0
    stop = False

    async def talk(peer: Peer) -> None:
        nonlocal rounds
        n = 1
        while not stop:
            assert await peer.ask("x") == f"{n} x"
            n += 1
            rounds += 1

    async with two(tmp_path, Async()) as both, opened(both.old, 20) as peers:
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(talk, peer)
            here, there = both
            for _ in range(10):
                session = begin(here, there)
                await here.engine.wait_empty()
                await session.recall()
                before = rounds
                await until(lambda least=before + 100: rounds >= least)  # type: ignore[misc]
                here, there = there, here
            stop = True
        assert both.moved() == (100, 100)
        assert both.new.counts.moved_out == both.old.counts.moved_in == 100
        assert both.active() == (20, 0)


async def test_small_sockets(tmp_path: Path) -> None:
    """The kernel's own queues of a connection, full in both directions, move with it."""
    total, size = 300, 5000

    class Echo(Plain):
        def on_connect(self, ws: Connection) -> None:
            super().on_connect(ws)
            small_buffer(ws)

    async def read(peer: Peer) -> None:
        for n in range(total):
            assert await peer.frame() == said(n + 1, b"x" * size)
            if n % 50 == 0:
                await trio.sleep(0.005)

    async def write(peer: Peer) -> None:
        for _ in range(total):
            await peer.send(masked(raw.TEXT, b"x" * size))

    async def hop(both: Two) -> None:
        here, there = both
        while True:
            await move_now(here, there)
            here, there = there, here
            await trio.sleep(0.003)

    async with (
        two(tmp_path, Echo(), heartbeat=OFF, outbound_bytes=8192) as both,
        await Peer.open(both.old, buffer=4096) as peer,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hop, both)
            async with trio.open_nursery() as talking:
                talking.start_soon(write, peer)
                talking.start_soon(read, peer)
            nursery.cancel_scope.cancel()
        assert both.old.counts.moved_out >= 3
