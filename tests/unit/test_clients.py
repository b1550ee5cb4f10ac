"""The clients of other tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.harness.clients import HandshakeLostError, ask

Serve = Callable[[trio.SocketStream], Awaitable[None]]


async def _hangs_up(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.aclose()


async def _resets(stream: trio.SocketStream) -> None:
    # Closed with something unread, a connection is reset (RFC 2525 section 2.17).
    await trio.lowlevel.wait_readable(stream.socket)
    await stream.aclose()


@pytest.mark.parametrize("serve", [_hangs_up, _resets])
async def test_a_server_that_goes_before_it_answers(serve: Serve) -> None:
    """A client whose connection ends before its handshake was answered is told, and does not wait
    for its patience to end.
    """
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        began = trio.current_time()
        port = listener.socket.getsockname()[1]
        with pytest.RaisesGroup(HandshakeLostError, flatten_subgroups=True):
            await ask(f"ws://127.0.0.1:{port}/")
        assert trio.current_time() - began < 10
        nursery.cancel_scope.cancel()
