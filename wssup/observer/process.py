"""The observer at work."""

from __future__ import annotations

import asyncio
import socket

from wssup.observer.app import application
from wssup.observer.link import Link
from wssup.observer.publish import Publishing, Token
from wssup.observer.server import Server
from wssup.observer.state import State
from wssup.scoreboard import Scoreboard
from wssup.status import lines

__all__ = ["run"]


def run(
    begin: lines.Begin, channel: socket.socket, sockets: list[socket.socket], received: bytearray
) -> None:
    """Be the observer until the master closes the channel.

    :param received: what it has said after ``begin``.
    """
    board = Scoreboard.attach(begin.scoreboard)
    for sock in (channel, *sockets):
        sock.setblocking(False)
    asyncio.run(_live(State(board), Token(begin.token_file), channel, sockets, received))


async def _live(
    state: State,
    token: Token,
    channel: socket.socket,
    sockets: list[socket.socket],
    received: bytearray,
) -> None:
    link = Link(state)
    server = Server(application(state, Publishing(token, link)), started=link.ready)

    async def hear() -> None:
        try:
            await link.run(channel, received)
        finally:
            state.ending = True
            state.changed()
            server.end()

    async with asyncio.TaskGroup() as tasks:
        hearing = tasks.create_task(hear())
        # Who asks before there is anything to say waits in the sockets' queues.
        knowing = tasks.create_task(state.known.wait())
        await asyncio.wait((hearing, knowing), return_when=asyncio.FIRST_COMPLETED)
        knowing.cancel()
        if not state.ending:
            tasks.create_task(server.serve(sockets))
