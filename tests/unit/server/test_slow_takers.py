"""Clients that take what they are sent slowly are not those that take nothing."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.harness.served import served
from tests.unit.server.peer import OFF, Peer
from wssup.server.connection import Connection


async def test_who_takes_slowly_stays(tmp_path: Path) -> None:
    """A client that takes a little at a time stays for as long as it does so, although the kernel
    never has enough room to ask for more within send_timeout; one that stops is closed.
    """
    timeout = 1.0

    class App:
        def on_connect(self, ws: Connection) -> None:
            ws.send_nowait(bytes(16_000_000))

    async with (
        served(
            tmp_path, App(), heartbeat=OFF, send_timeout=timeout, close_timeout=timeout
        ) as server,
        await Peer.open(server, buffer=4096) as peer,
    ):
        until = trio.current_time() + 4 * timeout
        while trio.current_time() < until:
            await peer._stream.receive_some(2_000)
            assert server.counts.active == 1
            await trio.sleep(timeout / 20)
        await server.ended(slow_client=1)
