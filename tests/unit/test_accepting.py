"""Listeners that come and go while the worker accepts."""

from __future__ import annotations

import os
import socket

import trio
from trio.testing import wait_all_tasks_blocked

from wssup.server.accepting import Accepting


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    return listener


def _accepting() -> Accepting:
    return Accepting(limit=100, accepted=lambda: None, gauge=lambda _on: None)


async def test_a_listener_that_is_taken_back_before_it_was_waited_for(
    nursery: trio.Nursery,
) -> None:
    """A listener that is lent and taken back in one turn of the loop does no harm to the others."""
    accepting = _accepting()
    await nursery.start(accepting.run)
    accepting.switch(on=True)
    with _listener() as lent, _listener() as own:
        accepting.add((0, "own"), os.dup(own.fileno()))
        accepting.add((1, "lent"), os.dup(lent.fileno()))
        accepting.remove((1, "lent"))
        await wait_all_tasks_blocked()
        with socket.create_connection(own.getsockname()):
            with trio.fail_after(10):
                stream = await accepting.accept()
            await stream.aclose()
    await accepting.aclose()


async def test_a_listener_that_is_taken_back_when_a_connection_wakes_it(
    nursery: trio.Nursery,
) -> None:
    """A listener that is taken back in the turn in which a connection arrives does no harm, and the
    connection is left to whoever else has the listener.
    """
    accepting = _accepting()
    await nursery.start(accepting.run)
    accepting.switch(on=True)
    with _listener() as lent:
        accepting.add((1, "lent"), os.dup(lent.fileno()))
        await wait_all_tasks_blocked()
        with socket.create_connection(lent.getsockname()):
            # Woken by the same turn of the loop as the task that accepts, in either order.
            for _ in range(2):
                await trio.lowlevel.wait_readable(lent)
                accepting.remove((1, "lent"))
            await wait_all_tasks_blocked()
            taken, _ = lent.accept()
            taken.close()
    await accepting.aclose()
