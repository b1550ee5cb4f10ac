"""Who subscribes while connections move, or just before; and what its next worker leaves out of
what came there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trio_websocket import WebSocketConnection

from tests.harness.served import served
from tests.unit.server.test_topics import Commands, ask
from tests.unit.server.test_topics_returning import comes, heard, message
from wssup.config.topics import Topics
from wssup.server.connection import Connection
from wssup.server.topics.hub import Hub


@asynccontextmanager
async def subscribed(
    tmp_path: Path, *, history: int = 0
) -> AsyncIterator[tuple[Hub, Connection, WebSocketConnection]]:
    """A worker with one connection, which is subscribed to "before"."""
    application = Commands()
    async with served(tmp_path, application, topics=Topics(history=history)) as server:
        ws = await server.connect()
        await ask(ws, "subscribe", "before")
        (connection,) = application.connections
        yield server.engine.topics, connection, ws
        await ws.aclose()


def begin(hub: Hub) -> None:
    """Its connections are to move, to nobody knows whom."""
    hub.bus.hand_to(0, 1, lambda _: None)


async def test_subscriptions_are_noted_as_connections_move(tmp_path: Path) -> None:
    """Their times are known while connections move, and for a while before, as a worker hears of
    that later than others do; of what is subscribed to anew: not again of what was subscribed to
    all along, and until it is so no more.
    """
    async with subscribed(tmp_path) as (hub, connection, ws):
        for _ in range(2):
            assert hub._lately.of(connection).keys() == {"before"}
            hub.beat(time.monotonic())
        assert hub._lately.of(connection) == {}
        began = time.monotonic()
        await ask(ws, "subscribe", "t")
        hub.beat(time.monotonic())
        begin(hub)
        for topic in ("u", "before"):
            await ask(ws, "subscribe", topic)
        for _ in range(3):
            hub.beat(time.monotonic())
        noted = hub._lately.of(connection)
        assert noted.keys() == {"t", "u"}
        assert began <= noted["t"] <= noted["u"] <= time.monotonic()
        await ask(ws, "subscribe", "t")
        assert hub._lately.of(connection) == noted
        assert await ask(ws, "unsubscribe", "t")
        assert hub._lately.of(connection) == {"u": noted["u"]}
        await ask(ws, "subscribe", "t")
        assert hub._lately.of(connection)["t"] > noted["u"]
        hub.bus.handed_to(0, 1)
        for _ in range(2):
            assert hub._lately.of(connection)
            hub.beat(time.monotonic())
        assert hub._lately.of(connection) == {}


async def test_who_is_gone_is_forgotten(tmp_path: Path) -> None:
    """A connection that leaves its topics leaves nothing behind."""
    async with subscribed(tmp_path) as (hub, connection, ws):
        hub.beat(time.monotonic())
        await ask(ws, "subscribe", "t")
        assert hub._lately.of(connection).keys() == {"before", "t"}
        hub.left(connection)
        assert not hub._lately._joined
        assert not hub._lately._before


@pytest.mark.parametrize("since", [None, ""])
@pytest.mark.parametrize("history", [10, 0])
async def test_who_has_a_position_misses_nothing(
    tmp_path: Path, history: int, since: str | None
) -> None:
    """With a history a position promises all that comes after it, also what is on its way to this
    worker then: nothing is noted. Without one it promises nothing.
    """
    async with subscribed(tmp_path, history=history) as (hub, connection, ws):
        await ask(ws, "subscribe", "t", {"since": since})
        assert hub._lately.of(connection).keys() == (set() if history else {"before", "t"})


async def test_what_was_published_before_is_left_out(tmp_path: Path) -> None:
    """The next worker had it and the last one had not: only what came after the subscription is
    sent, and all of the other topics. The time goes along once more if it moves on.
    """
    async with subscribed(tmp_path) as (hub, connection, ws):
        await ask(ws, "subscribe", "t")
        hub._history.keep()
        joined, there, lately = hub.suspend(connection)
        assert lately.keys() == {"before", "t"}
        comes(hub, message(1), message(2, "before"))
        at = time.monotonic()
        comes(hub, message(3), message(4, "before"))
        hub.resume(connection, joined, there, {"t": at})
        comes(hub, message(5))
        assert await heard(ws) == ["2", "3", "4", "5"]
        assert hub._lately.of(connection) == {"t": at}
