"""Whatever is awaited lets others run, and can be cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from tests.harness import raw
from tests.harness.served import served
from tests.unit.server.peer import OFF, PING, PONG, Peer
from wssup.server.request import Request


async def _accept(request: Request) -> None:
    await request.accept()


async def _reject(request: Request) -> None:
    await request.reject(404)


async def _get_queued(request: Request) -> None:
    ws = await request.accept()
    await trio.testing.wait_all_tasks_blocked()
    with trio.testing.assert_checkpoints():
        await ws.get_message()
    await _is_cancel_point(ws.get_message)
    assert await ws.get_message() == "2"


async def _get_waiting(request: Request) -> None:
    ws = await request.accept()
    for _ in range(3):
        await ws.get_message()
    await _is_cancel_point(ws.get_message)
    await ws.send_message("more")
    with trio.testing.assert_checkpoints():
        assert await ws.get_message() == "4"


async def _talk(request: Request) -> None:
    ws = await request.accept()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: ws.send_message("text"),
        lambda: ws.send_message(b"binary"),
        ws.ping,
        ws.pong,
    ]
    for call in calls:
        with trio.testing.assert_checkpoints():
            await call()
        await _is_cancel_point(call)
    await trio.testing.wait_all_tasks_blocked()


async def _close(request: Request) -> None:
    ws = await request.accept()
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await ws.aclose()
    await _is_cancel_point(ws.aclose)
    await _is_cancel_point(ws.get_message)
    await _is_cancel_point(lambda: ws.send_message("x"))
    with trio.testing.assert_checkpoints(), pytest.raises(ConnectionClosed):
        await ws.get_message()


async def _close_cancelled(request: Request) -> None:
    ws = await request.accept()
    await _is_cancel_point(ws.aclose)
    assert ws.closed is not None


async def _is_cancel_point(call: Callable[[], Awaitable[object]]) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await call()
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "handler", [_accept, _reject, _get_queued, _get_waiting, _talk, _close, _close_cancelled]
)
async def test_every_await_is_a_checkpoint(
    tmp_path: Path, handler: Callable[[Request], Awaitable[None]]
) -> None:
    """Each method that is awaited lets others run and can be cancelled, also when it need not wait;
    and one that is cancelled at once has done nothing.
    """
    failures: list[BaseException] = []

    async def checked(request: Request) -> None:
        try:
            if handler in {_accept, _reject}:
                await _is_cancel_point(lambda: handler(request))
                assert not request.is_answered
                with trio.testing.assert_checkpoints():
                    await handler(request)
            else:
                await handler(request)
        except BaseException as error:
            failures.append(error)
            raise

    async with served(tmp_path, checked, heartbeat=OFF) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(raw.request())
            await peer.head()
            peer.push(b"".join(raw.frame(raw.TEXT, text) for text in (b"1", b"2", b"3")))
            while (frame := await peer.frame())[0] >= 0:
                opcode, payload = frame
                if opcode == PING:
                    await peer.send(raw.frame(PONG, payload))
                elif opcode == raw.CLOSE:
                    await peer.send(raw.frame(raw.CLOSE, payload[:2]))
                elif payload == b"more":
                    await peer.say("4")
        await server.until(lambda c: not c.open)
        await server.engine.wait_empty()
    assert failures == []
