"""Waiting for a connection: several at once, cancelled, and with full queues either way."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from tests.harness import raw
from tests.harness.served import served
from tests.unit.server.peer import (
    BINARY,
    OFF,
    PING,
    PONG,
    Peer,
    bystander,
    close_frame,
    everything_read,
    fill,
    queued,
    small_buffer,
)
from wssup.server.connection import Connection
from wssup.server.request import Request

# Receiving.


async def test_two_who_wait_for_messages(tmp_path: Path) -> None:
    """Of two tasks that receive from one connection, each message reaches exactly one, and each has
    its own in order. Both learn of the end.
    """
    count = 300
    received: list[list[int]] = [[], []]
    both = trio.Event()

    async def receive(ws: Connection, mine: list[int]) -> None:
        async for message in ws:
            mine.append(int(message))
            if received[0] and received[1]:
                both.set()

    async def handler(request: Request) -> None:
        ws = await request.accept()
        async with trio.open_nursery() as nursery:
            for mine in received:
                nursery.start_soon(receive, ws, mine)

    async with served(tmp_path, handler) as server:
        async with await Peer.open(server) as peer:
            # One at a time both are waiting for it, and in a heap the queue is used, too.
            await peer.say("0")
            await everything_read()
            await peer.say("1")
            await both.wait()
            await peer.say(*map(str, range(2, count)))
            await peer.close()
        await server.ended(client=1)
    assert sorted(received[0] + received[1]) == list(range(count))
    assert all(mine == sorted(mine) for mine in received)


async def test_who_waits_behind_one_that_is_cancelled(tmp_path: Path) -> None:
    """When the first, or a later, of those that wait is cancelled, messages go to the others."""
    received: list[str] = []
    scopes = [trio.CancelScope() for _ in range(4)]
    done = trio.Event()

    async def receive(ws: Connection, number: int) -> None:
        with scopes[number]:
            received.append(f"{number} {await ws.get_message()!s}")
        if len(received) == 2:
            done.set()

    async def handler(request: Request) -> None:
        ws = await request.accept()
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(receive, ws, number)
                await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()
            scopes[2].cancel()
            await trio.testing.wait_all_tasks_blocked()
            await ws.send_message("ready")

    async with served(tmp_path, handler) as server:
        async with await Peer.open(server) as peer:
            assert await peer.frame() == (raw.TEXT, b"ready")
            await peer.say("a")
            await everything_read()
            await peer.say("b")
            await done.wait()
        await server.until(lambda c: not c.open)
    assert received == ["1 a", "3 b"]


@pytest.mark.parametrize("kind", ["random", "zero"])
async def test_a_cancelled_receive_loses_nothing(tmp_path: Path, kind: str) -> None:
    """However often and whenever get_message is cancelled, each message arrives once, in order."""
    count, received, cancelled = 500, list[int](), 0
    chance = random.Random(3)

    async def handler(request: Request) -> None:
        nonlocal cancelled
        ws = await request.accept()
        while len(received) < count:
            if kind == "zero":
                # Cancelled before it begins: it gets nothing, and takes nothing from the next.
                with trio.move_on_after(0) as scope:
                    await ws.get_message()
                assert scope.cancelled_caught
                received.append(int(await ws.get_message()))
            else:
                with trio.move_on_after(chance.random() * 0.0005) as scope:
                    received.append(int(await ws.get_message()))
            cancelled += scope.cancelled_caught
        await ws.send_message("done")

    async def talk(peer: Peer) -> None:
        number = 0
        while number < count:
            several = range(number, min(count, number + chance.choice([1, 1, 1, 2, 30])))
            await peer.say(*map(str, several))
            number = several.stop
            await trio.sleep(chance.random() * 0.001)

    async with (
        served(tmp_path, handler, inbound_messages=8) as server,
        await Peer.open(server) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(talk, peer)
        assert await peer.frame() == (raw.TEXT, b"done")
    assert received == list(range(count))
    assert cancelled


# Sending.


async def test_a_cancelled_send_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """Of sends that are cancelled while they wait for a slow reader nothing arrives; of those that
    return everything does, whole and in order.
    """
    sent: list[int] = []
    chance = random.Random(4)
    number = cancelled = 0

    async def handler(request: Request) -> None:
        nonlocal number, cancelled
        ws = await request.accept()
        while cancelled < 50 or len(sent) < 50:
            with trio.move_on_after(chance.random() * 0.002) as scope:
                await ws.send_message(b"%08d" % number * chance.randrange(1, 5000))
                sent.append(number)
            cancelled += scope.cancelled_caught
            number += 1
        await ws.send_message("done")

    async with (
        served(tmp_path, handler, heartbeat=OFF, outbound_bytes=20_000) as server,
        await Peer.open(server, buffer=4096) as peer,
    ):
        arrived = []
        while (frame := await peer.frame())[0] == BINARY:
            payload = frame[1]
            assert payload == payload[:8] * (len(payload) // 8)
            arrived.append(int(payload[:8]))
            await trio.sleep(0.001)
        assert frame == (raw.TEXT, b"done")
    assert arrived == sent


async def test_who_sends_at_the_same_time(tmp_path: Path) -> None:
    """Messages of several senders, some larger than the queue, arrive whole, each sender's in
    order; nobody is passed over.
    """
    senders, count = 5, 40

    async def send(ws: Connection, letter: str) -> None:
        for number in range(count):
            await ws.send_message(f"{letter}{number:04d}" * (50 + 400 * (number % 9)))

    async def handler(request: Request) -> None:
        ws = await request.accept()
        async with trio.open_nursery() as nursery:
            for letter in "abcde":
                nursery.start_soon(send, ws, letter)

    async with served(tmp_path, handler, heartbeat=OFF, outbound_bytes=10_000) as server:
        async with await Peer.open(server, buffer=4096) as peer:
            arrived: dict[str, list[int]] = {letter: [] for letter in "abcde"}
            for _ in range(senders * count):
                opcode, payload = await peer.frame()
                text = payload.decode()
                assert opcode == raw.TEXT
                assert text == text[:5] * (len(text) // 5)
                arrived[text[0]].append(int(text[1:5]))
                # First come, first served: nobody is more than a few messages ahead.
                assert max(map(len, arrived.values())) - min(map(len, arrived.values())) <= 10
            assert await peer.code() == 1000
        assert all(numbers == list(range(count)) for numbers in arrived.values())
        await server.until(lambda c: not c.open)


@pytest.mark.parametrize("asked", [1, 2, 3, 15, 40])
async def test_answers_that_do_not_fit(tmp_path: Path, asked: int) -> None:
    """An event-style application whose answers are too large for the queue is asked for the next as
    soon as there is room, whatever has come meanwhile.
    """

    class App:
        def on_connect(self, ws: Connection) -> None:
            small_buffer(ws)

        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            assert ws.send_nowait(f"{data!s}," + "x" * 100_000)

    async with served(tmp_path, App(), heartbeat=OFF, outbound_bytes=1024) as server:
        async with bystander(server, echoes=False), await Peer.open(server, buffer=4096) as peer:
            for base in (0, 1000):
                await peer.say(*(str(base + number) for number in range(asked)))
                for number in range(asked):
                    with trio.fail_after(15):
                        opcode, payload = await peer.frame()
                    assert (opcode, int(payload.partition(b",")[0])) == (raw.TEXT, base + number)
            await peer.close()
        await server.ended(client=2)


class Answering:
    """Answers whatever it is asked, and remembers whether it could."""

    def __init__(self) -> None:
        self.answered: list[bool] = []

    def on_connect(self, ws: Connection) -> None:
        small_buffer(ws)

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        self.answered.append(ws.send_nowait(data))


async def test_answers_behind_pongs(tmp_path: Path) -> None:
    """An event-style application is not asked while the outbound queue is full of pongs: none of
    its answers is refused, and each comes.
    """
    count, app = 50, Answering()
    data = b"".join(
        raw.frame(PING, b"x" * 125) * 20 + raw.frame(raw.TEXT, b"%d" % n) for n in range(count)
    )
    async with served(tmp_path, app, heartbeat=OFF, outbound_bytes=1024) as server:
        async with await Peer.open(server, buffer=4096) as peer, trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, data)
            answers: list[bytes] = []
            while len(app.answered) < count or len(answers) < sum(app.answered):
                opcode, payload = await peer.frame()
                if opcode == raw.TEXT:
                    answers.append(payload)
        await server.ended(lost=1)
    assert app.answered == [True] * count
    assert answers == [b"%d" % n for n in range(count)]


async def test_answers_beside_a_sender_that_waits(tmp_path: Path) -> None:
    """Nor while others wait to send to the same client: it is asked when there is room again."""
    count = 20

    async def broadcast(ws: Connection) -> None:
        for _ in range(count):
            await ws.send_message(b"x" * 50_000)

    class Both(Answering):
        def on_connect(self, ws: Connection) -> None:
            super().on_connect(ws)
            server.nursery.start_soon(broadcast, ws)

    app = Both()
    async with served(tmp_path, app, heartbeat=OFF, outbound_bytes=1024) as server:
        async with await Peer.open(server, buffer=4096) as peer:
            answers: list[bytes] = []
            for number in range(count):
                peer.push(raw.frame(raw.TEXT, b"%d" % number))
                while (frame := await peer.frame())[0] != BINARY:
                    answers.append(frame[1])
            while len(app.answered) < count or len(answers) < sum(app.answered):
                answers.append((await peer.frame())[1])
        await server.ended(lost=1)
    assert app.answered == [True] * count
    assert answers == [b"%d" % n for n in range(count)]


# Full queues.


async def test_who_is_not_listened_to(tmp_path: Path) -> None:
    """Until the inbound queue is full pings are answered. Then the socket is not read, and what the
    client sends fills the kernel's buffers and is all there when the application goes on.
    """
    go = trio.Event()
    received: list[int] = []

    async def handler(request: Request) -> None:
        ws = await request.accept()
        await go.wait()
        received.extend([int(message[:9]) async for message in ws])

    async with served(tmp_path, handler, heartbeat=OFF, inbound_messages=4) as server:
        async with await Peer.open(server) as peer:
            for number in range(3):
                await peer.say(f"{number:09d}")
                await peer.send(raw.frame(PING, b"%d" % number))
                assert await peer.frame() == (PONG, b"%d" % number)
            message = raw.frame(raw.TEXT, b"%09d" % 3 + b"x" * 10_000)
            sent = await fill(peer, message)
            assert server.counts.messages_in == 4
            assert queued(server) == 0
            rest = message[sent % len(message) :] if sent % len(message) else b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.send, rest + raw.frame(PING, b"behind") + close_frame())
                await everything_read()
                assert server.counts.messages_in == 4
                go.set()
                assert await peer.frame() == (PONG, b"behind")
                assert await peer.code() == 1000
        await server.ended(client=1)
    assert received[:4] == [0, 1, 2, 3]
    assert received[4:] == [3] * ((sent + len(rest)) // len(message) - 1)


async def test_a_close_is_answered_although_nobody_reads(tmp_path: Path) -> None:
    """A client that closes before the queue is full is gone at once, and the application still gets
    what came before.
    """
    go = trio.Event()
    received: list[str | bytes] = []

    async def handler(request: Request) -> None:
        ws = await request.accept()
        await go.wait()
        assert ws.closed is not None
        received.extend([message async for message in ws])
        with pytest.raises(ConnectionClosed):
            await ws.get_message()

    async with served(tmp_path, handler, inbound_messages=4) as server:
        async with await Peer.open(server) as peer:
            await peer.say("a", "b", "c")
            await peer.close()
        await server.until(lambda c: c.closed_by_reason["client"] == 1)
        assert received == []
        go.set()
        await server.ended(client=1)
    assert received == ["a", "b", "c"]


async def test_closing_who_is_not_listened_to(tmp_path: Path) -> None:
    """An application may close a connection whose queue is full: the client gets the close frame,
    and its own, behind all it has sent, ends the connection in order.
    """
    go = trio.Event()

    async def handler(request: Request) -> None:
        ws = await request.accept()
        await go.wait()
        await ws.aclose(4002, "full")
        assert ws.closed is not None
        assert ws.closed.code == 4002

    async with served(tmp_path, handler, inbound_messages=2, close_timeout=100) as server:
        async with await Peer.open(server) as peer:
            await peer.say(*["x"] * 1000)
            await server.until(lambda c: c.messages_in == 2)
            go.set()
            assert await peer.frame() == (raw.CLOSE, b"\x0f\xa2full")
            await peer.say(*["y"] * 1000)
            await peer.send(close_frame(4002))
            assert await peer.frame() == (-1, b"")
        await server.ended(server=1)
