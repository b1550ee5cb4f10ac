"""Event-style applications: which hooks are called, when, in which order, and in which task."""

from __future__ import annotations

import itertools
import struct
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness import raw
from tests.harness.ends import frame, with_a_bare_socket
from tests.harness.served import everything, served
from tests.harness.waiting import until
from tests.unit.server.peer import everything_read
from wssup.server.connection import Connection
from wssup.server.request import Request

HOOKS = ("on_request", "on_connect", "on_receive", "on_disconnect")
BYE = raw.frame(raw.CLOSE, struct.pack("!H", 4000))
KINDS = list(itertools.product(("no", "plain", "async"), repeat=4))
Journal = list[tuple[str, object]]


def journalled(journal: Journal, hook: str, kind: str) -> Callable[..., Any]:
    """A hook that notes when it begins and ends, and with what it was called."""

    def note(moment: str, arguments: tuple[object, ...]) -> None:
        journal.append((f"{hook} {moment}", arguments[1] if len(arguments) > 1 else ""))

    def plain(*arguments: object) -> None:
        note("begins", arguments)
        note("ends", arguments)

    async def asynchronous(*arguments: object) -> None:
        note("begins", arguments)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        note("ends", arguments)

    return plain if kind == "plain" else asynchronous


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
async def test_every_combination(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """Each hook may be missing, plain or async. Those of one connection never overlap: on_request,
    on_connect, on_receive with each message in order, on_disconnect with the code; also when all
    that a client ever says comes in one go.
    """
    journal: Journal = []
    chosen = [(hook, kind) for hook, kind in zip(HOOKS, kinds, strict=True) if kind != "no"]
    hooks = {hook: journalled(journal, hook, kind) for hook, kind in chosen}
    application = types.SimpleNamespace(**{"on_request": lambda _: None} | hooks)
    received = [("on_receive", str(number)) for number in range(5)]
    calls = [("on_request", ""), ("on_connect", ""), *received, ("on_disconnect", 4000)]
    expected = [
        (f"{hook} {moment}", argument)
        for hook, argument in calls
        if hook in hooks
        for moment in ("begins", "ends")
    ]
    talk = b"".join(raw.frame(raw.TEXT, str(number).encode()) for number in range(5)) + BYE
    async with served(tmp_path, application) as server:
        for pieces in ((raw.request(), talk), (raw.request() + talk,)):
            stream = await server.open()
            for piece in pieces:
                await stream.send_all(piece)
            assert (await everything(stream)).endswith(b"\x88\x02\x0f\xa0")
            await server.engine.wait_empty()
            assert journal == expected
            journal.clear()
        await server.ended(client=2)


async def test_hooks_of_different_connections_do_not_wait(tmp_path: Path) -> None:
    """While a hook of one connection waits, those of others run; its own messages come later."""
    go = trio.Event()

    class Application:
        async def on_receive(self, ws: Connection, data: str) -> None:
            if data == "wait":
                await go.wait()
            ws.send_nowait(data)

    async with served(tmp_path, Application()) as server:
        slow, quick = await server.connect(), await server.connect()
        await slow.send_message("wait")
        await slow.send_message("after")
        for number in range(20):
            await quick.send_message(str(number))
            assert await quick.get_message() == str(number)
        go.set()
        assert [await slow.get_message(), await slow.get_message()] == ["wait", "after"]
        await slow.aclose()
        await quick.aclose()


async def test_tasks_live_while_there_is_work(tmp_path: Path) -> None:
    """Idle connections have no task, whatever hooks there are; one that has work has one, until the
    work is done.
    """
    go = trio.Event()

    class Application:
        async def on_request(self, request: Request) -> None:
            await request.accept()

        async def on_connect(self, ws: Connection) -> None:
            await trio.lowlevel.checkpoint()
            ws.send_nowait("hello")

        async def on_receive(self, ws: Connection, data: str) -> None:
            await go.wait()
            ws.send_nowait(data)

        async def on_disconnect(self, ws: Connection, code: int) -> None:
            await trio.lowlevel.checkpoint()
            assert (ws.closed is not None, code) == (True, 1006)

    def tasks() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    async with served(tmp_path, Application()) as server:
        before = tasks()
        streams = [await with_a_bare_socket(server) for _ in range(50)]
        for stream in streams:
            assert await frame(stream) == (raw.TEXT, b"hello")
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before
        for stream in streams[:10]:
            await stream.send_all(raw.frame(raw.TEXT, b"1") + raw.frame(raw.TEXT, b"2"))
        await server.until(lambda c: c.messages_in == 20)
        assert tasks() == before + 10
        go.set()
        for stream in streams[:10]:
            assert [(await frame(stream))[1] for _ in range(2)] == [b"1", b"2"]
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before
        for stream in streams:
            await stream.aclose()
        await server.ended(lost=50)
        assert tasks() == before


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_on_request(tmp_path: Path, kind: str) -> None:
    """on_request may accept with a subprotocol and headers, reject, or say nothing, which accepts.
    Who was rejected is never told to on_connect and on_disconnect.
    """
    told: list[str] = []

    class Plain:
        def on_request(self, request: Request) -> None:
            if request.path == "/accept":
                request.accept_nowait(subprotocol="b", extra_headers=[(b"X-A", b"1")])
            elif request.path == "/reject":
                request.reject_nowait(404, extra_headers=[(b"X-B", b"2")], body=b"no")

        def on_connect(self, ws: Connection) -> None:
            told.append(f"{ws.path} {ws.subprotocol}")

        def on_disconnect(self, ws: Connection, code: int) -> None:
            told.append(f"{ws.path} {code}")

    class Async(Plain):
        async def on_request(self, request: Request) -> None:  # type: ignore[override]
            await trio.lowlevel.checkpoint()
            if request.path == "/accept":
                await request.accept(subprotocol="b", extra_headers=[(b"X-A", b"1")])
            elif request.path == "/reject":
                await request.reject(404, extra_headers=[(b"X-B", b"2")], body=b"no")

    async with served(tmp_path, Plain() if kind == "plain" else Async()) as server:
        answers = []
        for path in ("/", "/accept", "/reject"):
            stream, answer = await server.send(
                raw.request(path, b"Sec-WebSocket-Protocol: a, b") + BYE
            )
            answers.append(answer + await everything(stream))
        await server.ended(client=2, rejected=1)
    assert answers[0].startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Protocol" not in answers[0]
    assert answers[1].startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Protocol: b\r\nX-A: 1\r\n" in answers[1]
    assert answers[2].startswith(b"HTTP/1.1 404 ")
    assert b"\r\nX-B: 2\r\n" in answers[2]
    assert answers[2].endswith(b"\r\n\r\nno")
    assert told == ["/ None", "/ 4000", "/accept b", "/accept 4000"]


async def test_on_request_that_goes_on_after_accepting(tmp_path: Path) -> None:
    """What an async on_request still does after it has accepted comes before on_connect, and that
    before the first message; also when the client has left meanwhile.
    """
    journal: Journal = []

    class Application:
        on_connect = staticmethod(journalled(journal, "on_connect", "plain"))
        on_receive = staticmethod(journalled(journal, "on_receive", "plain"))
        on_disconnect = staticmethod(journalled(journal, "on_disconnect", "plain"))

        async def on_request(self, request: Request) -> None:
            await request.accept()
            await said.wait()
            await everything_read()
            journal.append(("on_request ends", ""))

    async with served(tmp_path, Application()) as server:
        for ending in (b"", BYE):
            said = trio.Event()
            stream, _ = await server.send(raw.request())
            await stream.send_all(raw.frame(raw.TEXT, b"hello") + ending)
            said.set()
            await until(lambda: ("on_request ends", "") in journal)
            if not ending:
                await stream.send_all(BYE)
            await everything(stream)
            await server.engine.wait_empty()
            assert [what for what, _ in journal if "ends" in what] == [
                "on_request ends",
                "on_connect ends",
                "on_receive ends",
                "on_disconnect ends",
            ]
            journal.clear()


async def test_receiving_inside_a_hook(tmp_path: Path) -> None:
    """An async hook may wait for the next message itself, which on_receive then does not get: a
    token first, say.
    """
    got: list[object] = []

    class Application:
        async def on_connect(self, ws: Connection) -> None:
            got.append(("token", await ws.get_message()))
            await trio.sleep(0.01)

        async def on_receive(self, ws: Connection, data: str) -> None:
            got.append(data)
            if data == "pair":
                got.append(("second", await ws.get_message()))
            await ws.send_message("ok")

    with trio.fail_after(15):
        async with served(tmp_path, Application()) as server:
            ws = await server.connect()
            for messages in (["secret", "one"], ["pair", "two"], ["three"]):
                for message in messages:
                    await ws.send_message(message)
                    await everything_read()
                assert await ws.get_message() == "ok"
            await ws.aclose()
            await server.engine.wait_empty()
    assert got == [("token", "secret"), "one", "pair", ("second", "two"), "three"]


async def test_backpressure_of_an_async_hook(tmp_path: Path) -> None:
    """While on_receive is at work, no more is taken of its client than the inbound queue holds, and
    then the client has to wait; afterwards everything comes, in order.
    """
    go = trio.Event()
    got: list[int] = []

    class Application:
        async def on_receive(self, ws: Connection, data: bytes) -> None:  # noqa: ARG002
            await go.wait()
            got.append(int(data[:8]))

    async with served(tmp_path, Application(), inbound_messages=4) as server:
        stream = await with_a_bare_socket(server)
        done = trio.Event()

        async def send() -> None:
            for number in range(400):
                await stream.send_all(raw.frame(2, b"%8d" % number + bytes(50_000)))
            done.set()

        server.nursery.start_soon(send)
        await server.until(lambda c: c.messages_in >= 4)
        await everything_read()
        assert server.counts.messages_in <= 6
        assert not done.is_set(), "20 MB have gone somewhere"
        go.set()
        await done.wait()
        await stream.send_all(BYE)
        await everything(stream)
        await server.engine.wait_empty()
    assert got == list(range(400))


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_client_that_does_not_read(tmp_path: Path, kind: str) -> None:
    """A client that asks and asks and reads no answer is not heard any more when the outbound queue
    is full; once it reads, it gets every answer, in order.
    """

    class Plain:
        def on_receive(self, ws: Connection, data: bytes) -> None:
            assert ws.send_nowait(data + bytes(50_000))

    class Async:
        async def on_receive(self, ws: Connection, data: bytes) -> None:
            await ws.send_message(data + bytes(50_000))

    application = Plain() if kind == "plain" else Async()
    async with served(tmp_path, application, outbound_bytes=100_000) as server:
        ws = await server.connect()
        stream = await with_a_bare_socket(server)
        for number in range(400):
            await stream.send_all(raw.frame(2, b"%8d" % number))
        await ws.send_message(b"other")
        assert await ws.get_message() == b"other" + bytes(50_000)
        assert server.counts.messages_in < 400
        for number in range(400):
            answer = b"\x82\x7e" + struct.pack("!H", 50_008) + b"%8d" % number + bytes(50_000)
            got = bytearray()
            while len(got) < len(answer):
                got += await stream.receive_some(len(answer) - len(got))
            assert got == answer
        await stream.aclose()
        await ws.aclose()
        await server.ended(client=1, lost=1)


async def test_sending_to_others_at_the_end(tmp_path: Path) -> None:
    """on_disconnect can send to the others; its own connection takes nothing any more."""
    room: set[Connection] = set()

    class Room:
        def on_connect(self, ws: Connection) -> None:
            room.add(ws)

        def on_disconnect(self, ws: Connection, code: int) -> None:
            assert ws.is_closed
            assert ws.send_nowait("too late") is False
            room.discard(ws)
            for other in room:
                assert other.send_nowait(f"left with {code}")

    async with served(tmp_path, Room()) as server:
        clients = [await server.connect() for _ in range(3)]
        await clients[0].aclose(3001)
        assert [await ws.get_message() for ws in clients[1:]] == ["left with 3001"] * 2
        await clients[1].aclose(3002)
        assert await clients[2].get_message() == "left with 3002"
        await clients[2].aclose()
        assert (await server.ended(client=3)).handler_errors == 0


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_hook_that_closes(tmp_path: Path, kind: str) -> None:
    """From the call on with which a hook closes its connection, no message is delivered, although
    more had come.
    """
    got: list[str] = []

    class Plain:
        def on_receive(self, ws: Connection, data: str) -> None:
            got.append(data)
            if data == "close":
                ws.close_nowait(4321)

    class Async:
        async def on_receive(self, ws: Connection, data: str) -> None:
            got.append(data)
            if data == "close":
                await ws.aclose(4321)

    async with served(tmp_path, Plain() if kind == "plain" else Async()) as server:
        stream = await with_a_bare_socket(server)
        messages = (raw.frame(raw.TEXT, data) for data in (b"a", b"close", b"b", b"c"))
        await stream.send_all(b"".join(messages))
        assert await frame(stream) == (raw.CLOSE, b"\x10\xe1")
        await stream.send_all(BYE)
        assert await everything(stream) == b""
        await server.ended(server=1)
    assert got == ["a", "close"]


async def test_a_hook_that_closes_when_the_client_has_closed(tmp_path: Path) -> None:
    """A client that says goodbye and closes at once has done its part of the closing handshake when
    the hook that hears the goodbye closes, too: nobody waits for a second close frame.
    """

    class Application:
        def on_receive(self, ws: Connection, data: str) -> None:
            assert data == "goodbye"
            ws.close_nowait(4321)

    async with served(tmp_path, Application(), close_timeout=1000) as server:
        stream = await with_a_bare_socket(server)
        await stream.send_all(raw.frame(raw.TEXT, b"goodbye") + BYE)
        with trio.fail_after(15):
            assert await everything(stream) == b"\x88\x02\x10\xe1"
            await server.ended(server=1)
