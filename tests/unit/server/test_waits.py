"""What ``get_message`` and ``send_message`` return: coroutines, or what behaves like them."""

from __future__ import annotations

import gc
import inspect
import os
import socket
import sys
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from tests.harness import raw
from tests.harness.served import served
from tests.unit.server.peer import OFF, Peer, everything_read
from wssup.server.connection import Connection
from wssup.server.loops.trio import TrioLoop
from wssup.server.request import Request

Told = Callable[[Connection, Peer], Awaitable[None]]


@pytest.fixture(params=["inside", "public"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the compiled core may look at inside of trio, and without."""
    scheduler = TrioLoop.scheduler
    assert scheduler is not None
    if request.param == "public":
        monkeypatch.setattr(TrioLoop, "scheduler", (*scheduler[:-1], None))
    else:
        assert scheduler[-1] is not None, "trio is another one: see loops/inside.py"


async def told(tmp_path: Path, tell: Told) -> None:
    """Have a handler do something, with its client at hand."""
    peers: list[Peer] = []
    done = trio.Event()
    failed: list[BaseException] = []

    async def handler(request: Request) -> None:
        ws: Any = await request.accept()
        try:
            await everything_read()
            await tell(ws, peers[0])
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            done.set()

    async with served(tmp_path, handler, heartbeat=OFF) as server:
        async with await Peer.connect(server) as peer:
            peers.append(peer)
            await peer.send(raw.request())
            await peer.head()
            await done.wait()
        await server.until(lambda c: not c.open)
        await server.engine.wait_empty()
    if failed:
        raise failed[0]


pytestmark = pytest.mark.usefixtures("way")


async def test_it_is_a_coroutine(tmp_path: Path) -> None:
    """It has a coroutine's methods and names; so has the method those of the function."""

    async def tell(ws: Connection, _: Peer) -> None:
        for name, call in (
            ("get_message", ws.get_message()),
            ("send_message", ws.send_message("x")),
        ):
            assert isinstance(call, Coroutine)
            assert inspect.isawaitable(call)
            assert call.__name__ == name
            assert call.__qualname__ == f"Connection.{name}"
            assert f"Connection.{name} at 0x" in repr(call)
            call.close()
            call.close()
        assert str(inspect.signature(ws.send_message)) == "(message: 'str | bytes') -> 'None'"
        assert inspect.getdoc(Connection.get_message) == inspect.getdoc(ws.get_message)
        assert "The next message" in (Connection.get_message.__doc__ or "")

    await told(tmp_path, tell)


async def test_all_ways_to_call_it(tmp_path: Path) -> None:
    """By the connection, by its class, with a keyword, bound, in a nursery."""

    async def tell(ws: Connection, peer: Peer) -> None:
        bound = ws.send_message
        await bound("1")
        await ws.send_message(message="2")
        await Connection.send_message(ws, b"3")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.send_message, "4")
        assert [(await peer.frame())[1] for _ in range(4)] == [b"1", b"2", b"3", b"4"]
        for wrong in (
            lambda: ws.get_message(1),  # type: ignore[call-arg]
            ws.send_message,
            lambda: ws.send_message("a", "b"),  # type: ignore[call-arg]
            lambda: ws.send_message(text="a"),  # type: ignore[call-arg]
        ):
            with pytest.raises(TypeError, match="argument"):
                wrong()
        for unsendable in (None, 3, ["a"]):
            with pytest.raises(ValueError, match="must be str or bytes"):
                await ws.send_message(unsendable)  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            await ws.send_message("\ud800")
        await ws.send_message(type("Text", (str,), {})("5"))
        await ws.send_message(bytearray(b"6"))  # type: ignore[arg-type]
        assert [(await peer.frame())[1] for _ in range(2)] == [b"5", b"6"]

    await told(tmp_path, tell)


async def test_it_is_awaited_once(tmp_path: Path) -> None:
    """What was not begun takes no value; what is done, or is at work, cannot be gone on with."""

    async def tell(ws: Connection, peer: Peer) -> None:
        call: Any = ws.send_message("once")
        with pytest.raises(TypeError, match="just-started"):
            call.send("a value")
        await call
        assert await peer.frame() == (raw.TEXT, b"once")
        for again in (lambda: call.send(None), lambda: call.throw(KeyError("x"))):
            with pytest.raises(RuntimeError, match="already awaited"):
                again()
        closed: Any = ws.send_message("never")
        closed.close()
        with pytest.raises(RuntimeError, match="already awaited"):
            await closed
        unbegun: Any = ws.get_message()
        with pytest.raises(KeyError):
            unbegun.throw(KeyError("x"))

    await told(tmp_path, tell)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_what_is_thrown_into_it(tmp_path: Path) -> None:
    """Where it waits it raises what is thrown, in each form that there is, and is done."""

    async def tell(ws: Connection, _: Peer) -> None:
        error = KeyError("thrown")
        forms: list[tuple[Any, ...]] = [
            (error,),
            (KeyError,),
            (KeyError, "thrown"),
            (KeyError, error),
            (KeyError, error, None),
        ]
        for form in forms:
            for call in (ws.get_message, lambda: ws.send_message("x"), ws.__anext__):
                waiting: Any = call()
                waiting.close()
                waiting = call()
                with pytest.raises(KeyError):
                    waiting.throw(*form)
        waiting = ws.get_message()
        assert waiting.send(None) is ws.ticket
        assert ws.receiver is trio.lowlevel.current_task()
        with pytest.raises(KeyError):
            waiting.throw(error)
        ws.forget_receiver(ws.receiver)
        # What is left of it is no receiver.
        waiting = ws.get_message()
        waiting.send(None)
        waiting.close()
        ws.forget_receiver(ws.receiver)
        bad: Any = ws.get_message()
        with pytest.raises(TypeError):
            bad.throw("no exception")
        bad.close()

    await told(tmp_path, tell)


async def test_one_that_nobody_awaits(tmp_path: Path) -> None:
    """There is a warning that names it, as of a coroutine; and again of the next one."""

    async def tell(ws: Connection, _: Peer) -> None:
        for _ in range(3):
            with pytest.warns(RuntimeWarning, match="Connection.send_message' was never awaited"):
                ws.send_message("unsaid")  # type: ignore[unused-coroutine]

    await told(tmp_path, tell)


async def test_it_is_traced(tmp_path: Path) -> None:
    """Under a debugger or a profile, which make the interpreter go other ways, it does the same;
    so it does when it is gone on with by hand, and outside of any event loop it says so.
    """

    async def tell(ws: Connection, peer: Peer) -> None:
        before = sys.gettrace()
        sys.settrace(lambda *_: None)
        try:
            for _ in range(3):
                await ws.send_message("a")
                assert await peer.frame() == (raw.TEXT, b"a")
                await peer.say("b", "c")
                assert await ws.get_message() == "b"
                assert await ws.get_message() == "c"
        finally:
            sys.settrace(before)
        sends: list[Any] = [ws.send_message("d"), ws.send_message("e")]

        def elsewhere() -> None:
            for call in sends:
                with pytest.raises(RuntimeError, match="async context"):
                    call.send(None)

        await trio.to_thread.run_sync(elsewhere)
        await ws.send_message("f")
        assert await peer.frame() == (raw.TEXT, b"f")

    await told(tmp_path, tell)


async def test_cancelled_when_the_message_is_there(tmp_path: Path) -> None:
    """A receive that was woken gets its message, though it is cancelled before it runs; one that
    finds messages waiting takes none if it is cancelled.
    """

    async def tell(ws: Connection, peer: Peer) -> None:
        got: list[str | bytes] = []
        scope = trio.CancelScope()

        async def receive() -> None:
            with scope:
                got.append(await ws.get_message())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await everything_read()
            await peer.say("a", "b")
            with trio.fail_after(15):
                while ws.receiver is not None:
                    await trio.lowlevel.cancel_shielded_checkpoint()
            scope.cancel()
        assert got == ["a"]
        await everything_read()
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            got.append(await ws.get_message())
        assert cancelled.cancelled_caught
        assert await ws.get_message() == "b"

    await told(tmp_path, tell)


async def test_receivers_in_a_nursery(tmp_path: Path) -> None:
    """Several tasks of which each is but a call: each gets one message, and none is lost."""

    async def tell(ws: Connection, peer: Peer) -> None:
        got: list[str | bytes] = []

        async def keep() -> None:
            got.append(await ws.get_message())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(keep)
            nursery.start_soon(ws.get_message)
            await everything_read()
            await peer.say("1", "2", "3")
            await everything_read()
            await peer.say("4", "5")
        assert len(got) == 3
        assert await ws.get_message() == "5"

    await told(tmp_path, tell)


async def test_iterating(tmp_path: Path) -> None:
    """A loop over messages can be left and begun again; it ends with the connection, whether it
    waits for a message then or only asks later.
    """

    async def tell(ws: Connection, peer: Peer) -> None:
        await peer.say("1", "2", "3")
        async for message in ws:
            assert message == "1"
            break
        assert await anext(ws) == "2"
        got: list[str | bytes] = []

        async def rest() -> None:
            async for message in ws:
                got.append(message)  # noqa: PERF401 - a loop is what is tested

        with trio.testing.assert_checkpoints():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rest)
                await everything_read()
                nursery.start_soon(peer.close)
        assert got == ["3"]
        for _ in range(2):
            with trio.testing.assert_checkpoints(), pytest.raises(StopAsyncIteration):
                await ws.__anext__()
            with pytest.raises(ConnectionClosed):
                await ws.get_message()

    await told(tmp_path, tell)


async def test_sending_to_one_that_is_gone(tmp_path: Path) -> None:
    """Who sends when the client has vanished is told that the connection is closed."""

    async def tell(ws: Connection, _: Peer) -> None:
        with socket.socket(fileno=os.dup(ws.fd)) as same:
            same.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionClosed) as told_so:
            await ws.send_message("x")
        assert told_so.value.__suppress_context__ or told_so.value.__context__ is None
        assert ws.closed is not None

    await told(tmp_path, tell)


async def test_nothing_is_left_of_them(tmp_path: Path) -> None:
    """Thousands of messages, cancelled and unusual calls later there are no more objects."""

    async def tell(ws: Connection, peer: Peer) -> None:
        async def rounds(count: int) -> None:
            for _ in range(count):
                await peer.say("a", "b")
                assert await ws.get_message() == "a"
                assert await anext(ws) == "b"
                await ws.send_message("c")
                await peer.frame()
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await ws.get_message()
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await ws.send_message("never")
                with pytest.raises(ValueError, match="must be"):
                    await ws.send_message(3)  # type: ignore[arg-type]
                ws.get_message().close()

        await rounds(30)
        tracemalloc.start()
        try:
            await rounds(30)
            gc.collect()
            before, references = tracemalloc.get_traced_memory()[0], sys.getrefcount(ws)
            await rounds(300)
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] - before < 6000
            assert sys.getrefcount(ws) == references
        finally:
            tracemalloc.stop()

    await told(tmp_path, tell)


async def test_a_cycle_is_found(tmp_path: Path) -> None:
    """A call that its connection refers to is no leak."""
    gone: list[weakref.ref[Connection]] = []

    async def tell(ws: Connection, _: Peer) -> None:
        call: Any = ws.get_message()
        call.send(None)
        ws.forget_receiver(ws.receiver)
        ws.closers = [call]
        call.close()
        call = ws.get_message()
        call.close()
        ws.state["calls"] = [call]
        ws.closers = None
        gone.append(weakref.ref(ws))

    await told(tmp_path, tell)
    gc.collect()
    assert gone[0]() is None
